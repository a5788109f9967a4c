"""The report of a benchmark: goals, tables, a Markdown page, and the raw numbers in a JSON file beside it."""

import argparse
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sb3_vpg.common.system_info import describe

RESULTS = Path(__file__).parents[1] / "results"
_PATH_FLAGS = ("out", "folder", "rltools")  # places on this machine


@dataclass(frozen=True)
class Goal:
    """
    :param what: what is measured
    :param value: the measured number; infinite or NaN if there is none
    :param limit: the number to reach
    :param at_least: True if ``value`` must be at least ``limit``, False if at most
    :param form: format of both numbers
    """

    what: str
    value: float
    limit: float
    at_least: bool = True
    form: str = ",.2f"

    @property
    def met(self) -> bool:
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def row(self) -> list[str]:
        value = format(self.value, self.form) if math.isfinite(self.value) else "none"
        bound = f"{'≥' if self.at_least else '≤'} {format(self.limit, self.form)}"
        return [self.what, bound, value, "met" if self.met else "**missed**"]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """:return: the lines of a Markdown table, and an empty line"""
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)] + [""]


def goal_table(goals: Sequence[Goal]) -> list[str]:
    return ["## Goals", "", *table(["", "goal", "measured", "goal met"], [goal.row() for goal in goals])]


def short(number: float) -> str:
    """:return: a rounded number of steps for an overview: ``"5.8k"``, ``"58k"``, ``"2.4M"``"""
    if number >= 1e6:
        return f"{number / 1e6:.1f}M"
    if number >= 1e3:
        return f"{number / 1e3:.{0 if number >= 1e4 else 1}f}k"
    return f"{number:.0f}"


def page(title: str, command: str, lines: Sequence[str], machine: str) -> str:
    """:return: the text of a report"""
    return "\n".join([f"# {title}", "", f"Command: `{command}`", "", *lines, machine, ""])


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """:return: a parser with the flags that all benchmarks have"""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="check in seconds that it runs: meaningless numbers, no files")
    parser.add_argument("--out", type=Path, help="folder for the results; default: benchmarks/results, with --quick none")
    return parser


def command(parser: argparse.ArgumentParser, args: argparse.Namespace) -> str:
    """:return: the command that repeats this run, without the flags that name folders"""
    words = ["python", f"benchmarks/{parser.prog}"]
    for name, value in vars(args).items():
        if name in _PATH_FLAGS or value == parser.get_default(name):
            continue
        words.append(f"--{name.replace('_', '-')}")
        if value is not True:
            words.extend(map(str, value if isinstance(value, list) else [value]))
    return " ".join(words)


def results_folder(args: argparse.Namespace, complete: bool = True) -> Path | None:
    """
    :param complete: False if only a part of the benchmark was run
    :return: the folder for the results; None if nothing is to be written: without ``--out``, neither a quick nor a partial
        run replaces the committed results
    """
    folder: Path | None = args.out or (RESULTS if complete and not args.quick else None)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def write_report(
    parser: argparse.ArgumentParser,
    args: argparse.Namespace,
    title: str,
    lines: Sequence[str],
    raw: dict[str, Any],
    complete: bool = True,
) -> None:
    """Print the page. If there is a ``results_folder``, write page and raw numbers there, named like the program."""
    warning = ["**A quick run, to see that the program works: these numbers say nothing.**", ""] if args.quick else []
    text = page(title, command(parser, args), [*warning, *lines], describe())
    print(text)
    folder = results_folder(args, complete)
    if folder is not None:
        name = Path(parser.prog).stem
        (folder / f"{name}.md").write_text(text)
        # The load tells whether the machine was quiet
        raw = {"command": command(parser, args), "machine": describe(), "load": os.getloadavg(), **raw}
        (folder / f"{name}.json").write_text(json.dumps(raw) + "\n")
