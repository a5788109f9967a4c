"""
The archive of a model, read as a stranger's: what it holds is looked at before anything is made of it.

SB3 stores the members of its archives uncompressed and by plain names. An archive that does otherwise is refused: what is
compressed can grow to any size, and a name that is a path can leave the folder.
"""

import io
import math
import os
import re
import struct
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO

import torch as th
from stable_baselines3.common.save_util import open_path

from sb3_vpg.exceptions import RefusedFileError
from sb3_vpg.persistence.tensor_pickles import PickleError, read_pickle
from sb3_vpg.persistence.zip_layout import LayoutError, check_layout

WEIGHTS = ".pth"
DATA, STATISTICS, TRAINING = "data", "vecnormalize.json", "training.json"
VARIABLES = "pytorch_variables.pth"
_ABOUT = ("_stable_baselines3_version", "system_info.txt")
_MEMBERS = (DATA, STATISTICS, TRAINING, *_ABOUT, VARIABLES, "policy.pth", "policy.optimizer.pth")
_OPTIONAL = ("critic_optimizer.pth",)
_BEST = re.compile(r"best_model_\d{1,4}\.zip")
# What a reader needs of what torch.save writes
_RECORDS = re.compile(r"([^/]+)/(data\.pkl|data/\d+|version|byteorder)")
_DTYPES = (
    *(th.bool, th.uint8, th.int8, th.int16, th.int32, th.int64),
    *(th.float16, th.bfloat16, th.float32, th.float64, th.complex64, th.complex128),
)


def read_archive(path: str | os.PathLike[str] | io.BufferedIOBase, trust: bool = False) -> dict[str, bytes]:
    """
    :param path: a model or a checkpoint, ``.zip`` may be left out, also where a folder has the name without it; or an open
        file
    :param trust: also accept state dicts that only a user's subclass has
    :return: the content of each member
    :raises RefusedFileError: for an archive that is cut off, damaged, or not made as SB3 makes it
    :raises FileNotFoundError: if there is no such file
    """
    named = isinstance(path, (str, os.PathLike))
    found = Path(path) if isinstance(path, (str, os.PathLike)) else path
    if isinstance(found, Path) and found.is_dir() and found.with_name(f"{found.name}.zip").is_file():
        # As in the zoo, which keeps a run's settings in CartPole-v1/ beside CartPole-v1.zip
        found = found.with_name(f"{found.name}.zip")
    file = open_path(found, "r", suffix="zip")
    try:
        return read_members(file, name_of(path), trust)
    finally:
        if named:
            file.close()


def name_of(path: Any) -> str:
    """:return: what errors call a file"""
    return os.fspath(path) if isinstance(path, (str, os.PathLike)) else "the file"


def read_members(file: BinaryIO, name: str, trust: bool = False) -> dict[str, bytes]:
    """As ``read_archive``. ``name`` is what errors call the file."""
    size = file.seek(0, io.SEEK_END)
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            _check_whole(members, name)
            _check_members(members, size, name, trust)
            check_layout(file, archive)
            return {member.filename: archive.read(member) for member in members}
    except RefusedFileError:
        raise
    except (zipfile.BadZipFile, EOFError, OSError, RuntimeError, ValueError, OverflowError, struct.error) as error:
        raise RefusedFileError(f"{name} is no whole zip archive: {error}; it is damaged or cut off") from error


def _check_whole(members: list[zipfile.ZipInfo], name: str) -> None:
    """The end of a file that is cut off can be the whole archive of one of its members."""
    if members and min(member.header_offset for member in members) != 0:
        raise RefusedFileError(f"{name} is no whole zip archive: it begins with something else; it is cut off, or two in one")


def is_known_member(what: str) -> bool:
    """:return: whether models of ours have a member of this name"""
    return what in (*_MEMBERS, *_OPTIONAL) or _BEST.fullmatch(what) is not None


def _check_members(members: list[zipfile.ZipInfo], size: int, name: str, trust: bool) -> None:
    seen: set[str] = set()
    for member in members:
        what = member.filename
        if "/" in what or "\\" in what or ":" in what or what in ("", ".", ".."):
            raise RefusedFileError(f"{name} holds a member {what!r} whose name is a path; refused")
        if not is_known_member(what) and not (trust and what.endswith(WEIGHTS)):
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
    return f"best_model_{index}.zip"


def read_weights(content: bytes, member: str, name: str, trust: bool = False) -> Any:
    """
    :param content: of a member that torch has written
    :param member: its name
    :param name: of the archive
    :param trust: read all that torch's ``weights_only`` reads
    :return: the state dict or what else it is: dense tensors on the CPU and plain values. Those of the policy may be NaN
    :raises RefusedFileError: if it is not in torch's format, holds a pickle that does more than rebuild tensors, a tensor
        that the file has no room for, or, but for the policy's, a number that is NaN or infinite
    """
    where = f"{name}: {member!r}"
    try:
        if trust:
            return th.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        # A reference costs two bytes, and what it refers to can hold references in turn
        plain = _Plain(room=16 * len(content), finite=member != f"policy{WEIGHTS}")
        return plain.copy(read_pickle(_records(content, where)), where)
    except RefusedFileError:
        raise
    except PickleError as error:
        raise RefusedFileError(
            f"{where} carries a pickle that is more than tensors, and was not run: {error}; refused"
        ) from error
    except LayoutError as error:
        raise RefusedFileError(f"{where} is no whole zip archive: {error}; refused") from error
    except Exception as error:  # nothing of the user's is run here, and torch's readers raise whatever they stumble over
        raise RefusedFileError(
            f"{where} cannot be read as tensors ({type(error).__name__}: {str(error)[:200]}); refused"
        ) from error


