"""
Processes that believe torchrun has started them. Forking takes no time, while each process of torchrun imports torch. The
parent must not have started threads, so programs of their own fork, not pytest.
"""

import json
import os
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch._dynamo

ROOT = Path(__file__).parents[2]
MEASURED = "MEASURE_COVERAGE_OF_FORKS"
"""A variable that is set if pytest measures coverage: then each forked process does, too."""

# Building an optimizer imports it, which takes a second: once here, not in each process
assert torch._dynamo


def coverage_variable() -> dict[str, str]:
    """:return: the variable for programs that fork, if this process measures coverage"""
    coverage: Any = sys.modules.get("coverage")
    return {MEASURED: "1"} if coverage is not None and coverage.Coverage.current() is not None else {}


@contextmanager
def measured() -> Iterator[None]:
    """Write what is executed within this block into a file that pytest-cov combines with its own."""
    if MEASURED not in os.environ:
        yield
        return
    from coverage import Coverage

    coverage = Coverage(data_file=ROOT / ".coverage", data_suffix=True, config_file=ROOT / "pyproject.toml")
    coverage.start()
    try:
        yield
    finally:
        coverage.stop()
        coverage.save()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def start(n_processes: int, function: Callable[[], object], folder: Path, **variables: str) -> list[int]:
    """:return: the process ids; each process calls the function, and prints to ``output_RANK.txt`` in the folder"""
    folder.mkdir(parents=True, exist_ok=True)
    shared = {"TORCHELASTIC_RUN_ID": "test", "WORLD_SIZE": str(n_processes), "LOCAL_WORLD_SIZE": str(n_processes)}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), **variables}
    return [_forked(function, folder, shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(n_processes)]


def _forked(function: Callable[[], object], folder: Path, variables: dict[str, str]) -> int:
    sys.stdout.flush()
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        os.environ.update(variables)
        output = os.open(folder / f"output_{variables['RANK']}.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        with measured():
            result = function()
        code = result if isinstance(result, int) else 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def wait(processes: list[int]) -> list[int]:
    """:return: the exit codes; minus the signal's number for a process that a signal has ended"""
    return [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in processes]


def run(n_processes: int, function: Callable[[], object], folder: Path, **variables: str) -> list[int]:
    return wait(start(n_processes, function, folder, **variables))


def run_program(program: Path, folder: Path) -> Path:
    """
    Run a program whose scenarios fork, and which writes their exit codes into ``codes.json``.

    :return: the folder, which has a folder for each scenario
    """
    command, variables = [sys.executable, str(program), str(folder)], os.environ | coverage_variable()
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=580)
    assert done.returncode == 0, done.stderr
    return folder


def codes(runs: Path, name: str) -> list[int]:
    """:return: the exit codes of the processes of a scenario"""
    return json.loads((runs / "codes.json").read_text())[name]  # type: ignore[no-any-return]  # JSON


def output(runs: Path, name: str, process: int = 0) -> str:
    """:return: what a process of a scenario has printed"""
    return (runs / name / f"output_{process}.txt").read_text()
