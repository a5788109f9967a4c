"""Locks on folders and files."""

from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # pragma: no cover  # Windows
    fcntl = None  # type: ignore[assignment]  # looked at before it is used


_LOCK = ".lock"


def lock(run: Path) -> IO[bytes] | None:
    """
    Claim a run for this process, until the file is closed or the process is dead, however it died.

    :return: the file to close; None where there are no such locks
    :raises ValueError: if another process has it
    """
    if fcntl is None:
        return None
    file = (run / _LOCK).open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise ValueError(f"{run} is being trained by another process; wait for it, or stop it first") from None
    except OSError:
        # A file system without locks
        file.close()
        return None
    return file
