"""
The state of a ``VecEnv`` in the middle of its episodes as plain values, and back: an environment that was built anew in the
same way goes on with the same observations, rewards and infos to the last bit, also in the episodes to come.

What an environment is lies in the attributes of its layers, from the outermost wrapper to the bare environment. Plain values
(numbers, texts, arrays, and lists, tuples, dicts and deques of them), random streams, spaces, running means and members of
enumerations are saved, in slots and in what functions have closed over as well; classes, code and modules are taken as they
are found, and so is what a constructor was told of rendering. Anything else, such as a physics engine's world or the items of
a base class that is written in C (``list``, ``dict``, ``ndarray``), is state that we cannot see. An environment, a wrapper or
a ``VecEnv`` can help itself to be saved all the same. It brings two methods:

* ``state_dict()`` returns its state as plain values;
* ``load_state_dict(state)`` takes it back, also in an environment that has never been reset.

They answer for the layer's own attributes. What gymnasium keeps for it (``np_random``, the spaces' streams) is ours.

Environments in other processes cannot be saved. Attributes of a class are not saved but compared: if a plain one has changed
since the class was made, new episodes begin. State elsewhere is not seen: globals of a module, caches, what a descriptor keeps
in itself. What an environment shared with code outside of it, other than streams and statistics, it no longer shares. All
attributes come back, also those that the constructor's arguments set.
"""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import gymnasium as gym
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv, VectorWrapper
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, VecEnvWrapper

from sb3_vpg.checkpoints.attribute_decoder import AttributeDecoder
from sb3_vpg.checkpoints.attribute_encoder import AttributeEncoder, NotPlainError
from sb3_vpg.checkpoints.env_attributes import (
    answers_itself,
    class_attributes,
    hidden_base,
    present_attributes,
    put_attribute,
    slots_of,
    state_attributes,
)
from sb3_vpg.vec_env.gym_vec_env import GymVecEnv

Groups = list[list[Any]]
"""The ``VecEnv`` inside of all wrappers with what it alone consists of; then the layers of each of its environments."""


def get_state(env: VecEnv) -> dict[str, Any]:
    """
    :param env: between two steps
    :return: plain values, a copy: of each ``VecEnvWrapper`` all that is plain; of the environments all, or nothing if some
        of it, or of a wrapper, is hidden (see ``missing_state``)
    """
    wrappers, groups, missing = _layers(env)
    writer = AttributeEncoder([*wrappers, *chain(*groups)])
    outer = []
    for wrapper in wrappers:
        row, hidden = _write(writer, wrapper)
        outer.append(row)
        missing = missing or hidden
    base = None
    if missing is None:
        base, missing = _write_groups(writer, groups)
    classes = {} if base is None else class_attributes([*wrappers, *chain(*groups)])
    return {"num_envs": env.num_envs, "wrappers": outer, "base": base, "missing": missing, "classes": classes}


def set_state(env: VecEnv, state: dict[str, Any]) -> str | None:
    """
    :param env: built as the one was that the state is of, whether it has been reset or not. After an error it may have
        taken over a part of the state
    :param state: what ``get_state`` returned; it is copied
    :return: None if the episodes go on where they were; else why they cannot (see ``missing_state``): then only the wrappers
        have taken over their state, such as ``VecNormalize`` its statistics; reset the environment
    :raises ValueError: if the state is of another number of environments, of other layers or other attributes
    """
    wrappers, groups, hidden = _layers(env)
    if state["num_envs"] != env.num_envs:
        raise ValueError(f"the state is of {state['num_envs']} environments, but there are {env.num_envs}; build as many")
    _check(wrappers, state["wrappers"], "")
    base = state["base"] or []
    if base:
        if hidden is not None:
            raise ValueError(f"the state is of a {base[0][0]['class']} and its environments, but {hidden}")
        for number, (group, rows) in enumerate(zip(groups, base, strict=True)):
            _check(group, rows, _place(number))
    reason = missing_state(state) or _changed_class(state, [*wrappers, *chain(*groups)])
    base = base if reason is None else []
    reader = AttributeDecoder([*wrappers, *chain(*groups)])
    for layer, row in zip(wrappers, state["wrappers"], strict=True):
        _read(reader, layer, row, "")
    for number, rows in enumerate(base):
        for layer, row in zip(groups[number], rows, strict=True):
            _read(reader, layer, row, _place(number))
    return reason


def missing_state(state: dict[str, Any]) -> str | None:
    """:return: why the episodes cannot go on (which environment, class and attribute), and what helps; None if they can"""
    missing: str | None = state["missing"]
    return missing


