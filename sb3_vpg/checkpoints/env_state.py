"""
The state of a ``VecEnv`` in the middle of its episodes as plain values, and its restoration: an environment that was built
again in the same way continues with the same observations, rewards and infos to the last bit, also in later episodes.

The state is in the attributes of the layers, from the outermost wrapper to the bare environment. Saved are plain values
(numbers, texts, arrays, and lists, tuples, dicts and deques of them), random streams, spaces, running means and members of
enumerations, also in slots and in the closures of functions, and MuJoCo's objects (``sb3_vpg.checkpoints.mujoco_state``).
Classes, code, modules and the settings of rendering are not saved: the environment has its own. All other values cannot be
saved, such as Box2D's world or the items of a base class that is written in C (``list``, ``dict``, ``ndarray``). For these,
an environment, a wrapper or a ``VecEnv`` can have two methods:

* ``state_dict()`` returns its state as plain values;
* ``load_state_dict(state)`` restores it, also in an environment that has never been reset.

They replace the saving of the layer's attributes, except for those of gymnasium (``np_random``, the streams of spaces).

Limits: environments in other processes and those of EnvPool cannot be saved. Attributes of a class are not saved but
compared: if a plain one differs, new episodes begin. Globals of a module, caches and state inside of descriptors are not
noticed. An object that the environment shares with code outside of it is copied, unless it is a random stream or running
statistics. All attributes are restored, also those that the constructor sets from its arguments.
"""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import gymnasium as gym
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv, VectorWrapper
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, VecEnvWrapper

from sb3_vpg.checkpoints.attribute_decoder import AttributeDecoder
from sb3_vpg.checkpoints.attribute_encoder import AttributeEncoder
from sb3_vpg.checkpoints.env_attributes import (
    class_attributes,
    has_state_dict,
    hidden_base,
    present_attributes,
    put_attribute,
    slots_of,
    state_attributes,
)
from sb3_vpg.checkpoints.mujoco_state import difference, restore_simulation, simulation_state, simulations_in
from sb3_vpg.exceptions import NotPlainError
from sb3_vpg.vec_env.envpool_vector_env import EnvPoolVectorEnv
from sb3_vpg.vec_env.gym_vec_env import GymVecEnv
from sb3_vpg.vec_env.vec_normalize import wrappers_of

Groups = list[list[Any]]
"""First the ``VecEnv`` inside of all wrappers and its vector environment, if any; then the layers of each environment."""


def get_state(env: VecEnv) -> dict[str, Any]:
    """
    :param env: between two steps
    :return: plain values, a copy: ``num_envs``; ``wrappers``, the plain attributes of each ``VecEnvWrapper``; ``base``, the
        state of the environments, or None if an attribute of them or of a wrapper is not plain; ``missing``, which one, and
        what to do; ``classes``, digests of the attributes of classes; ``mujoco``, the state of MuJoCo's objects
    """
    wrappers, groups, missing = _layers(env)
    layers = [*wrappers, *chain(*groups)]
    simulations = _simulations(layers)
    encoder = AttributeEncoder(layers, simulations)
    encoded = [_encode_layer(encoder, wrapper) for wrapper in wrappers]
    state: dict[str, Any] = {"num_envs": env.num_envs, "wrappers": [row for row, _ in encoded], "base": None}
    state |= {"classes": {}, "mujoco": []}
    missing = missing or next((text for _, text in encoded if text), None)
    base = []
    for number, group in enumerate(groups):
        if missing is None:
            encoded = [_encode_layer(encoder, layer) for layer in group]
            base.append([row for row, _ in encoded])
            missing = next((_prefix(number) + text for _, text in encoded if text), None)
    if missing is None:
        state |= {"base": base, "classes": class_attributes(layers)}
        state["mujoco"] = [[*place, simulation_state(value)] for place, value in simulations.items()]
    return {**state, "missing": missing}


