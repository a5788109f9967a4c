"""Files that are written whole or not at all: whoever reads one finds the old content or the new, never a part of it."""

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
    A file to write to, which takes the place of ``path`` when the block ends without an error. It lies beside ``path`` until
    then, and reaches the disk before it is renamed, so that neither a kill nor a power cut leaves half of it.

    :param path: the file to write or replace; its folder is created
    :raises OSError: as ``open`` and ``write`` do; ``path`` is then as it was
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
    :return: the name of another one beside it, with the same ending, for the block to write
    :raises OSError: as above, and if the block wrote nothing
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
    """Remove what writers that were killed have left in a folder. Nobody may be writing to it."""
    for part in Path(folder).glob(f".*{_SUFFIX}"):
        with suppress(OSError):
            for inner in part.glob("*") if part.is_dir() else ():
                inner.unlink()
            part.rmdir() if part.is_dir() else part.unlink()


def _permissions(target: Path) -> int:
    """:return: those of the file that is replaced, or those that ``open`` would give a new one"""
    if target.exists():
        return target.stat().st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def _sync_folder(folder: Path) -> None:
    """The new name reaches the disk too, where folders can be opened, as on Linux."""
    flags: Any = getattr(os, "O_DIRECTORY", None)
    if flags is None:
        return
    descriptor = os.open(folder, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
