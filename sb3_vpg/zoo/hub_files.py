"""
The files of a repository on the hub, looked at as a stranger's before anything is made of them.

The zoo evaluates texts of ``config.yml`` as Python, reads ``args.yml`` with a loader that runs code, imports the wrappers that
they name, and unpickles ``vec_normalize.pkl``. Here they are read as plain data, and what ends up in a run folder is written
anew: what playing needs, as plain values, and nothing else.
"""

import ast
import io
import re
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sb3_vpg.archives import RefusedFileError
from sb3_vpg.zoo.plain_yaml import is_foreign, read_plain

CONFIG, ARGS, ENV_KWARGS, METRICS = "config.yml", "args.yml", "env_kwargs.yml", "train_eval_metrics.zip"
WRAPPERS = {
    "gymnasium.wrappers": (
        "ClipAction",
        "FlattenObservation",
        "GrayscaleObservation",
        "RescaleAction",
        "TimeAwareObservation",
    ),
    "rl_zoo3.wrappers": ("FrameSkip", "HistoryWrapper", "MaskVelocityWrapper"),
    "stable_baselines3.common.atari_wrappers": ("AtariWrapper",),
    "sb3_vpg.wrappers": ("SurvivalReward",),
}
"""Wrappers that a file of a stranger's may name: they change what is seen and done, and touch nothing else."""

_MODEL_SIZE, _SETTINGS_SIZE, _METRICS_SIZE = 512 * 2**20, 2**20, 64 * 2**20
_INERT = re.compile(r"[\w .+-]{0,64}")
_CURVES = re.compile(r"\d{1,4}\.monitor\.csv|evaluations\.npz")
# They would have the zoo import, evaluate or call something
_ACTING = ("vec_env_wrapper", "callback", "monitor_kwargs")
_PLAYED = ("env_wrapper", "env_kwargs", "frame_stack", "normalize")


@dataclass(frozen=True)
class Repository:
    """
    What a repository holds, once it has been looked at.

    :param model: file
    :param config: hyperparameters as plain values; of what the zoo acts on, that alone which playing needs
    :param args: of ``args.yml`` what is plain and harmless: the seed, the budget
    :param env_kwargs: for the environment
    :param dropped: settings that were left out
    :param metrics: learning curves by their file names
    """

    model: Path
    config: dict[str, Any]
    args: dict[str, Any]
    env_kwargs: dict[str, Any]
    dropped: list[str]
    metrics: dict[str, bytes] = field(repr=False)


def files_wanted(model_name: str) -> dict[str, int]:
    """
    :param model_name: file of the model
    :return: the files of a repository that are read, and how large each may be, in bytes
    """
    return {
        model_name: _MODEL_SIZE,
        METRICS: _METRICS_SIZE,
        **dict.fromkeys((CONFIG, ARGS, ENV_KWARGS), _SETTINGS_SIZE),
    }


def examine(folder: Path, model_name: str) -> Repository:
    """
    :param folder: with the files of a repository
    :param model_name: file of the model
    :return: what they say
    :raises RefusedFileError: for a file that is missing, too large, a link, damaged, or asks for code to be run
    """
    for name, limit in files_wanted(model_name).items():
        path = folder / name
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise RefusedFileError(f"{path} is a link or a folder, not a file; refused")
        if not path.exists() and name in (model_name, CONFIG):
            raise RefusedFileError(f"{folder} has no {name}: it is no repository of such an agent")
        if path.exists():
            check_size(path, path.stat().st_size, limit)
    config = _read(folder / CONFIG)
    args = _read(folder / ARGS) if (folder / ARGS).exists() else {}
    env_kwargs = {**_mapping(config.pop("env_kwargs", None), "env_kwargs"), **_mapping(args.get("env_kwargs"), "env_kwargs")}
    if (folder / ENV_KWARGS).exists():
        env_kwargs |= _read(folder / ENV_KWARGS)
    # The one that the agent was filmed with
    env_kwargs.pop("render_mode", None)
    for name, value in env_kwargs.items():
        _check_inert(value, f"{folder / ENV_KWARGS}: {name}")
    kept, dropped = _harmless(config, folder / CONFIG)
    known = {name: args[name] for name in ("seed", "n_timesteps") if type(args.get(name)) in (int, float)}
    metrics = _metrics(folder / METRICS) if (folder / METRICS).exists() else {}
    return Repository(folder / model_name, kept, known, env_kwargs, dropped, metrics)


def check_size(path: Path | str, size: int, limit: int) -> None:
    """:raises RefusedFileError: if a file is larger than its kind ever is"""
    if size > limit:
        raise RefusedFileError(f"{path} has {size:,} bytes, more than {limit:,}; refused")


