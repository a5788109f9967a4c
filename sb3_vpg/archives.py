"""
The archive of a model, read as a stranger's: what it holds is looked at before anything is made of it.

SB3 stores the members of its archives uncompressed and by plain names. An archive that does otherwise is refused: what is
compressed can grow to any size, and a name that is a path can leave the folder.
"""

import io
import math
import pickle
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import torch as th
from stable_baselines3.common.save_util import open_path

WEIGHTS = ".pth"
DATA, STATISTICS, TRAINING = "data", "vecnormalize.json", "training.json"
VARIABLES = "pytorch_variables.pth"
_ABOUT = ("_stable_baselines3_version", "system_info.txt")
_MEMBERS = (DATA, STATISTICS, TRAINING, *_ABOUT, VARIABLES, "policy.pth", "policy.optimizer.pth")
_OPTIONAL = ("critic_optimizer.pth",)
_BEST = "best_model_"


class RefusedFileError(ValueError):
    """A file that is damaged, or that asks for more than to be read; its text names the file, the member and the reason."""


def read_archive(path: str | Path | io.BufferedIOBase) -> dict[str, bytes]:
    """
    :param path: a model or a checkpoint, ``.zip`` may be left out; or an open file
    :return: the content of each member
    :raises RefusedFileError: for an archive that is cut off, damaged, or not made as SB3 makes it
    :raises FileNotFoundError: if there is no such file
    """
    named = isinstance(path, (str, Path))
    file = open_path(path, "r", suffix="zip")
    try:
        return read_members(file, str(path) if named else "the file")
    finally:
        if named:
            file.close()


def read_members(file: BinaryIO, name: str) -> dict[str, bytes]:
    """As ``read_archive``. ``name`` is what errors call the file."""
    size = file.seek(0, io.SEEK_END)
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            _check_members(members, size, name)
            return {member.filename: archive.read(member) for member in members}
    except (zipfile.BadZipFile, EOFError, NotImplementedError, OSError, RuntimeError, UnicodeDecodeError, ValueError) as error:
        if isinstance(error, RefusedFileError):
            raise
        raise RefusedFileError(f"{name} is no whole zip archive: {error}; it is damaged or cut off") from error


def _check_members(members: list[zipfile.ZipInfo], size: int, name: str) -> None:
    seen: set[str] = set()
    for member in members:
        what = member.filename
        if "/" in what or "\\" in what or ":" in what or what in ("", ".", ".."):
            raise RefusedFileError(f"{name} holds a member {what!r} whose name is a path; refused")
        if what not in (*_MEMBERS, *_OPTIONAL) and not what.startswith(_BEST):
            raise RefusedFileError(f"{name} holds a member {what!r}, which no model of ours has; refused")
        if what in seen:
            raise RefusedFileError(f"{name} holds the member {what!r} twice; refused")
        seen.add(what)
    _check_sizes(members, size, name)


def _check_sizes(members: list[zipfile.ZipInfo], size: int, name: str) -> None:
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED:
            raise RefusedFileError(
                f"{name} holds the compressed member {member.filename!r} ({member.file_size:,} bytes unpacked); SB3 stores "
                "its members as they are, and what is compressed can unpack to any size; refused"
            )
        if member.flag_bits & 1:
            raise RefusedFileError(f"{name} holds the encrypted member {member.filename!r}; refused")
    total = sum(member.file_size for member in members)
    if total > size:
        raise RefusedFileError(f"{name} has {size:,} bytes, but its members claim {total:,}; refused")


def best_member(index: int) -> str:
    """:return: the member of a checkpoint with the best model that its evaluation number ``index`` has found"""
    return f"{_BEST}{index}.zip"


def read_weights(content: bytes, member: str, name: str) -> Any:
    """
    :param content: of a member that torch has written
    :param member: its name
    :param name: of the archive
    :return: the state dict or what else it is, on the CPU, read by torch's ``weights_only``
    :raises RefusedFileError: if it is not in torch's format, holds a pickle that does more than rebuild tensors, or a number
        that is NaN or infinite
    """
    file = io.BytesIO(content)
    if not zipfile.is_zipfile(file):
        raise RefusedFileError(f"{name}: {member!r} is not in torch's format: it is damaged, or holds something else; refused")
    try:
        with zipfile.ZipFile(file) as archive:
            _check_sizes(archive.infolist(), len(content), f"{name}: {member!r}")
        file.seek(0)
        loaded = th.load(file, map_location="cpu", weights_only=True)
    except RefusedFileError:
        raise
    except pickle.UnpicklingError as error:
        cause = next((line.strip() for line in str(error).splitlines() if "nsupported" in line or "GLOBAL" in line), "")
        raise RefusedFileError(
            f"{name}: {member!r} carries a pickle that is more than tensors, and was not run; refused. {cause[:200]}"
        ) from None
    except Exception as error:
        raise RefusedFileError(f"{name}: {member!r} cannot be read as tensors ({str(error)[:200]}); refused") from error
    return loaded


def check_tensors(value: Any, where: str, size: int) -> None:
    """
    :param value: what ``read_weights`` has returned
    :param where: what to call it
    :param size: bytes of the member it came from
    :raises RefusedFileError: if a tensor anywhere in ``value`` claims more numbers than the member holds, is none of the usual
        kind, or if a number is NaN or infinite
    """
    if isinstance(value, dict):
        for key, item in value.items():
            check_tensors(item, f"{where}, {key}", size)
    elif isinstance(value, (list, tuple)):
        for item in value:
            check_tensors(item, where, size)
    elif isinstance(value, th.Tensor):
        _check_tensor(value, where, size)
    elif isinstance(value, float) and math.isnan(value):
        raise RefusedFileError(f"{where} is NaN; refused")


def _check_tensor(value: th.Tensor, where: str, size: int) -> None:
    if value.layout is not th.strided or value.is_meta or value.numel() * value.element_size() > size:
        raise RefusedFileError(f"{where} has the shape {tuple(value.shape)}, which the file has no room for; refused")
    if not th.isfinite(value).all():
        raise RefusedFileError(f"{where} has {int((~th.isfinite(value)).sum())} numbers that are NaN or infinite; refused")