def set_state(env: VecEnv, state: dict[str, Any]) -> str | None:
    """
    :param env: built in the same way as the environment of the state, reset or not. After an error, a part of the state may
        have been restored
    :param state: as ``get_state`` returned it; it is copied
    :return: None if the episodes continue; else the reason why not, such as ``missing``: then only the state of the
        wrappers is restored, such as the statistics of ``VecNormalize``, and the environment must be reset
    :raises ValueError: if the state has another number of environments, other layers or other attributes
    """
    wrappers, groups, missing = _layers(env)
    if state["num_envs"] != env.num_envs:
        raise ValueError(f"the state is of {state['num_envs']} environments, but there are {env.num_envs}; build as many")
    _check_layers(wrappers, state["wrappers"], "")
    base = state["base"] or []
    if base:
        if missing is not None:
            raise ValueError(f"the state is of a {base[0][0]['class']} and its environments, but {missing}")
        for number, (group, rows) in enumerate(zip(groups, base, strict=True)):
            _check_layers(group, rows, _prefix(number))
    layers = [*wrappers, *chain(*groups)]
    reason: str | None = state["missing"] or _changed_class(state, layers) or _changed_simulation(state, layers)
    if reason is None:
        for index, name, content in state.get("mujoco", ()):
            restore_simulation(content, present_attributes(layers[index])[name])
    base = base if reason is None else []
    decoder = AttributeDecoder(layers)
    for layer, row in zip(wrappers, state["wrappers"], strict=True):
        _decode_layer(decoder, layer, row, "")
    for number, rows in enumerate(base):
        for layer, row in zip(groups[number], rows, strict=True):
            _decode_layer(decoder, layer, row, _prefix(number))
    return reason


def _layers(env: VecEnv) -> tuple[list[VecEnvWrapper], Groups, str | None]:
    """:return: the wrappers, the outermost first; the layers they wrap; and why their state cannot be read, or None"""
    wrappers = wrappers_of(env)
    env = wrappers[-1].venv if wrappers else env
    name = type(env).__qualname__
    if has_state_dict(env):
        return wrappers, [[env]], None
    if isinstance(env, DummyVecEnv):
        return wrappers, [[env], *map(_chain, env.envs)], None
    if isinstance(env, GymVecEnv):
        inside = _chain(env.env)
        if not isinstance(inside[-1], (AsyncVectorEnv, EnvPoolVectorEnv)):
            envs = inside[-1].envs if isinstance(inside[-1], SyncVectorEnv) else []
            return wrappers, [[env, *inside], *map(_chain, envs)], None
        name = type(inside[-1]).__qualname__
        if isinstance(inside[-1], EnvPoolVectorEnv):
            return wrappers, [[env]], f"{name} cannot save the state of EnvPool's environments; use DummyVecEnv"
    elif not isinstance(env, SubprocVecEnv):
        return wrappers, [[env]], f"{name} is an unknown kind of VecEnv; give it state_dict() and load_state_dict(state)"
    return wrappers, [[env]], f"{name} keeps its environments in other processes; use DummyVecEnv"


def _chain(env: Any) -> list[Any]:
    layers = [env]
    while isinstance(layers[-1], (gym.Wrapper, VectorWrapper)):
        layers.append(layers[-1].env)
    return layers


def _changed_class(state: dict[str, Any], layers: Sequence[Any]) -> str | None:
    """:return: which attribute of a class differs from that in the process of the state, and what to do; None if none does"""
    # Older checkpoints do not have this entry
    now = class_attributes(layers) if state.get("classes") else {}
    for cls, digests in now.items():
        was = state["classes"].get(cls, {})
        for name, digest in digests.items():
            if was.get(name, digest) != digest:
                kind = cls.partition(":")[2]
                return (
                    f"the attribute {name!r} of the class {kind} had another value in the process that wrote the state; keep "
                    f"changing state on the instance, or give {kind} the methods state_dict() and load_state_dict(state)"
                )
    return None