def _read(path: Path) -> dict[str, Any]:
    try:
        found = read_plain(path)
    except (ValueError, OSError, RecursionError) as error:
        raise RefusedFileError(str(error)) from error
    if not all(isinstance(key, str) for key in found):
        raise RefusedFileError(f"{path} must map names to values; refused")
    return found


def _mapping(value: Any, name: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict) or is_foreign(value):
        raise RefusedFileError(f"{name} must be plain names and values, but is {value!r:.200}; refused")
    return value


def _check_inert(value: Any, what: str) -> None:
    """:raises RefusedFileError: unless it is a number, a short text that is no path, or a list or mapping of these"""
    if isinstance(value, (bool, int, float, type(None))):
        return
    if isinstance(value, str) and _INERT.fullmatch(value):
        return
    if isinstance(value, (list, tuple)):
        for item in value:
            _check_inert(item, what)
        return
    if isinstance(value, dict):
        for key, item in value.items():
            _check_inert(key, what)
            _check_inert(item, f"{what}, {key}")
        return
    raise RefusedFileError(f"{what} is {str(value)[:200]!r}: no number, and no plain text; refused")


def _harmless(config: dict[str, Any], path: Path) -> tuple[dict[str, Any], list[str]]:
    """:return: settings that no code comes of, and the names of those that were left out"""
    kept: dict[str, Any] = {}
    dropped = []
    for name, value in config.items():
        if name in _ACTING and value is not None:
            raise RefusedFileError(
                f"{path}: {name} is {str(value)[:200]!r}, which would have code imported and called; refused"
            )
        if name == "env_wrapper":
            kept[name] = _wrappers(value, path)
        elif name == "normalize":
            kept[name] = _normalizes(value, path)
        elif name == "frame_stack":
            kept[name] = _frames(value, path)
        else:
            try:
                _check_inert(value, name)
                kept[name] = value
            except RefusedFileError:
                dropped.append(name)
    return kept, dropped


def _frames(value: Any, path: Path) -> int:
    if type(value) is not int or not 0 <= value <= 64:
        raise RefusedFileError(f"{path}: frame_stack is {value!r:.200}, but must be a small number; refused")
    return value


def _normalizes(value: Any, path: Path) -> bool:
    """:return: whether there is a ``VecNormalize``; with which arguments, the model's own statistics say"""
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        # The zoo would evaluate it
        try:
            call = ast.parse(value, mode="eval").body
            pairs = ast.literal_eval(call) if isinstance(call, ast.Dict) else _keywords(call)
        except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
            raise RefusedFileError(
                f"{path}: normalize is {value[:200]!r}, which is no dict of plain values; refused"
            ) from None
        value = pairs
    if isinstance(value, dict):
        _check_inert(value, f"{path}: normalize")
        return True
    raise RefusedFileError(f"{path}: normalize is {str(value)[:200]!r}, but must be true, false or a mapping; refused")


def _keywords(call: ast.expr) -> dict[str, Any]:
    """:return: of ``dict(name=value, …)``"""
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.func.id != "dict" or call.args:
        raise ValueError("no call of dict")
    return {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}


def _wrappers(value: Any, path: Path) -> Any:
    """:return: the wrappers as they are, once all of them are known"""
    for wrapper in value if isinstance(value, list) else [value]:
        named = wrapper if isinstance(wrapper, dict) else {wrapper: None}
        for name, kwargs in named.items():
            module, _, cls = str(name).rpartition(".")
            if name is not None and cls not in WRAPPERS.get(module, ()):
                raise RefusedFileError(
                    f"{path} names the wrapper {str(name)[:200]!r}, which is none of those that a stranger's file may name; "
                    "refused"
                )
            _check_inert(kwargs, f"{path}: {name}")
    return value


def _metrics(path: Path) -> dict[str, bytes]:
    """:return: Monitor's files as they are, and evaluations read and written anew"""
    found: dict[str, bytes] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            members = [
                one for one in archive.infolist() if one.filename == "evaluations.npz" or _CURVES.fullmatch(one.filename)
            ]
            check_size(f"{path}, unpacked,", sum(one.file_size for one in members), _METRICS_SIZE)
            for one in members:
                content = archive.read(one)
                found[one.filename] = content if one.filename.endswith(".csv") else _evaluations(content, path)
    except RefusedFileError:
        raise
    except Exception as error:
        raise RefusedFileError(
            f"{path} is no archive of learning curves ({type(error).__name__}: {error}); refused"
        ) from error
    return found


def _evaluations(content: bytes, path: Path) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        check_size(f"{path}: evaluations.npz, unpacked,", sum(one.file_size for one in archive.infolist()), _METRICS_SIZE)
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        read = {name: arrays[name] for name in ("timesteps", "results", "ep_lengths")}
    if not all(array.dtype.kind in "iuf" for array in read.values()):
        raise ValueError("evaluations.npz holds something else than numbers")
    file = io.BytesIO()
    np.savez(file, **read)
    return file.getvalue()
