"""The committed pages of benchmarks/results are what the programs write from the committed raw numbers."""

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks/results"
with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(ROOT / "benchmarks")
    report = import_module("harness.report")
    names = ("collection", "training", "real_tasks", "time_to_solve", "pendulum_300k", "zoo_run", "cli_startup", "processes")
    programs = {name: import_module(name) for name in names}


def collection(program: ModuleType, raw: dict[str, Any]) -> list[str]:
    rates = {
        kind: {int(n_envs): measured for n_envs, measured in by_size.items()}
        for kind, by_size in raw["steps_per_cpu_second"].items()
    }
    return program.report(rates, 0.5, len(rates["dummy"][1]["VPG"]))


def training(program: ModuleType, raw: dict[str, Any]) -> list[str]:
    rates = raw["steps_per_cpu_second"]
    return program.report(rates, raw["steps"], raw["shares"], len(rates["VPG, dummy, 1"]))


def real_tasks(program: ModuleType, raw: dict[str, Any]) -> list[str]:
    return program.report(raw)


def time_to_solve(program: ModuleType, raw: dict[str, Any]) -> list[str]:
    settings = {name: program.Setting(**setting) for name, setting in raw["settings"].items()}
    return program.page(settings, raw["runs"])


def pendulum_300k(program: ModuleType, raw: dict[str, Any]) -> list[str]:
    return program.report(raw)


def zoo_run(program: ModuleType, raw: dict[str, Any]) -> list[str]:
    return program.report(raw["seconds"], len(raw["seconds"]["vpg"]["CPU"]))


def cli_startup(program: ModuleType, raw: dict[str, Any]) -> list[str]:
    return program.report(raw["seconds"])


def processes(program: ModuleType, raw: dict[str, Any]) -> list[str]:
    return program.report(raw)


PAGES = [collection, training, real_tasks, time_to_solve, pendulum_300k, zoo_run, cli_startup, processes]


@pytest.mark.parametrize("lines", PAGES, ids=lambda lines: lines.__name__)
def test_the_page_is_made_from_the_raw_numbers(lines: Callable[[ModuleType, dict[str, Any]], list[str]]) -> None:
    name = lines.__name__
    program, raw = programs[name], json.loads((RESULTS / f"{name}.json").read_text())
    text = report.page(program.TITLE, raw["command"], lines(program, raw), raw["machine"])
    assert (RESULTS / f"{name}.md").read_text() == text