def _layers(env: VecEnv) -> tuple[list[VecEnvWrapper], Groups, str | None]:
    """:return: the wrappers from the outermost on, what they wrap, and why that cannot be looked into, if so"""
    wrappers = []
    while isinstance(env, VecEnvWrapper):
        wrappers.append(env)
        env = env.venv
    name = type(env).__qualname__
    if answers_itself(env):
        return wrappers, [[env]], None
    if isinstance(env, DummyVecEnv):
        return wrappers, [[env], *map(_chain, env.envs)], None
    if isinstance(env, GymVecEnv):
        inside = _chain(env.env)
        if not isinstance(inside[-1], AsyncVectorEnv):
            envs = inside[-1].envs if isinstance(inside[-1], SyncVectorEnv) else []
            return wrappers, [[env, *inside], *map(_chain, envs)], None
        name = type(inside[-1]).__qualname__
    elif not isinstance(env, SubprocVecEnv):
        return wrappers, [[env]], f"{name} is a VecEnv of another kind; give it state_dict() and load_state_dict(state)"
    return wrappers, [[env]], f"{name} keeps its environments in other processes; DummyVecEnv can be asked for their state"


def _chain(env: Any) -> list[Any]:
    layers = [env]
    while isinstance(layers[-1], (gym.Wrapper, VectorWrapper)):
        layers.append(layers[-1].env)
    return layers


def _changed_class(state: dict[str, Any], layers: Sequence[Any]) -> str | None:
    """:return: which attribute of a class is another one than in the process that the state is of, and what helps"""
    # Older checkpoints have no such entry
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


def _write_groups(writer: AttributeEncoder, groups: Groups) -> tuple[list[list[dict[str, Any]]] | None, str | None]:
    written = []
    for number, group in enumerate(groups):
        rows = []
        for layer in group:
            row, hidden = _write(writer, layer)
            if hidden is not None:
                return None, _place(number) + hidden
            rows.append(row)
        written.append(rows)
    return written, None


def _place(number: int) -> str:
    """:return: which of the groups is meant"""
    return f"environment {number - 1}: " if number else ""


def _write(writer: AttributeEncoder, layer: Any) -> tuple[dict[str, Any], str | None]:
    """:return: the state of a layer as far as it is plain, and what is not"""
    name, hidden = type(layer).__qualname__, None
    row: dict[str, Any] = {"class": name, "attributes": {}, "left_out": []}
    for attribute, value in state_attributes(layer).items():
        try:
            row["attributes"][attribute] = writer.attribute(value)
        except NotPlainError as error:
            row["left_out"].append(attribute)
            # Told by the last reset, and no step reads it
            told = attribute == "reset_infos" and isinstance(layer, VecEnv)
            if hidden is None and not told:
                hidden = f"the attribute {attribute!r} of {name} holds {error}"
    if answers_itself(layer):
        try:
            row["own"] = writer.attribute(layer.state_dict())
        except NotPlainError as error:
            return row, f"state_dict() of {name} returned {error}; let it return plain values"
        return row, None
    base = hidden_base(layer)
    if hidden is not None:
        hidden += ", which is not plain"
    elif base is not None:
        hidden = f"{name} inherits from {base}, whose content cannot be saved"
    return row, hidden and f"{hidden}; give {name} the methods state_dict() and load_state_dict(state)"


def _check(layers: Sequence[Any], rows: Sequence[dict[str, Any]], place: str) -> None:
    """:raises ValueError: if the rows are not of such layers; before anything is changed"""
    names, written = [type(layer).__qualname__ for layer in layers], [row["class"] for row in rows]
    if names != written:
        raise ValueError(f"{place}the state is of the layers {written}, but the environment has {names}")
    for layer, row in zip(layers, rows, strict=True):
        unknown = state_attributes(layer).keys() - row["attributes"].keys() - set(row["left_out"])
        if unknown or answers_itself(layer) != ("own" in row):
            what = f"{type(layer).__qualname__} has {sorted(unknown)}" if unknown else "one of them has state_dict()"
            raise ValueError(
                f"{place}{what}, of which the state does not tell; it is of other code, or the environment has "
                "gone further than the state: build it anew"
            )


def _read(reader: AttributeDecoder, layer: Any, row: dict[str, Any], place: str) -> None:
    slots, present = slots_of(layer), present_attributes(layer)
    for name, value in row["attributes"].items():
        current = present.get(name, None if name in slots else getattr(type(layer), name, None))
        try:
            found = reader.attribute(value, current)
        except ValueError as error:
            text = f"{place}{row['class']}.{name} {error}; build it as that one was, and reset it if a reset makes it"
            raise ValueError(text) from error
        # What the class has for all of its objects stays there
        if name in present or name in slots or not hasattr(type(layer), name) or found is not current:
            put_attribute(layer, name, found)
    if "own" in row:
        layer.load_state_dict(reader.attribute(row["own"], None))