def check_plain(value: Any, where: str) -> None:
    """
    :param value: part of a state dict that is to be saved
    :param where: what to call it in the error
    :raises RefusedFileError: if ``read_weights`` would refuse it
    """
    _Plain(room=sys.maxsize, finite=False).copy(value, where)


def _records(content: bytes, where: str) -> dict[str, bytes]:
    """:return: what a reader needs of torch's own archive"""
    file = io.BytesIO(content)
    if not zipfile.is_zipfile(file):
        raise RefusedFileError(f"{where} is not in torch's format: it is damaged, or holds something else; refused")
    records: dict[str, bytes] = {}
    with zipfile.ZipFile(file) as archive:
        _check_whole(archive.infolist(), where)
        _check_sizes(archive.infolist(), len(content), where)
        check_layout(file, archive)
        found = [(member, match) for member in archive.infolist() if (match := _RECORDS.fullmatch(member.filename))]
        for member, match in found:
            if match[2] in records:
                raise RefusedFileError(f"{where} holds the record {match[2]!r} twice; refused")
            records[match[2]] = archive.read(member)
    if "data.pkl" not in records or len({match[1] for _, match in found}) != 1:
        raise RefusedFileError(f"{where} is not in torch's format: it has no record 'data.pkl', or two folders; refused")
    if records.get("version", b"").strip() != b"3" or records.get("byteorder", b"little") not in (b"little", b"big"):
        raise RefusedFileError(f"{where} has an unknown version of torch's format, or an unknown order of bytes; refused")
    return records


class _Plain:
    """
    Copies what torch has read into bare dicts, lists and tensors, and looks at each on the way.

    :param room: for so many bytes and values, counted again for each reference to them
    :param finite: whether a tensor may hold neither NaN nor infinite numbers
    """

    def __init__(self, room: int, finite: bool) -> None:
        self.room = room
        self.finite = finite

    def copy(self, value: Any, where: str) -> Any:
        """:raises RefusedFileError: for what is neither a plain value nor a plain tensor"""
        self._take(1, where)
        if type(value) in (dict, OrderedDict):
            copied = OrderedDict((key, self.copy(item, f"{where}, {key!s:.80}")) for key, item in value.items())
            versions = _versions(getattr(value, "_metadata", None))
            if versions:
                copied._metadata = versions  # type: ignore[attr-defined]  # torch's, for modules whose format has changed
            return copied
        if type(value) in (list, tuple):
            return type(value)(self.copy(item, where) for item in value)
        if type(value) in (th.Tensor, th.nn.Parameter):
            self._take(value.numel() * value.element_size(), where)
            _check_tensor(value, where)
            if self.finite:
                _check_finite(value, where)
            return value.detach()
        if type(value) not in (bool, int, float, str, type(None)):
            raise RefusedFileError(f"{where} is a {type(value).__name__}, which is no tensor and no plain value; refused")
        if self.finite and isinstance(value, float) and math.isnan(value):
            raise RefusedFileError(f"{where} is NaN; refused")
        return value

    def _take(self, size: int, where: str) -> None:
        self.room -= size
        if self.room < 0:
            raise RefusedFileError(f"{where} claims more numbers than the file has room for; refused")


def _versions(metadata: Any) -> dict[str, dict[str, int]]:
    """:return: of a state dict's metadata what modules read there; the rest would steer how torch loads it"""
    if not isinstance(metadata, dict):
        return {}
    found = {key: one.get("version") for key, one in metadata.items() if isinstance(one, dict)}
    return {key: {"version": version} for key, version in found.items() if type(version) is int and type(key) is str}


def _check_tensor(value: th.Tensor, where: str) -> None:
    if value.layout is not th.strided or value.is_quantized or value.device.type == "meta" or value.dtype not in _DTYPES:
        kind = f"{value.layout}, {value.dtype}, {value.device}"
        raise RefusedFileError(f"{where} is no plain tensor of numbers ({kind}); refused")


def _check_finite(value: th.Tensor, where: str) -> None:
    # A single infinity means that there is no such number yet, as in RandomSearch.best_return
    bad = th.isnan(value) if value.dim() == 0 else ~th.isfinite(value)
    if bad.any():
        raise RefusedFileError(f"{where} has {int(bad.sum())} numbers that are NaN or infinite; refused")


def write_archive(members: dict[str, bytes]) -> bytes:
    """:return: a zip archive with these members"""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()
