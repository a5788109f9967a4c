"""
Read the archive of a model without trusting it: its content is checked before it is used.

SB3 stores the members of its archives uncompressed, under names that are not paths. Other archives are refused: a compressed
member can unpack to any size, and a path can lead out of the folder.
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
from sb3_vpg.persistence.tensor_pickles import DTYPES, PickleError, read_pickle
from sb3_vpg.persistence.zip_layout import LayoutError, check_layout

WEIGHTS = ".pth"
DATA, STATISTICS, TRAINING = "data", "vecnormalize.json", "training.json"
VARIABLES = "pytorch_variables.pth"
_MEMBERS = frozenset((DATA, STATISTICS, TRAINING, VARIABLES, "_stable_baselines3_version", "system_info.txt"))
_MEMBERS |= {"policy.pth", "policy.optimizer.pth", "critic_optimizer.pth"}
_BEST = re.compile(r"best_model_\d{1,4}\.zip")
# The records of torch's archive that a reader needs
_RECORDS = re.compile(r"([^/]+)/(data\.pkl|data/\d+|version|byteorder)")


def read_archive(path: str | os.PathLike[str] | io.BufferedIOBase, trust: bool = False) -> dict[str, bytes]:
    """
    :param path: a model or a checkpoint, or an open file; ``.zip`` may be omitted, even if a folder has the name without it
    :param trust: also accept state dicts of a user's subclass
    :return: the content of each member
    :raises RefusedFileError: if the archive is cut off or damaged, or differs from those that SB3 writes
    :raises FileNotFoundError: if there is no such file
    """
    if not isinstance(path, (str, os.PathLike)):
        return read_members(open_path(path, "r"), name_of(path), trust)
    source = Path(path)
    # The zoo keeps a run's settings in CartPole-v1/ beside CartPole-v1.zip
    if source.is_dir() and source.with_name(f"{source.name}.zip").is_file():
        source = source.with_name(f"{source.name}.zip")
    with open_path(source, "r", suffix="zip") as file:
        return read_members(file, name_of(path), trust)


def name_of(path: Any) -> str:
    """:return: the name of a file for errors"""
    return os.fspath(path) if isinstance(path, (str, os.PathLike)) else "the file"


def read_members(file: BinaryIO, name: str, trust: bool = False) -> dict[str, bytes]:
    """As ``read_archive``, from an open file; ``name`` is its name for errors."""
    size = file.seek(0, io.SEEK_END)
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            _check_start(members, name)
            _check_members(members, size, name, trust)
            check_layout(file, archive)
            return {member.filename: archive.read(member) for member in members}
    except RefusedFileError:
        raise
    except (zipfile.BadZipFile, EOFError, OSError, RuntimeError, ValueError, OverflowError, struct.error) as error:
        raise RefusedFileError(f"{name} is not a complete zip archive: {error}; it is damaged or cut off") from error


def _check_start(members: list[zipfile.ZipInfo], name: str) -> None:
    """:raises RefusedFileError: if the file does not begin with its first member"""
    if members and min(member.header_offset for member in members) != 0:
        raise RefusedFileError(
            f"{name} is not a complete zip archive: it begins with something else; it is cut off, or holds two archives"
        )


def is_known_member(name: str) -> bool:
    """:return: True if a model or a checkpoint may have a member of this name"""
    return name in _MEMBERS or _BEST.fullmatch(name) is not None


def _check_members(members: list[zipfile.ZipInfo], size: int, name: str, trust: bool) -> None:
    filenames: set[str] = set()
    for filename in (member.filename for member in members):
        if "/" in filename or "\\" in filename or ":" in filename or filename in ("", ".", ".."):
            raise RefusedFileError(f"{name} holds a member {filename!r} whose name is a path; refused")
        if not is_known_member(filename) and not (trust and filename.endswith(WEIGHTS)):
            raise RefusedFileError(f"{name} holds a member {filename!r}, which no model of ours has; refused")
        if filename in filenames:
            raise RefusedFileError(f"{name} holds the member {filename!r} twice; refused")
        filenames.add(filename)
    _check_sizes(members, size, name)


def _check_sizes(members: list[zipfile.ZipInfo], size: int, name: str) -> None:
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED:
            raise RefusedFileError(
                f"{name} holds the compressed member {member.filename!r} ({member.file_size:,} bytes unpacked); SB3 does "
                "not compress members, and a compressed one can unpack to any size; refused"
            )
        if member.flag_bits & 1:
            raise RefusedFileError(f"{name} holds the encrypted member {member.filename!r}; refused")
    total = sum(member.file_size for member in members)
    if total > size:
        raise RefusedFileError(f"{name} has {size:,} bytes, but its members claim {total:,}; refused")


def best_member(index: int) -> str:
    """:return: the name of a checkpoint's member that holds the best model of its evaluation callback number ``index``"""
    return f"best_model_{index}.zip"


