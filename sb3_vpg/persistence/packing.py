"""
Writing a model: the archive that ``save`` and checkpoints hold, and what ``load`` would refuse of it.

Every model can be saved. What is not plain data is pickled; what cannot be pickled is left out, with a note. ``load`` refuses
both without further arguments, so ``learn`` warns at its start and not after hours of training.
"""

import io
import json
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.save_util import data_to_json, recursive_getattr, save_to_zip_file

from sb3_vpg.exceptions import NotPlainError, RefusedFileError
from sb3_vpg.persistence.archives import STATISTICS, WEIGHTS, check_plain, is_known_member
from sb3_vpg.persistence.json_codec import encode
from sb3_vpg.persistence.memory_limit import is_too_deep
from sb3_vpg.vec_env.vec_normalize import describe

_PICKLED = ":serialized:"
_LEFT_OUT = "!left_out"


class Packable(BaseAlgorithm):
    """A model that may know more about its file than its attributes say."""

    def saved_settings(self) -> dict[str, Any]:
        """:return: the attributes that ``save`` chooses from, by name"""
        return vars(self)

    def unloadable(self) -> dict[str, str]:
        """:return: by name, the text about each other thing that ``load`` will not give back"""
        return {}


def pack(
    model: Packable,
    exclude: Iterable[str] | None = None,
    include: Iterable[str] | None = None,
    more: dict[str, bytes] | None = None,
    pickles: bool = True,
) -> bytes:
    """
    :param model: to save
    :param exclude: as in ``save``
    :param include: as in ``save``
    :param more: further members
    :param pickles: pickle what is not plain; False: leave it out, with a note of what it was
    :return: the archive
    """
    data = {name: _written(name, value, pickles)[0] for name, value in _settings(model, exclude, include).items()}
    variables = {name: recursive_getattr(model, name) for name in model._get_torch_save_params()[1]}
    file = io.BytesIO()
    save_to_zip_file(file, data, _state_dicts(model)[0], variables)
    normalizer = model.get_vec_normalize_env()
    if normalizer is not None:
        more = {STATISTICS: json.dumps(encode(describe(normalizer))).encode(), **(more or {})}
    with zipfile.ZipFile(file, "a") as archive:
        for name, content in (more or {}).items():
            archive.writestr(name, content)
    return file.getvalue()


def was_left_out(value: Any) -> bool:
    """:return: whether this is what ``pack`` puts in the place of a setting that it cannot write"""
    return isinstance(value, dict) and _LEFT_OUT in value


def is_pickled(value: Any) -> bool:
    """:return: whether SB3 would unpickle this setting"""
    return isinstance(value, dict) and _PICKLED in value


def left_out(value: dict[str, Any]) -> str:
    """:return: what the setting was"""
    return str(value[_LEFT_OUT])


def warn_unloadable(
    model: Packable,
    told: set[str],
    exclude: Iterable[str] | None = None,
    include: Iterable[str] | None = None,
    stacklevel: int = 3,
) -> None:
    """
    Say in one warning what ``load`` will refuse of this model, and the way out.

    :param model: to be saved, now or later
    :param told: attributes of which this has been said; the new ones are added
    :param exclude: as in ``save``
    :param include: as in ``save``
    :param stacklevel: of the warning, counted from here
    """
    found = {name: text for name, text in _refusals(model, exclude, include) if name not in told}
    told.update(found)
    if found:
        what = "; ".join(f"{text:.600}" for text in found.values())
        warnings.warn(f"load(path) alone will not read this model: {what}", stacklevel=stacklevel)


def _refusals(model: Packable, exclude: Iterable[str] | None, include: Iterable[str] | None) -> Iterator[tuple[str, str]]:
    """:return: attribute and reason of each thing that ``load`` refuses"""
    for name, value in _settings(model, exclude, include).items():
        written, reason = _written(name, value, pickles=True)
        replace = f"custom_objects={{{name!r}: ...}}"
        if was_left_out(written):
            yield name, f"{reason}, and is left out of the file; use load(path, {replace})"
        elif reason is not None:
            yield name, f"{reason}, and is pickled; use load(path, trust=True) or load(path, {replace})"
        for cls in _classes_of_the_script(written):
            yield (
                f"{name} {cls}",
                f"{name} names {cls}, a class of this script: another script must import it, or use load(path, {replace})",
            )
    yield from _state_dicts(model)[1].items()
    yield from model.unloadable().items()


