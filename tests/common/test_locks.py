"""A lock is held until its process ends, even if it is killed."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sb3_vpg.common.locks import claimed, folder_lock

HOLDS = """
import sys
from pathlib import Path
from sb3_vpg.common import locks
with getattr(locks, sys.argv[1])(Path(sys.argv[2])):
    print("claimed", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_process(name: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """:return: a process that holds the lock until its standard input is closed or it is killed"""
    command = [sys.executable, "-c", HOLDS, name, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "claimed\n"
        try:
            yield process
        finally:
            process.kill()


def test_run_of_another_process_is_refused_until_that_process_is_killed(tmp_path: Path) -> None:
    with another_process("claimed", tmp_path) as process:
        with pytest.raises(ValueError, match="is in use by another process"), claimed(tmp_path):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
        with claimed(tmp_path):
            pass
    with claimed(tmp_path):
        pass


def test_waiting_ends_when_the_other_process_ends(tmp_path: Path) -> None:
    with another_process("claimed", tmp_path) as process:
        assert process.stdin is not None
        process.stdin.close()
        with claimed(tmp_path, seconds=60):
            assert process.wait() == 0


@pytest.mark.parametrize("name", ["claimed", "folder_lock"])
def test_the_lock_is_one_of_the_operating_system(name: str, tmp_path: Path) -> None:
    """So was that of earlier versions, so old and new versions respect each other. ``folder_lock`` leaves no file."""
    with another_process(name, tmp_path):
        path = tmp_path / ".lock" if name == "claimed" else tmp_path
        descriptor = os.open(path, os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(descriptor)
    assert name == "claimed" or not list(tmp_path.iterdir())


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
@pytest.mark.parametrize("lock", [claimed, folder_lock])
def test_on_a_file_system_without_locks_nothing_is_locked(
    lock, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No file is left that would stop the next process."""

    def refuse(*args: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    for _ in range(2):
        with lock(tmp_path), lock(tmp_path):
            pass


def test_an_error_inside_the_block_is_not_treated_as_one_of_the_lock(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="disk full"), claimed(tmp_path):
        raise OSError("disk full")
    with pytest.raises(OSError, match="disk full"), folder_lock(tmp_path):
        raise OSError("disk full")
    with claimed(tmp_path), folder_lock(tmp_path):
        pass