def read_weights(content: bytes, member: str, name: str, trust: bool = False) -> Any:
    """
    :param content: of a member that ``torch.save`` has written
    :param member: its name
    :param name: of the archive
    :param trust: read everything that torch's ``weights_only`` reads
    :return: the state dict or other value: dense tensors on the CPU and plain values. Those of the policy may be NaN
    :raises RefusedFileError: if the content is not in torch's format, or if it holds a pickle that does more than rebuild
        tensors, a tensor that is larger than the file, or, except for the policy, a number that is NaN or infinite
    """
    where = f"{name}: {member!r}"
    try:
        if trust:
            return th.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        # Two bytes of the file can refer to a value once more, so its copy may be far larger than the file
        copier = _PlainCopier(budget=16 * len(content), finite=member != f"policy{WEIGHTS}")
        return copier.copy(read_pickle(_records(content, where)), where)
    except RefusedFileError:
        raise
    except PickleError as error:
        raise RefusedFileError(
            f"{where} carries a pickle that is more than tensors, and was not run: {error}; refused"
        ) from error
    except LayoutError as error:
        raise RefusedFileError(f"{where} is not a complete zip archive: {error}; refused") from error
    except Exception as error:  # no code of the user's runs here, and torch's readers raise errors of many types
        raise RefusedFileError(
            f"{where} cannot be read as tensors ({type(error).__name__}: {str(error)[:200]}); refused"
        ) from error


def check_plain(value: Any, where: str) -> None:
    """
    :param value: part of a state dict that will be saved
    :param where: its name for the error
    :raises RefusedFileError: if ``read_weights`` would refuse it
    """
    _PlainCopier(budget=sys.maxsize, finite=False).copy(value, where)


def _records(content: bytes, where: str) -> dict[str, bytes]:
    """:return: the records of torch's archive that a reader needs, by their names without the folder"""
    file = io.BytesIO(content)
    if not zipfile.is_zipfile(file):
        raise RefusedFileError(f"{where} is not in torch's format: it is damaged, or holds something else; refused")
    records: dict[str, bytes] = {}
    with zipfile.ZipFile(file) as archive:
        _check_start(archive.infolist(), where)
        _check_sizes(archive.infolist(), len(content), where)
        check_layout(file, archive)
        matches = [(member, match) for member in archive.infolist() if (match := _RECORDS.fullmatch(member.filename))]
        for member, match in matches:
            if match[2] in records:
                raise RefusedFileError(f"{where} holds the record {match[2]!r} twice; refused")
            records[match[2]] = archive.read(member)
    if "data.pkl" not in records or len({match[1] for _, match in matches}) != 1:
        raise RefusedFileError(f"{where} is not in torch's format: it has no record 'data.pkl', or two folders; refused")
    if records.get("version", b"").strip() != b"3" or records.get("byteorder", b"little") not in (b"little", b"big"):
        raise RefusedFileError(f"{where} has an unknown version of torch's format, or an unknown order of bytes; refused")
    return records


class _PlainCopier:
    """
    Checks the values of an untrusted file, and copies them into plain dicts, lists and tensors.

    :param budget: how many bytes and values may be copied; a value counts again for each reference to it
    :param finite: refuse NaN and infinite numbers
    """

    def __init__(self, budget: int, finite: bool) -> None:
        self.budget = budget
        self.finite = finite

    def copy(self, value: Any, where: str) -> Any:
        """:raises RefusedFileError: for a value that is neither plain nor a plain tensor"""
        self._spend(1, where)
        if type(value) in (dict, OrderedDict):
            copied = OrderedDict((key, self.copy(item, f"{where}, {key!s:.80}")) for key, item in value.items())
            versions = _versions(getattr(value, "_metadata", None))
            if versions:
                copied._metadata = versions  # type: ignore[attr-defined]  # torch's, for modules whose format has changed
            return copied
        if type(value) in (list, tuple):
            return type(value)(self.copy(item, where) for item in value)
        if type(value) in (th.Tensor, th.nn.Parameter):
            self._spend(value.numel() * value.element_size(), where)
            _check_tensor(value, where)
            if self.finite:
                _check_finite(value, where)
            return value.detach()
        if type(value) not in (bool, int, float, str, type(None)):
            raise RefusedFileError(f"{where} is a {type(value).__name__}, neither a tensor nor a plain value; refused")
        if self.finite and isinstance(value, float) and math.isnan(value):
            raise RefusedFileError(f"{where} is NaN; refused")
        return value

    def _spend(self, size: int, where: str) -> None:
        self.budget -= size
        if self.budget < 0:
            raise RefusedFileError(f"{where} claims more numbers than the file has room for; refused")


def _versions(metadata: Any) -> dict[str, dict[str, int]]:
    """:return: the version of each module in a state dict's metadata; other entries would change how torch loads it"""
    if not isinstance(metadata, dict):
        return {}
    versions = {key: value.get("version") for key, value in metadata.items() if isinstance(value, dict)}
    return {key: {"version": version} for key, version in versions.items() if type(version) is int and type(key) is str}


def _check_tensor(value: th.Tensor, where: str) -> None:
    if value.layout is not th.strided or value.is_quantized or value.is_meta or value.dtype not in DTYPES.values():
        kind = f"{value.layout}, {value.dtype}, {value.device}"
        raise RefusedFileError(f"{where} is not a dense tensor of numbers ({kind}); refused")


def _check_finite(value: th.Tensor, where: str) -> None:
    # A single infinite number may mean "none yet", as in RandomSearch.best_return
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
