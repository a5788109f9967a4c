"""The execution of a task: a process of its own, what it cost, and a record of it all."""

import json
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from sb3_vpg.common.system_info import describe
from sb3_vpg.compare.runs.attempts import log_file
from sb3_vpg.compare.runs.records import Record
from sb3_vpg.compare.runs.tasks import Task
from sb3_vpg.zoo.own_modules import command_of

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class FailedRunError(RuntimeError):
    """A run that came to no score. Its text is the last line that it wrote, and names the file with the rest."""


class Processes:
    """Those that run at the moment, so that whoever stops the comparison can stop them."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._stopped = False

    @contextmanager
    def start(self, command: list[str], output: IO[bytes]) -> "Iterator[subprocess.Popen[bytes]]":
        """
        :param command: of a process that ends when its standard input does
        :param output: file for what it writes
        :return: the process, which is stopped when its block is left by an error
        :raises FailedRunError: if all have been stopped
        """
        environment = {**os.environ, **dict.fromkeys(_THREADS, "1")}
        with self._lock:
            if self._stopped:
                raise FailedRunError("stopped before it had begun")
            pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": output, "stderr": subprocess.STDOUT}
            # A terminal's Ctrl-C goes to all processes of its session, so these would be told twice
            process = subprocess.Popen(command, env=environment, start_new_session=True, **pipes)
            self._running.add(process)
        try:
            with process:
                try:
                    yield process
                except BaseException:
                    process.terminate()
                    raise
        finally:
            with self._lock:
                self._running.discard(process)

    def stop(self) -> None:
        """Ask all of them to end, as Ctrl-C does: VPG finishes its rollout and leaves a checkpoint."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                process.terminate()


def execute(task: Task, folder: Path, processes: Processes | None = None) -> Record:
    """
    Run a task in a process of its own, with one thread.

    :param task: what to run; what an earlier attempt has left is gone on with, or removed
    :param folder: log folder
    :param processes: to which its own belongs
    :return: what came of it
    :raises FailedRunError: if the process failed
    """
    log = log_file(task, folder)
    log.parent.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="sb3-vpg-compare-") as temporary, log.open("wb") as output:
        task_file, score_file = Path(temporary) / "task.json", Path(temporary) / "score.json"
        task_file.write_text(json.dumps(task.as_json()))
        command = [*command_of("sb3_vpg.compare.runs.worker"), str(task_file), str(folder), str(score_file)]
        with (processes or Processes()).start(command, output) as process:
            cpu_seconds = _wait(process)
        if process.returncode != 0 or not score_file.is_file():
            raise FailedRunError(f"{_last_line(log, process.returncode)} (see {log})")
        score = json.loads(score_file.read_text())
    costs: dict[str, float | None] = {"wall_seconds": time.perf_counter() - start, "cpu_seconds": cpu_seconds}
    if score.pop("is_resumed"):
        costs = dict.fromkeys(costs)
    try:
        return Record.from_json({"task": task.as_json(), **score, **costs, "where": describe()})
    except ValueError as error:
        raise FailedRunError(f"{error} (see {log})") from error


def _wait(process: "subprocess.Popen[bytes]") -> float | None:
    """:return: the CPU seconds of a process and its children, once it has ended"""
    if not hasattr(os, "wait4"):  # pragma: no cover  # Windows
        process.wait()
        return None
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_utime + usage.ru_stime


def _last_line(log: Path, code: int) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    said = [line for line in lines if line.startswith("sb3-vpg train:")] or lines[-1:] or ["it wrote nothing"]
    return f"killed by signal {-code}; {said[-1]}" if code < 0 else said[-1]
