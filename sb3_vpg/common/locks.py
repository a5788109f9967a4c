"""Locks on folders, which end with the process that holds them, however it ends."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path

from filelock import FileLock, Timeout, lock_descriptor

_LOCK = ".lock"


@contextmanager
def claimed(run: Path, seconds: float = 0.0) -> Iterator[None]:
    """
    Claim a run for this process. On a file system without locks nothing is claimed.

    :param run: its folder, in which a lock file is left
    :param seconds: how long to wait for another process
    :raises ValueError: if another process has it then
    """
    held: AbstractContextManager[object] = nullcontext()
    try:
        # A soft lock would outlive a process that is killed
        held = FileLock(run / _LOCK, timeout=seconds, fallback_to_soft=False).acquire()
    except Timeout:
        raise ValueError(f"{run} is being trained by another process; wait for it, or stop it first") from None
    except PermissionError:
        # Somebody else's lock file, which may be in use
        raise
    except OSError:
        # A file system without locks
        pass
    with held:
        yield


@contextmanager
def in_turn(folder: Path) -> Iterator[None]:
    """
    One process after the other, where there are locks. The folder itself is locked, so that no file is left in it; Windows
    locks no folders.
    """
    descriptor = None
    try:
        with suppress(OSError):
            descriptor = os.open(folder, os.O_RDONLY)
            lock_descriptor(descriptor)
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)
