"""
What do the four steps of examples/random_weights_notebook.py reach?

    python benchmarks/random_weights_notebook.py

Runs the example and writes its tables to benchmarks/results/random_weights_notebook.md, in about two minutes of one core.
"""

import runpy
import tempfile
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import torch as th
from harness.report import make_parser, page, results_folder

from sb3_vpg.common.system_info import describe

example = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "examples" / "random_weights_notebook.py")))
COMMAND = "python benchmarks/random_weights_notebook.py"
TITLE = "From random weights to a policy gradient: CartPole-v0"
INTRODUCTION = [
    "The tables that `python examples/random_weights_notebook.py all` prints, with the names of its commands as titles.",
    "In parentheses are Student's 95 % intervals of the mean over seeds. With five seeds, they may contain impossible values.",
    "Episodes have at most 200 steps; new episodes are without exploration. No seed was left out.",
    "",
]


def sections(quick: bool) -> list[str]:
    """:return: for each command of the example, a heading and the lines that the command prints"""
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        for name in example.STEPS:
            with redirect_stdout(StringIO()) as printed:
                example.main([name, "--folder", folder, *(["--quick"] if quick else [])])
            tables, _, _ = printed.getvalue().rpartition("\nCharts:")
            lines += [f"## {name}", *tables.rstrip().splitlines(), ""]
    return lines


def main() -> None:
    parser = make_parser(__doc__)
    args = parser.parse_args()
    th.set_num_threads(1)
    text = page(TITLE, COMMAND, [*INTRODUCTION, *sections(args.quick)], describe())
    print(text)
    folder = results_folder(args)
    if folder is not None:
        (folder / "random_weights_notebook.md").write_text(text)


if __name__ == "__main__":
    main()
