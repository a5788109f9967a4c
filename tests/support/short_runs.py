"""Runs what the pages of the documentation show, in little time: few steps, comparisons in this process, no network."""

import gc
import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial, wraps
from importlib import import_module
from inspect import signature
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium as gym
import pytest
from documentation import IN_NEW_PROCESS, ROOT, Command, Item, parse
from stable_baselines3.common.base_class import BaseAlgorithm

from sb3_vpg.common.system_info import describe
from sb3_vpg.compare import compare
from sb3_vpg.compare.runs import worker
from sb3_vpg.compare.runs.engines import LocalEngine
from sb3_vpg.compare.runs.records import Record
from sb3_vpg.compare.runs.tasks import Task
from sb3_vpg.zoo.cli import main

LEARN_AT_MOST = 512
"""Steps of a call of ``learn``."""
FEW = {"n_evaluations": 1, "eval_episodes": 1, "final_episodes": 1}
OFFLINE = {
    "WANDB_MODE": "offline",
    "WANDB_X_DISABLE_STATS": "true",
    "HF_HUB_OFFLINE": "1",
    "SDL_VIDEODRIVER": "dummy",
    "MPLBACKEND": "Agg",
}
"""Variables with which nothing needs a network or a screen."""
COPIED = ("benchmarks", "examples", "scripts", "hyperparams", "tests/support")
"""Folders of the repository that its programs need. A program writes beside itself, so it runs in a copy."""


class PageRun:
    """
    A reader who works through one page: the blocks share their names, and all files are in one folder.

    :param folder: an empty folder
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._main = ModuleType("__main__")

    def run(self, item: Item) -> None:
        """Run an item of the page, in its folder."""
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.folder)
            for name, value in OFFLINE.items():
                patch.setenv(name, value)
            {"block": self._block, "file": self._file, "command": self._command, "mistake": self._mistake}[item.kind](item)
        # The zoo leaves files open; they must not be found in a later test, where warnings are errors
        gc.collect()

    def _mistake(self, item: Item) -> None:
        pytest.fail(f"{item.where}: {item.text}", pytrace=False)

    def _block(self, item: Item) -> None:
        """The block runs as a program: its classes are in ``__main__``. Tracebacks show the page's lines."""
        code = compile("\n" * (item.line - 1) + item.text, str(item.page), "exec")
        with pytest.MonkeyPatch.context() as patch, shortened_learning():
            patch.syspath_prepend(self.folder)
            patch.setitem(sys.modules, "__main__", self._main)
            exec(code, vars(self._main))

    def _file(self, item: Item) -> None:
        path = self.folder / item.file_name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(item.text)
        if path.suffix == ".py":
            with pytest.MonkeyPatch.context() as patch, shortened_learning():
                patch.syspath_prepend(self.folder)
                sys.modules.pop(path.stem, None)
                import_module(path.stem)

    def _command(self, item: Item) -> None:
        command = parse(item)
        with pytest.MonkeyPatch.context() as patch:
            for name, value in command.environment:
                patch.setenv(name, value)
            if command.words[0] == "make":
                code = run_process("make", *command.arguments, cwd=ROOT)
            elif command.own and not {command.name, *command.words} & IN_NEW_PROCESS.keys():
                code = self._own_command(command, patch)
            else:
                code = self._program(command)
        shown = " ".join((*command.words[: command.n_names], *command.arguments))
        assert code == 0, f"{item.where}: {shown!r} ended with exit code {code}; see its output below"

    def _own_command(self, command: Command, patch: pytest.MonkeyPatch) -> int:
        if command.words[0] == "python":
            patch.syspath_prepend(self.folder)
        patch.setattr("sb3_vpg.compare.api.LocalEngine", EngineInThisProcess)
        names = command.words[1 if command.words[0] == "sb3-vpg" else 3 : command.n_names]
        try:
            return main([*names, *command.arguments])
        except SystemExit as stop:
            return int(stop.code or 0)

    def _program(self, command: Command) -> int:
        names = list(command.words[: command.n_names])
        if names[0] == "sb3-vpg":
            names[:1] = ["python", "-m", "sb3_vpg"]
        for name in COPIED if (ROOT / command.name).is_file() else ():
            if not (self.folder / name).exists():
                shutil.copytree(ROOT / name, self.folder / name, ignore=shutil.ignore_patterns("results", "__pycache__"))
        # benchmarks/ and scripts/ have short budgets of their own
        if (self.folder / command.name).is_file() and not command.name.startswith(("benchmarks/", "scripts/")):
            self._in_this_process(command)
            return 0
        return run_process(sys.executable, *names[1:], *command.arguments, cwd=self.folder)

    def _in_this_process(self, command: Command) -> None:
        """Run a program whose calls of ``learn`` are too long."""
        with pytest.MonkeyPatch.context() as patch, shortened_learning():
            patch.syspath_prepend((self.folder / command.name).parent)
            patch.setattr(sys, "argv", [command.name, *command.arguments])
            runpy.run_path(command.name, run_name="__main__")


@contextmanager
def page_run(folder: Path) -> Iterator[PageRun]:
    """Work through a page in an empty folder; at the end, forget the page's modules and environments."""
    environments = set(gym.registry)
    yield PageRun(folder)
    for name in set(gym.registry) - environments:
        del gym.registry[name]
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(str(folder)):
            del sys.modules[name]


@contextmanager
def shortened_learning() -> Iterator[None]:
    """Inside the block, ``learn`` of all algorithms and ``compare`` take few steps, and pictures open no window."""
    begin = BaseAlgorithm._setup_learn

    @wraps(begin)
    def begin_short(self: BaseAlgorithm, total_timesteps: int, *args: Any, **kwargs: Any) -> Any:
        return begin(self, min(total_timesteps, LEARN_AT_MOST), *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BaseAlgorithm, "_setup_learn", begin_short)
        patch.setattr("sb3_vpg.compare.compare", short_comparison)
        patch.setattr("sb3_vpg.compare.api.LocalEngine", EngineInThisProcess)
        patch.setattr("matplotlib.pyplot.show", lambda *args, **kwargs: None)
        yield


@wraps(compare)
def short_comparison(*args: Any, **kwargs: Any) -> Any:
    """Compare with one seed and few steps."""
    given = signature(compare).bind(*args, **kwargs).arguments
    return compare(**{**given, "seeds": 1, "n_timesteps": LEARN_AT_MOST, **FEW})


class EngineInThisProcess(LocalEngine):
    """Runs the tasks of a comparison one after the other in this process, which saves importing torch for each."""

    def submit(self, task: Task) -> "Future[Record]":
        """See ``Engine``."""
        score = worker.run(task, self.folder)
        score.pop("is_resumed")
        future: Future[Record] = Future()
        costs = {"wall_seconds": 1.0, "cpu_seconds": 1.0}
        future.set_result(Record.from_json({"task": task.as_json(), **score, **costs, "where": describe()}))
        return future


def run_process(*command: str, cwd: Path) -> int:
    """Run a command and print its output. Return its exit code."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    run = partial(subprocess.run, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    done = run(command, timeout=600)
    print(done.stdout[-10_000:])
    return int(done.returncode)
