"""
What does ``VPG.load`` do with malicious files?

    python benchmarks/hostile.py

It loads each file of ``tests/support/malicious_files.py``. None may run code, fill the memory or raise another error than
the documented one. The table is in benchmarks/results/hostile.md.
"""

import re
import resource
import sys
import tempfile
import time
import warnings
from pathlib import Path

import torch as th
from harness.report import Goal, goal_table, make_parser, table, write_report

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from malicious_files import HOSTILE, Hostile
from tampering import Acting, Members, good_model

from sb3_vpg import VPG
from sb3_vpg.exceptions import RefusedFileError


def outcome(case: Hostile, members: Members, folder: Path) -> tuple[str, bool, float]:
    """:return: the result of loading the file; True if it was refused as documented and ran no code; the CPU seconds"""
    path, marker = folder / "model.zip", folder / "executed"
    path.write_bytes(case.build(members, marker))
    built, begun = Acting.built, time.process_time()
    try:
        VPG.load(path, device="cpu")
    except RefusedFileError as error:
        text, refused = str(error).replace(str(path), "model.zip"), re.search(case.says, str(error)) is not None
    except Exception as error:
        text, refused = f"**{type(error).__name__}**: {error}", False
    else:
        text, refused = "**loaded**", False
    seconds = time.process_time() - begun
    if marker.exists() or Acting.built != built:
        return f"**ran code**; {text}", False, seconds
    return text, refused, seconds


def main() -> None:
    parser = make_parser(__doc__)
    args = parser.parse_args()
    th.set_num_threads(1)
    warnings.simplefilter("ignore")
    members, rows, seconds, n_refused = good_model(), [], [], 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name, case in HOSTILE.items():
        with tempfile.TemporaryDirectory() as folder:
            text, refused, taken = outcome(case, members, Path(folder))
        seconds.append(taken)
        n_refused += refused
        rows.append([name, case.tries, case.advisory, shown(text)])
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10
    goals = [
        Goal("files refused by name, without code run", n_refused, len(HOSTILE), form="d"),
        Goal("growth of the peak memory, MB", grown, 100, at_least=False, form=".0f"),
        Goal("longest, seconds of one core", max(seconds), 1, at_least=False, form=".1f"),
    ]
    lines = [*goal_table(goals), "## Files", "", *table(["file", "what it tries", "described in", "result"], rows)]
    write_report(parser, args, "Malicious files", lines, {"rows": rows, "grown": grown, "seconds": seconds})


def shown(text: str) -> str:
    """:return: one cell of Markdown"""
    text = text if len(text) < 300 else f"{text[:300]} …"
    return text.replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    main()
