"""The state of an environment, a wrapper or a ``VecEnv``: its attributes, its slots and the attributes of its classes."""

import hashlib
import json
import types
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import chain
from typing import Any

from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnvWrapper, VecMonitor

from sb3_vpg.checkpoints.attribute_encoder import AttributeEncoder
from sb3_vpg.persistence.json_codec import encode
from sb3_vpg.vec_env.gym_vec_env import GymVecEnv

_SPACES = ("observation_space", "action_space")
_SET_BY_GYMNASIUM = frozenset(("_np_random", "_np_random_seed", "_observation_space", "_action_space", *_SPACES))
_NOT_STATE: dict[type, tuple[str, ...]] = {
    # Set by the constructor
    object: ("spec", "_cached_spec", "_saved_kwargs", "render_mode", "metadata", "_metadata"),
    VecEnvWrapper: ("venv", "class_attributes"),
    SyncVectorEnv: ("envs", "env_fns"),
    # Written in each step before they are read
    DummyVecEnv: ("envs", "keys", "actions", "buf_obs", "buf_dones", "buf_rews", "buf_infos"),
    GymVecEnv: GymVecEnv._NOT_STATE,
    # Files, and a history of episodes that no step reads
    Monitor: ("results_writer", "episode_returns", "episode_lengths", "episode_times"),
    VecMonitor: ("results_writer",),
}
_STATELESS = ("gymnasium", "stable_baselines3", "sb3_vpg", "typing", "abc")
"""Packages whose classes have no attributes that change; classes of torch and others may have some."""
_HEAP_TYPE = 1 << 9  # CPython's flag of classes that are not static in C


def has_state_dict(layer: Any) -> bool:
    # Of the class, because wrappers forward the attributes of their environments
    return hasattr(type(layer), "state_dict") and hasattr(type(layer), "load_state_dict")


def _python_classes(layer: Any) -> Iterator[type]:
    """:return: its classes that are written in Python, whose objects have only attributes"""
    return (cls for cls in type(layer).__mro__ if not _is_in_c(cls))


def _is_in_c(cls: type) -> bool:
    new = vars(cls).get("__new__")
    return not cls.__flags__ & _HEAP_TYPE or (isinstance(new, types.BuiltinFunctionType) and new.__self__ is cls)


def hidden_base(layer: Any) -> str | None:
    """:return: the name of a base class with state in C, such as the items of a ``list``; None if there is none"""
    for cls in type(layer).__mro__:
        # Others cannot have state, such as typing.Generic
        if _is_in_c(cls) and (cls.__basicsize__ > object.__basicsize__ or cls.__itemsize__):
            return cls.__qualname__
    return None


def slots_of(layer: Any) -> dict[str, types.MemberDescriptorType]:
    """:return: the slots by name; a slot that a subclass hides has the name of its class in front"""
    slots: dict[str, types.MemberDescriptorType] = {}
    for cls in _python_classes(layer):
        for name, value in vars(cls).items():
            if isinstance(value, types.MemberDescriptorType):
                slots[f"{cls.__qualname__}.{name}" if name in slots else name] = value
    return slots


def present_attributes(layer: Any) -> dict[str, Any]:
    """:return: the attributes of the object itself"""
    present = dict(vars(layer))
    for name, slot in slots_of(layer).items():
        with suppress(AttributeError):  # it has never been set
            present[name] = slot.__get__(layer)
    return present


def put_attribute(layer: Any, name: str, value: Any) -> None:
    """Set an attribute of the object itself, not through a property of the same name."""
    slot = slots_of(layer).get(name)
    if slot is None:
        vars(layer)[name] = value
    else:
        slot.__set__(layer, value)


def _not_state(layer: Any) -> set[str]:
    return set(chain(*(names for kind, names in _NOT_STATE.items() if isinstance(layer, kind))))


def state_attributes(layer: Any) -> dict[str, Any]:
    """:return: the attributes of a layer that are its state"""
    not_state = _not_state(layer)
    state = {name: value for name, value in present_attributes(layer).items() if name not in not_state}
    for name in _SPACES:
        if name not in state and isinstance(getattr(type(layer), name, None), spaces.Space):
            state[name] = getattr(type(layer), name)
    if has_state_dict(layer):
        state = {name: value for name, value in state.items() if name in _SET_BY_GYMNASIUM}
    return state


def class_attributes(layers: Sequence[Any]) -> dict[str, dict[str, str]]:
    """:return: a digest of each plain attribute of the layers' classes, by the names of class and attribute"""
    digests: dict[str, dict[str, str]] = {}
    for layer in layers:
        if has_state_dict(layer):
            continue
        not_state = {*_not_state(layer), *_SPACES}
        for cls in _python_classes(layer):
            key = f"{cls.__module__}:{cls.__qualname__}"
            if key not in digests and cls.__module__.partition(".")[0] not in _STATELESS:
                names = [name for name in vars(cls) if name not in not_state and not name.startswith("__")]
                digests[key] = {name: digest for name in names if (digest := _digest(layers, vars(cls)[name])) is not None}
    return digests


def _digest(layers: Sequence[Any], value: Any) -> str | None:
    """:return: equal for equal values; None if the value is not plain or cannot change, such as a method"""
    try:
        encoded = encode(AttributeEncoder(layers).encode(value))
    except TypeError:
        return None
    constant = isinstance(encoded, dict) and "@constant" in encoded
    return None if constant else hashlib.sha256(json.dumps(encoded).encode()).hexdigest()[:16]
