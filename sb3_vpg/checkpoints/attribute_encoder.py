"""
What the attributes of environments hold, as plain values; ``sb3_vpg.checkpoints.attribute_decoder`` is the way back.

Attributes are more than a list of values: two wrappers may share one random generator, and one array may be a view of
another's memory. Copied apart, they would drift apart. So what has been written once is only named where it appears again,
and a view is written as the memory that it looks at and where it looks.

Most values stay as they are. The others become a dict with a single key that begins with ``@`` and says what they are.
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

_IMMUTABLE = (type(None), bool, int, float, str)
_BIT_GENERATORS = ("MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64")
OBJECTS = (RunningMeanStd, GymRunningMeanStd, StackedObservations)
"""Objects that are all of their attributes and that the constructor of what holds them has made."""


class NotPlainError(TypeError):
    """No plain values can stand for this; the text says for what."""


class AttributeEncoder:
    """
    Writes values that belong together: what they share, they will share again.

    :param layers: the environments and wrappers themselves, which are only named where an attribute holds one
    """

    def __init__(self, layers: Sequence[Any]) -> None:
        self._layers = {id(layer): index for index, layer in enumerate(layers)}
        # The values are held too: a number that stands for one must not pass to another
        self._seen: dict[Hashable, tuple[int, Any]] = {}

    def attribute(self, value: Any) -> Any:
        """
        :return: plain values that share no memory with ``value``
        :raises NotPlainError: if there are none; this writer is then as it was
        """
        before = len(self._seen)
        try:
            return self._write(value)
        except NotPlainError:
            for key in list(self._seen)[before:]:
                del self._seen[key]
            raise

    def _write(self, value: Any) -> Any:
        kind = type(value)
        if kind in _IMMUTABLE:
            return value
        if kind is tuple:
            return value if all(type(item) in _IMMUTABLE for item in value) else tuple(map(self._write, value))
        if id(value) in self._layers:
            return {"@layer": self._layers[id(value)]}
        write = self._WRITERS.get(kind)
        if write is not None and not _is_fixed(value):
            return self._once(id(value), value, lambda: write(self, value))
        if isinstance(value, spaces.Space):
            return self._once(id(value), value, lambda: self._space(value))
        if isinstance(value, np.generic) and not isinstance(value, (np.void, np.object_)):
            return value
        if isinstance(value, enum.Enum) and kind.__members__.get(value.name) is value:
            return {"@enum": [kind.__module__, kind.__qualname__, value.name]}
        if isinstance(value, types.MethodType) and id(value.__self__) in self._layers:
            return {"@method": [self._layers[id(value.__self__)], value.__name__]}
        name = constant_name(value)
        if name is None:
            raise NotPlainError(f"a {kind.__qualname__}")
        return {"@constant": name}

    def _once(self, key: Hashable, value: Any, write: Callable[[], Any]) -> Any:
        if key in self._seen:
            return {"@seen": self._seen[key][0]}
        self._seen[key] = (len(self._seen), value)
        return write()

    def _list(self, value: list[Any]) -> list[Any]:
        return [self._write(item) for item in value]

    def _dict(self, value: dict[Any, Any]) -> dict[Any, Any]:
        for key in value:
            if not _is_immutable(key):
                raise NotPlainError(f"a dict with a {type(key).__qualname__} as a key")
        written = {key: self._write(item) for key, item in value.items()}
        if type(value) is OrderedDict:
            return {"@ordered": list(written.items())}
        mistakable = any(type(key) is str and key.startswith("@") for key in written)
        return {"@dict": list(written.items())} if mistakable else written

    def _deque(self, value: "deque[Any]") -> dict[str, Any]:
        return {"@deque": [value.maxlen, [self._write(item) for item in value]]}

    def _array(self, value: np.ndarray) -> Any:
        if value.dtype.hasobject or value.dtype.names is not None:
            raise NotPlainError(f"an array of {value.dtype}")
        root = value
        while type(root.base) is np.ndarray:
            root = root.base
        if root is value and value.flags.c_contiguous:
            return value.copy()
        if root is not value and root.flags.c_contiguous:
            memory = self._write(root)
        else:
            # In another order, which numerical results may depend on: as it lies there
            memory = self._once(("memory", id(root)), root, lambda: root.ravel(order="K").copy())
        offset = value.__array_interface__["data"][0] - root.__array_interface__["data"][0]
        return {"@view": [memory, value.dtype.str, value.shape, value.strides, offset]}

    def _generator(self, value: np.random.Generator) -> dict[str, Any]:
        bits = value.bit_generator
        if type(bits) not in bit_generators().values():
            raise NotPlainError(f"a random generator on a {type(bits).__qualname__}")
        return {"@generator": [type(bits).__name__, bits.state, seeds_of(bits)]}

    def _space(self, value: spaces.Space[Any]) -> dict[str, Any]:
        return {"@space": [kind_of_space(value), [self._write(part._np_random) for part in parts_of(value)]]}

    def _function(self, value: types.FunctionType) -> dict[str, Any]:
        parts = [value.__defaults__, value.__kwdefaults__, vars(value), contents(value)]
        return {"@function": [value.__qualname__, self._inside("a function", parts)]}

    def _partial(self, value: "functools.partial[Any]") -> dict[str, Any]:
        return {"@partial": self._inside("a partial", [value.func, value.args, value.keywords])}

    def _inside(self, what: str, parts: list[Any]) -> list[Any]:
        try:
            return [self._write(part) for part in parts]
        except NotPlainError as error:
            raise NotPlainError(f"{what} that holds {error}") from None

    def _object(self, value: Any) -> dict[str, Any]:
        return {"@object": [type(value).__qualname__, {name: self._write(item) for name, item in vars(value).items()}]}

    _WRITERS: ClassVar[dict[type, Callable[["AttributeEncoder", Any], Any]]] = {
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
    """:return: the name of what does not change, or of a function, whose code does not; None for all else"""
    if isinstance(value, functools.partial):
        return constant_name(value.func)
    if isinstance(value, types.FunctionType):
        return value.__qualname__
    if isinstance(value, (types.MethodType, types.BuiltinFunctionType)):
        return value.__qualname__ if isinstance(value.__self__, (types.ModuleType, type)) else None
    if isinstance(value, EnvSpec):
        return value.id
    if isinstance(value, (type, types.ModuleType, np.ufunc, logging.Logger)):
        return getattr(value, "__qualname__", None) or getattr(value, "__name__", None) or str(value)
    return str(value) if isinstance(value, np.dtype) else None


def _is_immutable(value: Any) -> bool:
    if type(value) is tuple:
        return all(map(_is_immutable, value))
    return type(value) in _IMMUTABLE or (isinstance(value, np.generic) and not isinstance(value, (np.void, np.object_)))


@functools.cache
def bit_generators() -> dict[str, Any]:
    return {name: getattr(np.random, name) for name in _BIT_GENERATORS}


def seeds_of(bits: Any) -> dict[str, Any] | None:
    """:return: what a bit generator makes its children from, for ``SeedSequence``"""
    seeds = bits.seed_seq
    if type(seeds) is not np.random.SeedSequence:
        return None
    entropy = seeds.entropy
    plain = entropy if entropy is None or type(entropy) is int else [int(word) for word in np.ravel(entropy)]
    return {**seeds.state, "entropy": plain}


def _is_fixed(value: Any) -> bool:
    """:return: whether it is a function that holds nothing which could change"""
    if not isinstance(value, types.FunctionType) or value.__closure__ or vars(value):
        return False
    return all(map(_is_immutable, [*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]))


def contents(function: types.FunctionType) -> tuple[tuple[Any, ...], ...]:
    """:return: for each variable that it has closed over, its value, or nothing while it has none"""
    found: list[tuple[Any, ...]] = []
    for cell in function.__closure__ or ():
        try:
            found.append((cell.cell_contents,))
        except ValueError:  # how an empty one answers
            found.append(())
    return tuple(found)


def parts_of(space: spaces.Space[Any]) -> Iterator[spaces.Space[Any]]:
    """:return: the space and all that it is made of, each of which may sample from a stream of its own"""
    yield space
    for value in vars(space).values():
        inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else (value,)
        for part in inner:
            if isinstance(part, spaces.Space):
                yield from parts_of(part)


def kind_of_space(space: spaces.Space[Any]) -> str:
    size = space.n if isinstance(space, spaces.Discrete) else "x".join(map(str, space.shape or ()))
    return f"{type(space).__qualname__}({size})"
