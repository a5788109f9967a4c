"""
Ctrl-C and SIGTERM end a command without a traceback: the first signal raises ``KeyboardInterrupt``, the second ends the
process at once. While VPG trains, one more signal comes before these; it lets VPG finish its rollout. A closed pipe at
standard output also ends a command without a traceback. This module imports nothing heavy: the command line imports it.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any

_HANDLED = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """
    Raised instead of ``KeyboardInterrupt`` itself: if that passes through an ``exec`` (as in the import of a dataclass),
    Python kills itself at the end, even if the error was caught.
    """


class Signals:
    """
    Handles SIGINT and SIGTERM inside a ``with`` block in the main thread; in other threads it does nothing. A signal that the
    parent process set to be ignored (as ``nohup`` does) stays ignored.
    """

    received: signal.Signals | None = None
    """The first signal that was received."""

    on_signal: Callable[[], object] | None = None
    """The next signal calls this, once, instead of raising ``KeyboardInterrupt``."""

    _interrupted = False

    def __enter__(self) -> "Signals":
        self._process = os.getpid()
        self._before: dict[signal.Signals, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for number in _HANDLED:
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @property
    def exit_code(self) -> int:
        """:return: 128 + the signal's number, as in shells; 0 if no signal was received"""
        return 0 if self.received is None else 128 + self.received

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            # A forked child has inherited this handler, but a signal must end it
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        self.received = self.received or signal.Signals(number)
        on_signal, self.on_signal = self.on_signal, None
        if on_signal is not None:
            on_signal()
        elif self._interrupted:
            for stream in (sys.stdout, sys.stderr):
                # The signal may have interrupted a write to this stream
                with suppress(Exception):
                    stream.flush()
            os._exit(self.exit_code)
        else:
            self._interrupted = True
            raise Interrupted


CLOSED_PIPE = 141
"""The exit code of a program that SIGPIPE has ended, as in shells."""


def is_stdout_closed(error: BaseException) -> bool:
    """
    SIGPIPE stays ignored, as is Python's default: otherwise the death of a worker process would also end this process.

    :param error: of a command
    :return: True if the reader of our output is gone, as after ``sb3-vpg evaluate | head``. Further output is then discarded
    """
    if not isinstance(error, BrokenPipeError):
        return False
    try:
        # The broken pipe may be one to a worker process
        print(flush=True)
    except BrokenPipeError:
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, sys.stdout.fileno())
        os.close(devnull)
        return True
    return False
