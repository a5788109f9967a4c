"""
Encode the attributes of environments as plain values; ``sb3_vpg.checkpoints.attribute_decoder`` decodes them.

A checkpoint is written in two steps: object graph -> plain values -> JSON. This module takes the first step,
``sb3_vpg.persistence.json_codec`` the second.

Attributes form a graph: two wrappers may share one random generator, and one array may be a view of another's memory. Copies
would no longer be shared. So an object is written once and referred to by its number afterwards, and a view is written as its
memory, strides and offset.

Most values stay as they are. Each other one becomes a dict with a single key, a tag that begins with ``@``.
"""

import enum
import functools
import logging
import random
import types
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.wrappers.utils import RunningMeanStd as GymRunningMeanStd
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env.stacked_observations import StackedObservations

from sb3_vpg.checkpoints.mujoco_state import check_simulation, is_view
from sb3_vpg.common.random_state import BIT_GENERATORS
from sb3_vpg.exceptions import NotPlainError

_IMMUTABLE = (type(None), bool, int, float, str)
OBJECTS = (RunningMeanStd, GymRunningMeanStd, StackedObservations)
"""Objects whose state is all of their attributes, created by the constructor of the layer that holds them."""
_RENDERING = "gymnasium.envs.mujoco.mujoco_rendering"
"""Its classes hold windows and cameras, which no step reads."""


class AttributeEncoder:
    """
    Encodes the attributes of several layers. Objects that attributes share are shared again after decoding.

    :param layers: the environments and wrappers themselves; an attribute that holds one is encoded as its number
    :param simulations: MuJoCo's objects, by the number of a layer and the name of its attribute, which encode them.
        ``sb3_vpg.checkpoints.mujoco_state`` saves their content
    """

    def __init__(self, layers: Sequence[Any], simulations: Mapping[tuple[int, str], Any] | None = None) -> None:
        self._layers = {id(layer): index for index, layer in enumerate(layers)}
        self._simulations = simulations or {}
        self._places = {id(simulation): place for place, simulation in self._simulations.items()}
        # The values are kept, so that no other object gets the same id()
        self._encoded: dict[Hashable, tuple[int, Any]] = {}

    def encode(self, value: Any) -> Any:
        """
        :return: plain values that share no memory with ``value``
        :raises NotPlainError: if the value cannot be encoded; this encoder is unchanged then
        """
        before = len(self._encoded)
        try:
            return self._encode(value)
        except NotPlainError:
            for key in list(self._encoded)[before:]:
                del self._encoded[key]
            raise

    def _encode(self, value: Any) -> Any:
        kind = type(value)
        if _is_immutable(value):
            return value
        if kind is tuple:
            return tuple(map(self._encode, value))
        if id(value) in self._layers:
            return {"@layer": self._layers[id(value)]}
        if id(value) in self._places:
            check_simulation(value, self._simulations.values())
            return {"@mujoco": list(self._places[id(value)])}
        encode = self._ENCODERS.get(kind)
        if encode is not None and not _is_constant_function(value):
            return self._once(id(value), value, lambda: encode(self, value))
        if isinstance(value, spaces.Space):
            return self._once(id(value), value, lambda: self._space(value))
        if isinstance(value, enum.Enum) and kind.__members__.get(value.name) is value:
            return {"@enum": [kind.__module__, kind.__qualname__, value.name]}
        if isinstance(value, types.MethodType) and id(value.__self__) in self._layers:
            return {"@method": [self._layers[id(value.__self__)], value.__name__]}
        name = constant_name(value)
        if name is None:
            raise NotPlainError(f"a {kind.__qualname__}")
        return {"@constant": name}

    def _once(self, key: Hashable, value: Any, encode: Callable[[], Any]) -> Any:
        """:return: the encoded value; the second time only a reference to it"""
        if key in self._encoded:
            return {"@seen": self._encoded[key][0]}
        self._encoded[key] = (len(self._encoded), value)
        return encode()

    def _list(self, value: list[Any]) -> list[Any]:
        return [self._encode(item) for item in value]

    def _dict(self, value: dict[Any, Any]) -> dict[Any, Any]:
        for key in value:
            if not _is_immutable(key):
                raise NotPlainError(f"a dict with a {type(key).__qualname__} as a key")
        encoded = {key: self._encode(item) for key, item in value.items()}
        if type(value) is OrderedDict:
            return {"@ordered": list(encoded.items())}
        is_ambiguous = any(type(key) is str and key.startswith("@") for key in encoded)
        return {"@dict": list(encoded.items())} if is_ambiguous else encoded

    def _deque(self, value: "deque[Any]") -> dict[str, Any]:
        return {"@deque": [value.maxlen, [self._encode(item) for item in value]]}

    def _array(self, value: np.ndarray) -> Any:
        if value.dtype.hasobject or value.dtype.names is not None:
            raise NotPlainError(f"an array of {value.dtype}")
        root = value
        while type(root.base) is np.ndarray:
            root = root.base
        if root.base is not None and is_view(root, self._simulations.values()):
            raise NotPlainError("an array that is a part of MuJoCo's memory")
        if root is value and value.flags.c_contiguous:
            return value.copy()
        if root is not value and root.flags.c_contiguous:
            memory = self._encode(root)
        else:
            # Numerical results may depend on the order in memory, so it is kept
            memory = self._once(("memory", id(root)), root, lambda: root.ravel(order="K").copy())
        offset = value.__array_interface__["data"][0] - root.__array_interface__["data"][0]
        return {"@view": [memory, value.dtype.str, value.shape, value.strides, offset]}

    def _generator(self, value: np.random.Generator) -> dict[str, Any]:
        bits = value.bit_generator
        if type(bits) not in BIT_GENERATORS.values():
            raise NotPlainError(f"a random generator on a {type(bits).__qualname__}")
        return {"@generator": [type(bits).__name__, bits.state, seeds_of(bits)]}

    def _space(self, value: spaces.Space[Any]) -> dict[str, Any]:
        return {"@space": [kind_of_space(value), [self._encode(part._np_random) for part in parts_of(value)]]}

    def _function(self, value: types.FunctionType) -> dict[str, Any]:
        parts = [value.__defaults__, value.__kwdefaults__, vars(value), values_in_closure(value)]
        return {"@function": [value.__qualname__, self._parts("a function", parts)]}

    def _partial(self, value: "functools.partial[Any]") -> dict[str, Any]:
        return {"@partial": self._parts("a partial", [value.func, value.args, value.keywords])}

    def _parts(self, owner: str, parts: list[Any]) -> list[Any]:
        try:
            return [self._encode(part) for part in parts]
        except NotPlainError as error:
            raise NotPlainError(f"{owner} that holds {error}") from None

    def _object(self, value: Any) -> dict[str, Any]:
        return {"@object": [type(value).__qualname__, {name: self._encode(item) for name, item in vars(value).items()}]}

    _ENCODERS: ClassVar[dict[type, Callable[["AttributeEncoder", Any], Any]]] = {
        list: _list,
        dict: _dict,
        OrderedDict: _dict,
        deque: _deque,
        np.ndarray: _array,
        np.random.Generator: _generator,
        np.random.RandomState: lambda self, value: {"@random_state": value.get_state(legacy=False)},
        random.Random: lambda self, value: {"@random": value.getstate()},
        types.FunctionType: _function,
        functools.partial: _partial,
        **dict.fromkeys(OBJECTS, _object),
    }


