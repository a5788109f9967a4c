"""
How long do ``sb3-vpg COMMAND --help``, a usage error and ``--version`` take, from start to end of the process?

    python benchmarks/cli_startup.py

Our own commands read their flags before they import torch; rl_zoo3's programs import torch first.
Results: cli_startup.md and cli_startup.json in benchmarks/results.
"""

import sys
from functools import partial

import numpy as np
from harness.measure import interleaved, process_seconds
from harness.report import Goal, goal_table, make_parser, table, write_report

from sb3_vpg.zoo.cli import COMMANDS

TITLE = "Start of the command line: help and usage errors"
PYTHON = "python -c pass"
OVERVIEW, VERSION, UNKNOWN = "sb3-vpg --help", "sb3-vpg --version", "sb3-vpg nonsense"
OWN = [name for name, command in COMMANDS.items() if command.parser]
# Without a run to film, record_training reports that before it reads the flag
ZOO = [name for name in COMMANDS if name not in OWN and name != "record_training"]
LIMIT = 0.5


def help_of(name: str) -> str:
    return f"sb3-vpg {name} --help"


def error_of(name: str) -> str:
    return f"sb3-vpg {name} --nonsense"


def measure(line: str) -> tuple[float, float]:
    """
    :param line: one of the lines above
    :return: wall-clock seconds and CPU seconds of its process
    """
    program, *arguments = line.split()
    start = [sys.executable, "-m", "sb3_vpg"] if program == "sb3-vpg" else [sys.executable]
    return process_seconds([*start, *arguments], code=2 if "nonsense" in line else 0)


def seconds_table(lines: list[str], measured: dict[str, list[tuple[float, float]]]) -> list[str]:
    rows = []
    for line in lines:
        cells = (
            f"{np.median(times):.2f} ({min(times):.2f} to {max(times):.2f})" for times in zip(*measured[line], strict=True)
        )
        rows.append([f"`{line}`", *cells])
    return table(["", "wall clock, s (range)", "CPU, s (range)"], rows)


def goals(own: list[str], measured: dict[str, list[tuple[float, float]]]) -> list[Goal]:
    def slowest(lines: list[str]) -> float:
        return max(float(np.median([wall for wall, _ in measured[line]])) for line in lines)

    answers = {
        "`--version`": [VERSION],
        "`--help`, the slowest of our own commands": [OVERVIEW, *map(help_of, own)],
        "usage error, the slowest of our own commands": [UNKNOWN, *map(error_of, own)],
    }
    return [Goal(f"{what}: wall clock, s", slowest(lines), LIMIT, at_least=False) for what, lines in answers.items()]


def report(measured: dict[str, list[tuple[float, float]]]) -> list[str]:
    """
    :param measured: from a line to wall-clock and CPU seconds of each round
    :return: the lines of the report
    """
    own, zoo = ([name for name in names if help_of(name) in measured] for names in (OWN, ZOO))
    return [
        "Each answer is that of a new process with one thread. Medians over rounds in which every line is measured once",
        f"({len(measured[PYTHON])} rounds). No command has a flag `--nonsense`. `{PYTHON}` only starts Python and ends it.",
        "",
        "## Our own commands",
        "",
        *seconds_table([PYTHON, OVERVIEW, VERSION, UNKNOWN, *map(help_of, own), *map(error_of, own)], measured),
        "## Commands that share the zoo's parser",
        "",
        "rl_zoo3 builds this parser after it has imported torch. `record_training` is left out: it looks for a run first.",
        "",
        *seconds_table([*map(help_of, zoo), *map(error_of, zoo)], measured),
        *goal_table(goals(own, measured)),
    ]


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--repetitions", type=int, default=7, help="number of rounds (default: %(default)s)")
    args = parser.parse_args()
    names = [OWN[0], ZOO[0]] if args.quick else [*OWN, *ZOO]
    lines = [PYTHON, OVERVIEW, VERSION, UNKNOWN, *map(help_of, names), *map(error_of, names)]
    tasks = {line: partial(measure, line) for line in lines}
    measured = interleaved(tasks, 1 if args.quick else args.repetitions)
    write_report(parser, args, TITLE, report(measured), {"seconds": measured})


if __name__ == "__main__":
    main()
