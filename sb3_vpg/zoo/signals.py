"""
Ctrl-C and SIGTERM end a command quietly: first it is asked to finish what must not be cut in two, then it is interrupted as
Python's Ctrl-C does it, and who insists ends it at once. Output that nobody reads any longer ends it quietly as well. Nothing
heavy is imported here, because the command line begins so.
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
    Not ``KeyboardInterrupt`` itself: if that goes through an ``exec`` (as in the import of a dataclass), Python remembers it
    and kills itself in the end, although it was caught.
    """


class Signals:
    """
    Takes SIGINT and SIGTERM for as long as the ``with`` block lasts, in the main thread; elsewhere it does nothing. A signal
    that whoever started us has set to be ignored (as ``nohup`` does) stays ignored.
    """

    received: signal.Signals | None = None
    """The first one that came."""

    ask: Callable[[], object] | None = None
    """What the next signal calls, once, in place of a ``KeyboardInterrupt``."""

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
        """:return: 128 + the signal, as shells have it; 0 if none came"""
        return 0 if self.received is None else 128 + self.received

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            # A forked child, which has inherited the handler but is to end when it is told to
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        self.received = self.received or signal.Signals(number)
        ask, self.ask = self.ask, None
        if ask is not None:
            ask()
        elif self._interrupted:
            for stream in (sys.stdout, sys.stderr):
                # It may be in the middle of a line
                with suppress(Exception):
                    stream.flush()
            os._exit(self.exit_code)
        else:
            self._interrupted = True
            raise Interrupted


CLOSED_PIPE = 141
"""The exit code of a program that SIGPIPE has ended, as shells have it."""


def is_stdout_closed(error: BaseException) -> bool:
    """
    SIGPIPE itself stays ignored, as Python has it: it would also end us when a worker process has died.

    :param error: of a command
    :return: whether it says that the reader of our output is gone, as after ``sb3-vpg evaluate | head``; if so, what is still
        printed goes nowhere
    """
    if not isinstance(error, BrokenPipeError):
        return False
    try:
        # The pipe to a worker process may be what is broken
        print(flush=True)
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
        return True
    return False
