"""``sb3-vpg train`` in a separate process, which can be killed: what it prints, and when."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

ROOT = Path(__file__).parents[2]
# The group of a pattern is the number of steps; it is empty if the line has none
_PATTERNS = {
    "rollout": re.compile(r"\|\s+total_timesteps\s+\|\s+(\d+)"),
    "evaluation": re.compile(r"Eval num_timesteps=(\d+)"),
    "resumed": re.compile(r"(?:Taking up training|Training is complete) after ([\d,]+) of "),
    "restarted": re.compile(r"begins once more()"),
    "complete": re.compile(r" is complete: ([\d,]+) of "),
    "saving": re.compile(r"^Saving to ()"),
}


@dataclass(frozen=True)
class Event:
    """
    A line of the output.

    :param seconds: since the process was started
    :param kind: a key of ``_PATTERNS``, or ``"evaluation table"``
    :param steps: the number of environment steps in the line; 0 if there is none
    """

    seconds: float
    kind: str
    steps: int


class TrainingProcess:
    """
    One process, which the end of the ``with`` block kills.

    :param flags: of ``sb3-vpg train``; ``--log-interval 1`` makes it print a table after each rollout
    """

    _running: ClassVar["set[TrainingProcess]"] = set()
    _stopped: ClassVar[bool] = False

    def __init__(self, flags: Sequence[str]) -> None:
        env = {**os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
        pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        command = [sys.executable, "-m", "sb3_vpg", "train", *flags]
        self._process = subprocess.Popen(command, env=env, cwd=ROOT, text=True, start_new_session=True, **pipes)
        self._started = time.perf_counter()
        self.events: list[Event] = []
        self.lines: list[str] = []
        self._new_line = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        TrainingProcess._running.add(self)
        if TrainingProcess._stopped:
            self.kill()
            raise SystemExit("stopped")

    def __enter__(self) -> "TrainingProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        TrainingProcess._running.discard(self)

    @staticmethod
    def stop_all() -> None:
        """Kill all running processes, and let no further one start."""
        TrainingProcess._stopped = True
        for process in list(TrainingProcess._running):
            process.kill()

    @property
    def seconds(self) -> float:
        """:return: seconds since the process was started"""
        return time.perf_counter() - self._started

    @property
    def ended(self) -> bool:
        return not self._reader.is_alive()

    def kill(self) -> bool:
        """:return: True if this call killed the process, False if it had ended before"""
        if self._process.returncode is None:
            # The process has not been waited for, so no other process has its number
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        return self.finish() == -signal.SIGKILL

    def finish(self) -> int:
        """Wait for the end of the process. :return: exit code"""
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()
        return self._process.wait()

    def wait_until(self, condition: Callable[[], bool]) -> bool:
        """:param condition: called after each line. :return: False if the process ended first"""
        with self._new_line:
            while not condition():
                if self.ended:
                    return False
                self._new_line.wait(0.05)
        return True

    def last(self, *kinds: str) -> Event | None:
        """:return: the latest event of these kinds"""
        return next((event for event in reversed(self.events) if event.kind in kinds), None)

    @property
    def steps(self) -> int:
        """:return: the number of steps that was printed last; -1 if none was"""
        event = self.last("rollout", "evaluation")
        return event.steps if event else -1

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._new_line:
                self._record(line)
                self._new_line.notify_all()

    def _record(self, line: str) -> None:
        self.lines.append(line.rstrip())
        for kind, pattern in _PATTERNS.items():
            match = pattern.search(line)
            if match is None:
                continue
            if kind == "rollout" and self.events and self.events[-1].kind == "evaluation":
                # An evaluation prints its own table, which looks like that of a rollout
                self.events.append(Event(self.seconds, "evaluation table", 0))
            else:
                self.events.append(Event(self.seconds, kind, int(match.group(1).replace(",", "") or 0)))