def constant_name(value: Any) -> str | None:
    """:return: the name of a constant object (class, module, code of a function and the like); None for all others"""
    if isinstance(value, functools.partial):
        return constant_name(value.func)
    if isinstance(value, types.FunctionType):
        return value.__qualname__
    if isinstance(value, (types.MethodType, types.BuiltinFunctionType)):
        return value.__qualname__ if isinstance(value.__self__, (types.ModuleType, type)) else None
    if isinstance(value, EnvSpec):
        return value.id
    if type(value).__module__ == _RENDERING:
        return type(value).__qualname__
    if isinstance(value, (type, types.ModuleType, np.ufunc, logging.Logger)):
        return getattr(value, "__qualname__", None) or getattr(value, "__name__", None) or str(value)
    return str(value) if isinstance(value, np.dtype) else None


def _is_immutable(value: Any) -> bool:
    """:return: True for None, numbers, texts, and tuples of these"""
    if type(value) is tuple:
        return all(map(_is_immutable, value))
    return type(value) in _IMMUTABLE or (isinstance(value, np.generic) and not isinstance(value, (np.void, np.object_)))


def seeds_of(bits: Any) -> dict[str, Any] | None:
    """:return: the arguments for ``SeedSequence`` from which a bit generator spawns its children; None for other seeds"""
    seeds = bits.seed_seq
    if type(seeds) is not np.random.SeedSequence:
        return None
    entropy = seeds.entropy
    plain = entropy if entropy is None or type(entropy) is int else [int(word) for word in np.ravel(entropy)]
    return {**seeds.state, "entropy": plain}


def _is_constant_function(value: Any) -> bool:
    """:return: True for a function without closure, attributes and mutable defaults"""
    if not isinstance(value, types.FunctionType) or value.__closure__ or vars(value):
        return False
    return all(map(_is_immutable, [*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]))


def values_in_closure(function: types.FunctionType) -> tuple[tuple[Any, ...], ...]:
    """:return: for each variable in the closure a tuple with its value, or an empty one if the variable is not set"""
    values: list[tuple[Any, ...]] = []
    for cell in function.__closure__ or ():
        try:
            values.append((cell.cell_contents,))
        except ValueError:  # an empty cell
            values.append(())
    return tuple(values)


def parts_of(space: spaces.Space[Any]) -> Iterator[spaces.Space[Any]]:
    """:return: the space and all spaces inside of it, each of which may have its own random stream"""
    yield space
    for value in vars(space).values():
        parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else (value,)
        for part in parts:
            if isinstance(part, spaces.Space):
                yield from parts_of(part)


def kind_of_space(space: spaces.Space[Any]) -> str:
    """:return: class and size of a space, which must be equal to restore its streams"""
    size = space.n if isinstance(space, spaces.Discrete) else "x".join(map(str, space.shape or ()))
    return f"{type(space).__qualname__}({size})"