def _settings(model: Packable, exclude: Iterable[str] | None, include: Iterable[str] | None) -> dict[str, Any]:
    """:return: the attributes that ``save`` writes as settings, as SB3 chooses them"""
    state_dicts, variables = model._get_torch_save_params()
    hidden = {*(exclude or ()), *model._excluded_save_params()} - set(include or ())
    hidden |= {name.split(".")[0] for name in [*state_dicts, *variables]}
    return {name: value for name, value in model.saved_settings().items() if name not in hidden}


def _written(name: str, value: Any, pickles: bool) -> tuple[Any, str | None]:
    """:return: what JSON holds in its place; and why it is no plain data, None if it is"""
    try:
        return encode(value, name), None
    except NotPlainError as error:
        reason = str(error)
    if not pickles:
        return {_LEFT_OUT: reason}, reason
    try:
        written = json.loads(data_to_json({name: value}))[name]
    except Exception as error:  # the objects are the user's, and so is what their pickling raises
        reason = f"{reason}; it cannot be pickled either ({type(error).__name__}: {str(error)[:200]})"
        return {_LEFT_OUT: reason}, reason
    if is_too_deep(written):
        return {_LEFT_OUT: reason}, reason
    # SB3 writes subclasses of JSON's own types, such as an IntEnum, without a pickle
    return written, reason if is_pickled(written) else None


def _classes_of_the_script(written: Any) -> Iterator[str]:
    """:return: the classes of ``__main__`` that a setting names, once it is written"""
    if isinstance(written, list):
        for item in written:
            yield from _classes_of_the_script(item)
    elif isinstance(written, dict):
        name = written.get("!class")
        if isinstance(name, str) and name.startswith("__main__:"):
            yield name
        for item in written.values():
            yield from _classes_of_the_script(item)


def _state_dicts(model: BaseAlgorithm) -> tuple[dict[str, Any], dict[str, str]]:
    """:return: the state dicts, without what no ``load`` could read; and by name what ``load`` refuses of them"""
    states, refused = model.get_parameters(), {}
    for what, state in states.items():
        if not is_known_member(f"{what}{WEIGHTS}"):
            refused[what] = f"{what} is a state dict that VPG does not have; load(path, trust=True)"
        for key, value in list(state.items()):
            where = f"{what}: {key}"
            reason = _refusal(value, where)
            if reason is not None:
                state[key] = value = _without_numpy(value)
                reason = _refusal(value, where)
            if reason is None:
                continue
            if _is_readable(value):
                refused[where] = f"{reason}; load(path, trust=True)"
                continue
            # Left in, it would make the whole file unreadable, for SB3 as well
            refused[where] = f"{reason}; torch could not read it back, so it is left out, and load() creates a new one"
            del state[key]
            if key == "state":  # what an optimiser remembers, which may be nothing
                state[key] = {}
    return states, refused


def _refusal(value: Any, where: str) -> str | None:
    """:return: why ``load`` refuses this part of a state dict; None if it does not"""
    try:
        check_plain(value, where)
    except (RefusedFileError, RecursionError) as error:
        return str(error).removesuffix("; refused")
    return None


def _without_numpy(value: Any) -> Any:
    """:return: the same with Python's numbers for numpy's, which ``weights_only`` does not read: a step size, for example"""
    if isinstance(value, np.generic):
        return value.item()
    if type(value) is dict:
        return {key: _without_numpy(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_without_numpy(item) for item in value)
    return value


def _is_readable(value: Any) -> bool:
    """:return: whether torch can write it, and read it again as SB3's ``load`` does"""
    file = io.BytesIO()
    try:
        th.save(value, file)
        file.seek(0)
        th.load(file, weights_only=True)
    except Exception:  # the objects are the user's, and so is what their pickling raises
        return False
    return True
