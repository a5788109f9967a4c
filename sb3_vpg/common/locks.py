"""Locks on folders. The operating system releases them when the process ends, even if it is killed."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path

from filelock import FileLock, Timeout, lock_descriptor

_LOCK = ".lock"


@contextmanager
def claimed(run: Path, seconds: float = 0.0) -> Iterator[None]:
    """
    Lock a run for this process. On a file system without locks this does nothing.

    :param run: its folder, in which a lock file stays
    :param seconds: how long to wait for another process
    :raises ValueError: if another process holds the lock for longer
    """
    held: AbstractContextManager[object] = nullcontext()
    try:
        # A soft lock would outlive a killed process
        held = FileLock(run / _LOCK, timeout=seconds, fallback_to_soft=False).acquire()
    except Timeout:
        raise ValueError(f"{run} is in use by another process; wait for it, or stop it first") from None
    except PermissionError:
        # The lock file of another user, which may be in use
        raise
    except OSError:
        # A file system without locks
        pass
    with held:
        yield


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """
    Wait until no other process holds the lock of this folder, and hold it. The folder itself is locked, without a lock file.
    Does nothing on Windows, which cannot lock folders, and on a file system without locks.
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
