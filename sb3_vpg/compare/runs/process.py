"""Executes a task in a subprocess, measures its time and makes its record."""

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

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class FailedRunError(RuntimeError):
    """A run failed. The message has the error from its output, and names the file with all of it."""


class Processes:
    """The running subprocesses of a comparison, so that all can be stopped."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._stopped = False

    @contextmanager
    def start(self, command: list[str], output: IO[bytes]) -> "Iterator[subprocess.Popen[bytes]]":
        """
        Start a process. It is terminated if the ``with`` block raises an error.

        :param command: its command line; the process must end when its standard input is closed
        :param output: file for its output
        :return: the process
        :raises FailedRunError: if ``stop`` has been called
        """
        environment = {**os.environ, **dict.fromkeys(_THREAD_VARIABLES, "1")}
        with self._lock:
            if self._stopped:
                raise FailedRunError("the comparison was stopped before this run started")
            pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": output, "stderr": subprocess.STDOUT}
            # In the terminal's own session it would get Ctrl-C twice: from the terminal and from stop()
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
        """Send SIGTERM to all processes: VPG finishes its rollout and writes a checkpoint."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                process.terminate()


def execute(task: Task, folder: Path, processes: Processes | None = None) -> Record:
    """
    Run a task in a single-threaded subprocess. An earlier attempt is resumed or removed.

    :param task: the task
    :param folder: log folder
    :param processes: can stop the subprocess
    :return: the record of the run; without seconds if it was resumed, because those of the killed attempt are unknown
    :raises FailedRunError: if the process failed, or if its score is no valid record
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
            raise FailedRunError(f"{_error_in(log, process.returncode)} (see {log})")
        score = json.loads(score_file.read_text())
    costs: dict[str, float | None] = {"wall_seconds": time.perf_counter() - start, "cpu_seconds": cpu_seconds}
    if score.pop("is_resumed"):
        costs = dict.fromkeys(costs)
    try:
        return Record.from_json({"task": task.as_json(), **score, **costs, "where": describe()})
    except ValueError as error:
        raise FailedRunError(f"{error} (see {log})") from error


def _wait(process: "subprocess.Popen[bytes]") -> float | None:
    """Wait until a process ends. Return the CPU seconds of it and its children, or None on Windows."""
    if not hasattr(os, "wait4"):  # pragma: no cover  # Windows
        process.wait()
        return None
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_utime + usage.ru_stime


def _error_in(log: Path, code: int) -> str:
    """:return: the last error message of ``sb3-vpg train``, else the last line; with the signal if one killed the process"""
    lines = log.read_text(errors="replace").strip().splitlines()
    errors = [line for line in lines if line.startswith("sb3-vpg train:")] or lines[-1:] or ["it wrote nothing"]
    return f"killed by signal {-code}; {errors[-1]}" if code < 0 else errors[-1]
