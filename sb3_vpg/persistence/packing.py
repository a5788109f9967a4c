"""
Write a model: the archive for ``save`` and for checkpoints, and warnings about what ``load`` would refuse.

Every model can be saved. A value that is not plain data is pickled; one that cannot be pickled is left out, with a note.
``load`` refuses both without further arguments, so ``learn`` warns before it trains.
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
from sb3_vpg.vec_env.vec_normalize import normalizer_state

_PICKLED = ":serialized:"
_LEFT_OUT = "!left_out"


class Packable(BaseAlgorithm):
    """A model whose subclasses may change what ``save`` writes and warns about."""

    def saved_settings(self) -> dict[str, Any]:
        """:return: the attributes by name, from which ``save`` selects the settings"""
        return vars(self)

    def unloadable(self) -> dict[str, str]:
        """:return: by name, a warning about each further part of the model that ``load`` will not restore"""
        return {}


def pack(
    model: Packable,
    exclude: Iterable[str] | None = None,
    include: Iterable[str] | None = None,
    extra_members: dict[str, bytes] | None = None,
    pickles: bool = True,
) -> bytes:
    """
    :param extra_members: further members of the archive
    :param pickles: pickle settings that are not plain; False: leave them out, each with a note
    :return: the archive
    """
    data = encoded_settings(model, exclude, include, pickles)
    variables = {name: recursive_getattr(model, name) for name in model._get_torch_save_params()[1]}
    file = io.BytesIO()
    save_to_zip_file(file, data, _state_dicts(model)[0], variables)
    normalizer = model.get_vec_normalize_env()
    if normalizer is not None:
        extra_members = {STATISTICS: json.dumps(encode(normalizer_state(normalizer))).encode(), **(extra_members or {})}
    with zipfile.ZipFile(file, "a") as archive:
        for name, content in (extra_members or {}).items():
            archive.writestr(name, content)
    return file.getvalue()


def encoded_settings(
    model: Packable, exclude: Iterable[str] | None = None, include: Iterable[str] | None = None, pickles: bool = False
) -> dict[str, Any]:
    """:return: the JSON of each setting, as ``pack`` writes it"""
    return {name: _encoded(name, value, pickles)[0] for name, value in _settings(model, exclude, include).items()}


def was_left_out(value: Any) -> bool:
    """:return: True for the note that ``pack`` writes in the place of a setting that it leaves out"""
    return isinstance(value, dict) and _LEFT_OUT in value


def is_pickled(value: Any) -> bool:
    """:return: True if SB3 would unpickle this setting"""
    return isinstance(value, dict) and _PICKLED in value


def left_out_reason(value: dict[str, Any]) -> str:
    """:return: what the note of ``pack`` says about the setting that it left out"""
    return str(value[_LEFT_OUT])


def warn_unloadable(
    model: Packable,
    warned: set[str],
    exclude: Iterable[str] | None = None,
    include: Iterable[str] | None = None,
    stacklevel: int = 3,
) -> None:
    """
    Warn once about everything that ``load`` will refuse of this model, and say how to load it.

    :param warned: attributes that an earlier warning has named; the new ones are added
    :param stacklevel: of the warning, counted from here
    """
    reasons = {name: text for name, text in _refusals(model, exclude, include) if name not in warned}
    warned.update(reasons)
    if reasons:
        listed = "; ".join(f"{text:.600}" for text in reasons.values())
        warnings.warn(f"load(path) alone will not read this model: {listed}", stacklevel=stacklevel)


def _refusals(model: Packable, exclude: Iterable[str] | None, include: Iterable[str] | None) -> Iterator[tuple[str, str]]:
    """:return: the attribute and the reason of each refusal by ``load``"""
    for name, value in _settings(model, exclude, include).items():
        encoded, reason = _encoded(name, value, pickles=True)
        replace = f"custom_objects={{{name!r}: ...}}"
        if was_left_out(encoded):
            yield name, f"{reason}, and is left out of the file; use load(path, {replace})"
        elif reason is not None:
            yield name, f"{reason}, and is pickled; use load(path, trust=True) or load(path, {replace})"
        for cls in _classes_of_the_script(encoded):
            yield (
                f"{name} {cls}",
                f"{name} names {cls}, a class of this script: another script must import it, or use load(path, {replace})",
            )
    yield from _state_dicts(model)[1].items()
    yield from model.unloadable().items()


def _settings(model: Packable, exclude: Iterable[str] | None, include: Iterable[str] | None) -> dict[str, Any]:
    """:return: the attributes that ``save`` writes as settings; SB3's rules select them"""
    state_dicts, variables = model._get_torch_save_params()
    excluded = {*(exclude or ()), *model._excluded_save_params()} - set(include or ())
    excluded |= {name.split(".")[0] for name in [*state_dicts, *variables]}
    return {name: value for name, value in model.saved_settings().items() if name not in excluded}


def _encoded(name: str, value: Any, pickles: bool) -> tuple[Any, str | None]:
    """:return: the JSON of a setting; and why the setting is not plain data, None if it is"""
    try:
        return encode(value, name), None
    except NotPlainError as error:
        reason = str(error)
    if not pickles:
        return {_LEFT_OUT: reason}, reason
    try:
        encoded = json.loads(data_to_json({name: value}))[name]
    except Exception as error:  # pickling runs methods of the user's objects, which may raise anything
        reason = f"{reason}; it cannot be pickled either ({type(error).__name__}: {str(error)[:200]})"
        return {_LEFT_OUT: reason}, reason
    if is_too_deep(encoded):
        return {_LEFT_OUT: reason}, reason
    # SB3 writes subclasses of JSON's own types, such as an IntEnum, without a pickle
    return encoded, reason if is_pickled(encoded) else None


def _classes_of_the_script(encoded: Any) -> Iterator[str]:
    """:return: the classes of ``__main__`` that the JSON of a setting names"""
    if isinstance(encoded, list):
        for item in encoded:
            yield from _classes_of_the_script(item)
    elif isinstance(encoded, dict):
        name = encoded.get("!class")
        if isinstance(name, str) and name.startswith("__main__:"):
            yield name
        for item in encoded.values():
            yield from _classes_of_the_script(item)


def _state_dicts(model: BaseAlgorithm) -> tuple[dict[str, Any], dict[str, str]]:
    """:return: the state dicts, without entries that no ``load`` could read; and the reasons of refusals by name"""
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
            # With this entry nobody could read the file, not even SB3
            refused[where] = f"{reason}; torch could not read it back, so it is left out, and load() creates a new one"
            del state[key]
            if key == "state":  # of an optimiser, whose load_state_dict needs this key
                state[key] = {}
    return states, refused


def _refusal(value: Any, where: str) -> str | None:
    """:return: why ``load`` refuses this entry of a state dict; None if it does not"""
    try:
        check_plain(value, where)
    except (RefusedFileError, RecursionError) as error:
        return str(error).removesuffix("; refused")
    return None


def _without_numpy(value: Any) -> Any:
    """:return: the value with NumPy's numbers, which ``weights_only`` does not read, replaced by Python's"""
    if isinstance(value, np.generic):
        return value.item()
    if type(value) is dict:
        return {key: _without_numpy(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_without_numpy(item) for item in value)
    return value


def _is_readable(value: Any) -> bool:
    """:return: True if torch can write the value, and read it as SB3's ``load`` does"""
    file = io.BytesIO()
    try:
        th.save(value, file)
        file.seek(0)
        th.load(file, weights_only=True)
    except Exception:  # pickling runs methods of the user's objects, which may raise anything
        return False
    return True
