"""
The settings that a stranger's ``config.yml`` gives to the zoo, as plain values that it can neither run nor import.

The zoo evaluates the text of ``normalize`` as Python, imports the wrappers and callbacks that are named, and calls them. Here
each is either one that is known to do no harm, or refused by name. What only training reads is left out.
"""

import ast
import math
import re
from typing import Any

from sb3_vpg.exceptions import RefusedFileError
from sb3_vpg.zoo.hyperparams_schema import known_keys

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
"""Wrappers that a stranger's file may name: they change what is seen and done, and touch nothing else."""
VEC_WRAPPERS = {"stable_baselines3.common.vec_env": ("VecCheckNan", "VecExtractDictObs", "VecTransposeImage")}
_INERT = re.compile(r"[\w .+-]{0,64}")
# A wrapper that keeps a history of so many steps needs no more memory than a frame stack
_LARGEST = 1000
# They have code imported and called, and playing has no use for them
_FOR_TRAINING = ("callback", "monitor_kwargs")
_IN_THEIR_OWN_FILE = ("env_kwargs",)


def safe_hyperparams(config: dict[str, Any], algo: str, path: object) -> tuple[dict[str, Any], list[str]]:
    """
    :param config: hyperparameters, as read from a file
    :param algo: one of ours
    :param path: of the file, for errors
    :return: what no code comes of, as the zoo reads it; and the names of the settings that were left out
    :raises RefusedFileError: for a setting that playing needs and that is not plain
    """
    kept: dict[str, Any] = {}
    dropped = []
    known = known_keys(algo)
    for name, value in config.items():
        if name in _IN_THEIR_OWN_FILE:
            continue
        if name in ("env_wrapper", "vec_env_wrapper"):
            kept[name] = _wrappers(value, name, path)
        elif name == "normalize":
            kept[name] = _normalizes(value, path)
        elif name == "frame_stack":
            kept[name] = _frames(value, path)
        elif name in known and not _is_run(name, value) and _is_inert(value):
            kept[name] = value
        else:
            dropped.append(name)
    return kept, dropped


def check_plain(value: Any, what: str, largest: float = math.inf) -> None:
    """
    :param value: read from a file
    :param what: its name
    :param largest: a number may be
    :raises RefusedFileError: unless it is a number, a short text that is no path, or a list or mapping of these
    """
    if type(value) in (bool, type(None)):
        return
    if type(value) in (int, float) and abs(value) <= largest:
        return
    if isinstance(value, str) and _INERT.fullmatch(value):
        return
    if isinstance(value, (list, tuple)):
        for item in value:
            check_plain(item, what, largest)
        return
    if isinstance(value, dict):
        for key, item in value.items():
            check_plain(key, what, largest)
            check_plain(item, f"{what}, {key}", largest)
        return
    raise RefusedFileError(f"{what} is {str(value)[:200]!r}: no number of a sensible size, and no plain text; refused")


def _is_run(name: str, value: Any) -> bool:
    """:return: whether training would import it, or evaluate it as Python"""
    if name in _FOR_TRAINING:
        return True
    return isinstance(value, str) and (name.endswith("_kwargs") or (name == "policy" and "." in value))


def _is_inert(value: Any) -> bool:
    try:
        check_plain(value, "")
    except RefusedFileError:
        return False
    return True


def _frames(value: Any, path: object) -> int:
    if type(value) is not int or not 0 <= value <= 64:
        raise RefusedFileError(f"{path}: frame_stack is {str(value)[:200]!r}, but must be a small number; refused")
    return value


def _normalizes(value: Any, path: object) -> bool:
    """:return: whether there is a ``VecNormalize``; with which arguments, the model's own statistics say"""
    if type(value) is bool:
        return value
    if isinstance(value, str):
        # The zoo would evaluate it
        try:
            call = ast.parse(value[:1000], mode="eval").body
            value = ast.literal_eval(call) if isinstance(call, ast.Dict) else _keywords(call)
        except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
            raise RefusedFileError(
                f"{path}: normalize is {value[:200]!r}, which is no dict of plain values; refused"
            ) from None
    if isinstance(value, dict):
        check_plain(value, f"{path}: normalize")
        return True
    raise RefusedFileError(f"{path}: normalize is {str(value)[:200]!r}, but must be true, false or a mapping; refused")


def _keywords(call: ast.expr) -> dict[str, Any]:
    """:return: of ``dict(name=value, …)``"""
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.func.id != "dict" or call.args:
        raise ValueError("no call of dict")
    return {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}


def _wrappers(value: Any, key: str, path: object) -> list[Any]:
    """:return: in the zoo's form, once all of them are known: names, or mappings of one name to its arguments"""
    known = WRAPPERS if key == "env_wrapper" else VEC_WRAPPERS
    listed = [] if value is None else value if isinstance(value, list) else [value]
    for name, kwargs in map(named_wrapper, listed):
        module, _, cls = name.rpartition(".")
        if cls not in known.get(module, ()):
            raise RefusedFileError(
                f"{path}: {key} names {name[:200]!r}, which is none of the wrappers that a stranger's file may name; refused"
            )
        if not isinstance(kwargs, dict):
            raise RefusedFileError(f"{path}: {key}: the arguments of {name} must have names; refused")
        check_plain(kwargs, f"{path}: {name}", _LARGEST)
    return listed


def named_wrapper(wrapper: Any) -> tuple[str, Any]:
    """:return: the name of a wrapper in the zoo's form, and its arguments"""
    if isinstance(wrapper, dict) and len(wrapper) == 1:
        ((name, kwargs),) = wrapper.items()
        return str(name), kwargs
    return str(wrapper), {}