def _simulations(layers: Sequence[Any]) -> dict[tuple[int, str], Any]:
    """:return: MuJoCo's objects, each once, by the number of the innermost layer that has it and the name of the attribute"""
    attributes = [(index, state_attributes(layer)) for index, layer in enumerate(layers)]
    found = [((index, name), value) for index, row in attributes for name, value in simulations_in(row).items()]
    return dict({id(value): (place, value) for place, value in found}.values())


def _changed_simulation(state: dict[str, Any], layers: Sequence[Any]) -> str | None:
    """:return: which of MuJoCo's objects cannot get its state, and why; None if each can"""
    # Older checkpoints do not have this entry
    for index, name, content in state.get("mujoco", ()):
        text = difference(content, present_attributes(layers[index]).get(name))
        if text is not None:
            return f"the attribute {name!r} of {type(layers[index]).__qualname__} {text}"
    return None


def _prefix(number: int) -> str:
    """:return: the beginning of an error message that names the environment of a group"""
    return f"environment {number - 1}: " if number else ""


def _encode_layer(encoder: AttributeEncoder, layer: Any) -> tuple[dict[str, Any], str | None]:
    """:return: the plain attributes of a layer, and what of its state is not plain, or None"""
    name, missing = type(layer).__qualname__, None
    row: dict[str, Any] = {"class": name, "attributes": {}, "left_out": []}
    for attribute, value in state_attributes(layer).items():
        try:
            row["attributes"][attribute] = encoder.encode(value)
        except NotPlainError as error:
            row["left_out"].append(attribute)
            # No step reads the infos of the last reset
            is_needed = attribute != "reset_infos" or not isinstance(layer, VecEnv)
            if missing is None and is_needed:
                missing = f"the attribute {attribute!r} of {name} holds {error}"
    if has_state_dict(layer):
        try:
            row["own"] = encoder.encode(layer.state_dict())
        except NotPlainError as error:
            return row, f"state_dict() of {name} returned {error}; let it return plain values"
        return row, None
    base = hidden_base(layer)
    if missing is not None:
        missing += ", which is not plain"
    elif base is not None:
        missing = f"{name} inherits from {base}, whose content cannot be saved"
    return row, missing and f"{missing}; give {name} the methods state_dict() and load_state_dict(state)"


def _check_layers(layers: Sequence[Any], rows: Sequence[dict[str, Any]], prefix: str) -> None:
    """:raises ValueError: if the rows are of other layers or lack attributes; nothing has been changed then"""
    names, saved = [type(layer).__qualname__ for layer in layers], [row["class"] for row in rows]
    if names != saved:
        raise ValueError(f"{prefix}the state is of the layers {saved}, but the environment has {names}")
    for layer, row in zip(layers, rows, strict=True):
        unknown = state_attributes(layer).keys() - row["attributes"].keys() - set(row["left_out"])
        if unknown or has_state_dict(layer) != ("own" in row):
            name = type(layer).__qualname__
            what = f"has {sorted(unknown)}, but the state has not" if unknown else "has lost or got state_dict()"
            raise ValueError(
                f"{prefix}{name} {what}: the code has changed since, or the environment has taken more steps; build it anew"
            )


def _decode_layer(decoder: AttributeDecoder, layer: Any, row: dict[str, Any], prefix: str) -> None:
    slots, present = slots_of(layer), present_attributes(layer)
    for name, value in row["attributes"].items():
        current = present.get(name, None if name in slots else getattr(type(layer), name, None))
        try:
            decoded = decoder.decode(value, current)
        except ValueError as error:
            text = f"{prefix}{row['class']}.{name} {error}; build it in the same way, and reset it if a reset sets it"
            raise ValueError(text) from error
        # An attribute of the class that has not changed stays there
        if name in present or name in slots or not hasattr(type(layer), name) or decoded is not current:
            put_attribute(layer, name, decoded)
    if "own" in row:
        layer.load_state_dict(decoder.decode(row["own"], None))
