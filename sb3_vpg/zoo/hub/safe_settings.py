"""
Hyperparameters of a downloaded ``config.yml``, reduced to values with which the zoo runs no code of their author.

The zoo evaluates the text of ``normalize`` as Python, and imports and calls the wrappers and callbacks that the file names.
Here only the wrappers listed below are allowed, any other is refused, and settings that only training reads are left out.
"""

import ast
from typing import Any

from sb3_vpg.exceptions import RefusedFileError
from sb3_vpg.zoo.hyperparams_schema import known_keys
from sb3_vpg.zoo.safe_yaml import check_plain

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
"""Allowed wrappers. They change observations, actions and rewards, but neither files nor anything else outside."""
VEC_WRAPPERS = {"stable_baselines3.common.vec_env": ("VecCheckNan", "VecExtractDictObs", "VecTransposeImage")}
# The horizon of HistoryWrapper must not fill the memory
_MAX_WRAPPER_ARGUMENT = 1000
# The zoo imports and calls what these name; playing does not need them
_FOR_TRAINING = ("callback", "monitor_kwargs")


def safe_hyperparams(config: dict[str, Any], algo: str, path: object) -> tuple[dict[str, Any], list[str]]:
    """
    :param config: hyperparameters, as read from a file
    :param algo: one of our algorithms
    :param path: of the file, for errors
    :return: the settings that are kept, in the zoo's form, and the names of those that were left out
    :raises RefusedFileError: for a setting that playing needs and that is not allowed
    """
    kept: dict[str, Any] = {}
    dropped = []
    known = known_keys(algo)
    for name, value in config.items():
        if name == "env_kwargs":
            # Checked by read_repository
            continue
        if name in ("env_wrapper", "vec_env_wrapper"):
            kept[name] = _checked_wrappers(value, name, path)
        elif name == "normalize":
            kept[name] = _checked_normalize(value, path)
        elif name == "frame_stack":
            kept[name] = _checked_frame_stack(value, path)
        elif name in known and not _runs_code(name, value) and _is_plain(value):
            kept[name] = value
        else:
            dropped.append(name)
    return kept, dropped


def _runs_code(name: str, value: Any) -> bool:
    """Return True if training would import what the value names, or evaluate it as Python."""
    if name in _FOR_TRAINING:
        return True
    return isinstance(value, str) and (name.endswith("_kwargs") or (name == "policy" and "." in value))


def _is_plain(value: Any) -> bool:
    try:
        check_plain(value, "")
    except RefusedFileError:
        return False
    return True


def _checked_frame_stack(value: Any, path: object) -> int:
    if type(value) is not int or not 0 <= value <= 64:
        raise RefusedFileError(f"{path}: frame_stack is {str(value)[:200]!r}, but must be an integer from 0 to 64; refused")
    return value


def _checked_normalize(value: Any, path: object) -> bool:
    """Return True if there is a ``VecNormalize``. Its arguments are not needed: the statistics of the model contain them."""
    if type(value) is bool:
        return value
    if isinstance(value, str):
        # The zoo would evaluate this text
        try:
            call = ast.parse(value[:1000], mode="eval").body
            value = ast.literal_eval(call) if isinstance(call, ast.Dict) else _keywords(call)
        except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
            raise RefusedFileError(
                f"{path}: normalize is {value[:200]!r}, which is not a dict of plain values; refused"
            ) from None
    if isinstance(value, dict):
        check_plain(value, f"{path}: normalize")
        return True
    raise RefusedFileError(f"{path}: normalize is {str(value)[:200]!r}, but must be true, false or a mapping; refused")


def _keywords(call: ast.expr) -> dict[str, Any]:
    """Return the arguments of ``dict(name=value, …)``."""
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.func.id != "dict" or call.args:
        raise ValueError("not a call of dict")
    return {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}


def _checked_wrappers(value: Any, key: str, path: object) -> list[Any]:
    """Return the wrappers in the zoo's form: a list of names, or of mappings of one name to its arguments."""
    allowed = WRAPPERS if key == "env_wrapper" else VEC_WRAPPERS
    listed = [] if value is None else value if isinstance(value, list) else [value]
    for name, kwargs in map(wrapper_and_kwargs, listed):
        module, _, cls = name.rpartition(".")
        if cls not in allowed.get(module, ()):
            raise RefusedFileError(
                f"{path}: {key} names {name[:200]!r}, which is not among the wrappers that a downloaded file may use; refused"
            )
        if not isinstance(kwargs, dict):
            raise RefusedFileError(f"{path}: {key}: the arguments of {name} must have names; refused")
        check_plain(kwargs, f"{path}: {name}", _MAX_WRAPPER_ARGUMENT)
    return listed


def wrapper_and_kwargs(wrapper: Any) -> tuple[str, Any]:
    """Return the name of a wrapper that is given in the zoo's form, and its arguments."""
    if isinstance(wrapper, dict) and len(wrapper) == 1:
        ((name, kwargs),) = wrapper.items()
        return str(name), kwargs
    return str(wrapper), {}
