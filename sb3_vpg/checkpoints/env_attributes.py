"""Where the state of an environment, a wrapper or a ``VecEnv`` lies: in its attributes, in slots, and in its classes."""

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
_GYMNASIUMS_OWN = frozenset(("_np_random", "_np_random_seed", "_observation_space", "_action_space", *_SPACES))
_LEFT_ALONE: dict[type, tuple[str, ...]] = {
    # How it was built
    object: ("spec", "_cached_spec", "_saved_kwargs", "render_mode", "metadata", "_metadata"),
    VecEnvWrapper: ("venv", "class_attributes"),
    SyncVectorEnv: ("envs", "env_fns"),
    # Written anew in each step before it is read
    DummyVecEnv: ("envs", "keys", "actions", "buf_obs", "buf_dones", "buf_rews", "buf_infos"),
    GymVecEnv: ("_turn", "_members", "_writer", "_actions"),
    # Files, and a history that grows with the run and that no step reads
    Monitor: ("results_writer", "episode_returns", "episode_lengths", "episode_times"),
    VecMonitor: ("results_writer",),
}
_LIBRARIES = ("gymnasium", "stable_baselines3", "sb3_vpg", "typing", "abc")
"""Modules whose classes keep nothing in themselves."""
_HEAP_TYPE = 1 << 9  # CPython's flag of classes that were made while the program ran


def answers_itself(layer: Any) -> bool:
    # Asked of the class, because wrappers pass on what their environments have
    return hasattr(type(layer), "state_dict") and hasattr(type(layer), "load_state_dict")


def _python_classes(layer: Any) -> Iterator[type]:
    """:return: those of its classes that are written in Python, whose objects keep nothing but attributes"""
    return (cls for cls in type(layer).__mro__ if not _is_of_c(cls))


def _is_of_c(cls: type) -> bool:
    new = vars(cls).get("__new__")
    return not cls.__flags__ & _HEAP_TYPE or (isinstance(new, types.BuiltinFunctionType) and new.__self__ is cls)


def hidden_base(layer: Any) -> str | None:
    """:return: the name of a class that keeps state in C, such as ``list`` its items"""
    for cls in type(layer).__mro__:
        # Some have no room for any, such as typing.Generic
        if _is_of_c(cls) and (cls.__basicsize__ > object.__basicsize__ or cls.__itemsize__):
            return cls.__qualname__
    return None


def slots_of(layer: Any) -> dict[str, types.MemberDescriptorType]:
    """:return: by the name of the attribute; one that a subclass has hidden is named with its class"""
    found: dict[str, types.MemberDescriptorType] = {}
    for cls in _python_classes(layer):
        for name, value in vars(cls).items():
            if isinstance(value, types.MemberDescriptorType):
                found[f"{cls.__qualname__}.{name}" if name in found else name] = value
    return found


def present_attributes(layer: Any) -> dict[str, Any]:
    """:return: the attributes of the object itself"""
    present = dict(vars(layer))
    for name, slot in slots_of(layer).items():
        with suppress(AttributeError):  # it has never been set
            present[name] = slot.__get__(layer)
    return present


def put_attribute(layer: Any, name: str, value: Any) -> None:
    """Set an attribute that ``present_attributes`` names, past all properties."""
    slot = slots_of(layer).get(name)
    if slot is None:
        vars(layer)[name] = value
    else:
        slot.__set__(layer, value)


def _left_alone(layer: Any) -> set[str]:
    return set(chain(*(names for kind, names in _LEFT_ALONE.items() if isinstance(layer, kind))))


def state_attributes(layer: Any) -> dict[str, Any]:
    """:return: what we are to save of a layer"""
    left_alone = _left_alone(layer)
    found = {name: value for name, value in present_attributes(layer).items() if name not in left_alone}
    for name in _SPACES:
        if name not in found and isinstance(getattr(type(layer), name, None), spaces.Space):
            found[name] = getattr(type(layer), name)
    if answers_itself(layer):
        found = {name: value for name, value in found.items() if name in _GYMNASIUMS_OWN}
    return found


def class_attributes(layers: Sequence[Any]) -> dict[str, dict[str, str]]:
    """:return: a digest of each plain attribute of the layers' classes, by the names of class and attribute"""
    found: dict[str, dict[str, str]] = {}
    for layer in layers:
        if answers_itself(layer):
            continue
        left_alone = {*_left_alone(layer), *_SPACES}
        for cls in _python_classes(layer):
            key = f"{cls.__module__}:{cls.__qualname__}"
            if key not in found and cls.__module__.partition(".")[0] not in _LIBRARIES:
                names = [name for name in vars(cls) if name not in left_alone and not name.startswith("__")]
                found[key] = {name: digest for name in names if (digest := _digest(layers, vars(cls)[name])) is not None}
    return found


def _digest(layers: Sequence[Any], value: Any) -> str | None:
    """:return: equal for equal values; None for one that is not plain, or that cannot change, such as a method"""
    try:
        written = encode(AttributeEncoder(layers).attribute(value))
    except TypeError:
        return None
    constant = isinstance(written, dict) and "@constant" in written
    return None if constant else hashlib.sha256(json.dumps(written).encode()).hexdigest()[:16]
