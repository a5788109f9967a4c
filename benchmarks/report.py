"""What every speed benchmark does with its numbers: goals that judge themselves, a page, the raw data beside it."""

import argparse
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from machine import describe

RESULTS = Path(__file__).parent / "results"
NOT_SHOWN = ("out", "folder")  # where something lies


@dataclass(frozen=True)
class Goal:
    """
    :param what: is measured
    :param value: measured; infinite or NaN where there is none
    :param limit: that it should keep to
    :param at_least: the limit is the least that will do; False: the most
    :param form: how to write both numbers
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
    """:return: lines of Markdown, and an empty one"""
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)] + [""]


def goal_table(goals: Sequence[Goal]) -> list[str]:
    return ["## Goals", "", *table(["", "goal", "measured", "goal met"], [goal.row() for goal in goals])]


def parser(description: str | None) -> argparse.ArgumentParser:
    """:return: a parser with what all of these programs understand"""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--quick", action="store_true", help="a few seconds to see that it runs; says nothing, writes nothing")
    made.add_argument("--out", type=Path, help="folder for the results; default: benchmarks/results, with --quick none")
    return made


def command(made: argparse.ArgumentParser, args: argparse.Namespace) -> str:
    """:return: the command that repeats this run, without the flags that say where something lies"""
    words = ["python", f"benchmarks/{made.prog}"]
    for name, value in vars(args).items():
        if name in NOT_SHOWN or value == made.get_default(name):
            continue
        words.append(f"--{name.replace('_', '-')}")
        if value is not True:
            words.extend(map(str, value if isinstance(value, list) else [value]))
    return " ".join(words)


def folder_for(args: argparse.Namespace, whole: bool = True) -> Path | None:
    """:return: where the results go; None: nowhere, because a quick run or a part must not replace the whole"""
    folder: Path | None = args.out or (RESULTS if whole and not args.quick else None)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def deliver(
    made: argparse.ArgumentParser,
    args: argparse.Namespace,
    title: str,
    lines: Sequence[str],
    raw: dict[str, Any],
    whole: bool = True,
) -> None:
    """Print the page; write it and the raw numbers, where results go somewhere, under the name of the program."""
    warning = ["**A quick run, to see that the program works: these numbers say nothing.**", ""] if args.quick else []
    text = "\n".join([f"# {title}", "", f"Command: `{command(made, args)}`", "", *warning, *lines, describe(), ""])
    print(text)
    folder = folder_for(args, whole)
    if folder is not None:
        name = Path(made.prog).stem
        (folder / f"{name}.md").write_text(text)
        # The load tells whether the machine was quiet
        raw = {"command": command(made, args), "machine": describe(), "load": os.getloadavg(), **raw}
        (folder / f"{name}.json").write_text(json.dumps(raw) + "\n")
