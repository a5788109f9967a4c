"""Write files atomically: a reader finds the old content or the new, never a part of it."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

_SUFFIX = ".part"


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """
    Open a temporary file beside ``path``, which replaces ``path`` when the block ends without an error. It is synced to the
    disk before it is renamed, so neither a killed process nor a power cut leaves a partial file.

    :param path: the file to write or replace; its folder is created
    :raises OSError: as ``open`` and ``write``; ``path`` is then unchanged
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=_SUFFIX, dir=target.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(descriptor)
        os.chmod(name, _permissions(target))
        os.replace(name, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise
    _sync_folder(target.parent)


@contextmanager
def atomic_replace(path: str | os.PathLike[str]) -> Iterator[str]:
    """
    As ``atomic_write``, for code that opens a file by its name.

    :param path: the file to write or replace
    :return: the path of a temporary file with the same name, which the block must write
    :raises OSError: as ``atomic_write``, and if the block wrote nothing
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", suffix=_SUFFIX, dir=target.parent) as folder:
        part = Path(folder) / target.name
        yield str(part)
        with open(part, "rb+") as file:
            os.fsync(file.fileno())
        os.chmod(part, _permissions(target))
        os.replace(part, target)
    _sync_folder(target.parent)


def remove_partial_files(folder: str | os.PathLike[str]) -> None:
    """Remove the temporary files of killed writers. No process may be writing to the folder."""
    for part in Path(folder).glob(f".*{_SUFFIX}"):
        with suppress(OSError):
            for inner in part.glob("*") if part.is_dir() else ():
                inner.unlink()
            part.rmdir() if part.is_dir() else part.unlink()


def _permissions(target: Path) -> int:
    """:return: the permissions of the file that is replaced, or those of a new file"""
    if target.exists():
        return target.stat().st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def _sync_folder(folder: Path) -> None:
    """Sync the new name to the disk, where folders can be opened, as on Linux."""
    flags: Any = getattr(os, "O_DIRECTORY", None)
    if flags is None:
        return
    descriptor = os.open(folder, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
