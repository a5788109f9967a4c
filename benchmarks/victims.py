"""``sb3-vpg train`` in a process of its own: what it says, and its sudden end."""

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

ROOT = Path(__file__).parents[1]
_SAID = {
    "rollout": re.compile(r"\|\s+total_timesteps\s+\|\s+(\d+)"),
    "evaluated": re.compile(r"Eval num_timesteps=(\d+)"),
    "taken up": re.compile(r"(?:Taking up training|Training is complete) after ([\d,]+) of "),
    "begun anew": re.compile(r"begins once more()"),
    "complete": re.compile(r" is complete: ([\d,]+) of "),
    "saving": re.compile(r"^Saving to ()"),
}


@dataclass(frozen=True)
class Event:
    """
    :param seconds: since the process was started
    :param kind: a key of what is listened for
    :param steps: environment steps that it names, else 0
    """

    seconds: float
    kind: str
    steps: int


class Victim:
    """
    One process, which is gone at the latest when the ``with`` block ends.

    :param flags: of ``sb3-vpg train``; with ``--log-interval 1`` it tells of every rollout
    """

    _living: ClassVar["set[Victim]"] = set()
    _over: ClassVar[bool] = False

    def __init__(self, flags: Sequence[str]) -> None:
        env = {**os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
        pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        command = [sys.executable, "-m", "sb3_vpg", "train", *flags]
        self._process = subprocess.Popen(command, env=env, cwd=ROOT, text=True, start_new_session=True, **pipes)
        self._started = time.perf_counter()
        self.events: list[Event] = []
        self.lines: list[str] = []
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        Victim._living.add(self)
        if Victim._over:
            self.kill()
            raise SystemExit("stopped")

    def __enter__(self) -> "Victim":
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        Victim._living.discard(self)

    @staticmethod
    def end_all() -> None:
        """Leave none behind, and let none begin."""
        Victim._over = True
        for victim in list(Victim._living):
            victim.kill()

    @property
    def seconds(self) -> float:
        """:return: since it was started"""
        return time.perf_counter() - self._started

    @property
    def ended(self) -> bool:
        return not self._reader.is_alive()

    def kill(self) -> bool:
        """:return: whether it died of this, and not before"""
        if self._process.returncode is None:
            # Not waited for yet, so the number is still its own
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        return self.finish() == -signal.SIGKILL

    def finish(self) -> int:
        """:return: exit code"""
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()
        return self._process.wait()

    def wait_until(self, condition: Callable[[], bool]) -> bool:
        """:param condition: looked at after each line. :return: False if the process ended first"""
        with self._news:
            while not condition():
                if self.ended:
                    return False
                self._news.wait(0.05)
        return True

    def last(self, *kinds: str) -> Event | None:
        """:return: the latest event of these kinds"""
        return next((event for event in reversed(self.events) if event.kind in kinds), None)

    @property
    def steps(self) -> int:
        """:return: that it has told of; -1: none yet"""
        event = self.last("rollout", "evaluated")
        return event.steps if event else -1

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._news:
                self._hear(line)
                self._news.notify_all()

    def _hear(self, line: str) -> None:
        self.lines.append(line.rstrip())
        for kind, pattern in _SAID.items():
            match = pattern.search(line)
            # An evaluation is followed by a table of its own
            if match and not (kind == "rollout" and self.events and self.events[-1].kind == "evaluated"):
                self.events.append(Event(self.seconds, kind, int(match.group(1).replace(",", "") or 0)))
            elif match:
                self.events.append(Event(self.seconds, "table", 0))
