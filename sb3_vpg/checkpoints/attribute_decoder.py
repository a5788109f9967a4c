"""
Decode the plain values that ``sb3_vpg.checkpoints.attribute_encoder`` has written into attributes of environments.

A checkpoint is read in two steps: JSON -> plain values -> object graph. ``sb3_vpg.persistence.json_codec`` takes the first
step, this module the second.
"""

import enum
import functools
import random
import sys
import types
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces

from sb3_vpg.checkpoints.attribute_encoder import (
    OBJECTS,
    constant_name,
    kind_of_space,
    parts_of,
    seeds_of,
    values_in_closure,
)
from sb3_vpg.checkpoints.env_attributes import present_attributes
from sb3_vpg.common.random_state import BIT_GENERATORS


class AttributeDecoder:
    """
    Decodes what one ``AttributeEncoder`` encoded, in the same order.

    :param layers: the environments and wrappers that correspond to those of the encoder
    """

    def __init__(self, layers: Sequence[Any]) -> None:
        self._layers = layers
        self._decoded: list[Any] = []
        self._streams: set[int] = set()

    def decode(self, value: Any, current: Any) -> Any:
        """
        :param value: as encoded
        :param current: the present value of the attribute. Streams, spaces and running means stay the same objects and get the
            state, because other code may hold them; all other values are new
        :return: the value for the attribute
        :raises ValueError: if ``current`` has to stay the same object but is of another kind than the encoded one
        """
        kind = type(value)
        if kind is tuple:
            return tuple(self._items(value, current))
        if kind is np.ndarray:
            return self._keep(value.copy())
        if kind is list:
            return self._extend(self._keep([]), value, current)
        if kind is not dict:
            return value
        tag = next(iter(value), None)
        decoder = self._DECODERS.get(tag)
        if decoder is None:
            return self._update(self._keep({}), value.items(), current)
        return decoder(self, value[tag], current)

    def _keep(self, value: Any) -> Any:
        """Keep an object for later references to it."""
        self._decoded.append(value)
        return value

    def _items(self, items: Sequence[Any], current: Any) -> Iterator[Any]:
        present = tuple(current) if isinstance(current, (tuple, list, deque)) else ()
        for index, item in enumerate(items):
            yield self.decode(item, present[index] if index < len(present) else None)

    def _extend(self, target: Any, items: Sequence[Any], current: Any) -> Any:
        target.extend(self._items(items, current))
        return target

    def _update(self, target: Any, items: Iterable[tuple[Any, Any]], current: Any) -> Any:
        present = current if isinstance(current, Mapping) else {}
        for key, item in items:
            target[key] = self.decode(item, present.get(key))
        return target

    def _view(self, content: Any, current: Any) -> Any:
        number = len(self._decoded)
        self._keep(None)
        memory, dtype, shape, strides, offset = content
        root = self.decode(memory, None)
        self._decoded[number] = np.ndarray(tuple(shape), np.dtype(dtype), root, offset, tuple(strides))
        return self._decoded[number]

    def _generator(self, content: Any, current: Any) -> Any:
        kind, state, seeds = content
        bits = current.bit_generator if self._is_free(current, np.random.Generator) else None
        # The seeds, from which a generator spawns its children, cannot be set
        if bits is None or type(bits).__name__ != kind or seeds_of(bits) != seeds:
            bits = BIT_GENERATORS[kind](None if seeds is None else np.random.SeedSequence(**seeds))
            current = np.random.Generator(bits)
        bits.state = state
        return self._claim(current)

    def _random_state(self, content: Any, current: Any) -> Any:
        if not self._is_free(current, np.random.RandomState):
            current = np.random.RandomState(BIT_GENERATORS[content["bit_generator"]]())
        current.set_state(content)
        return self._claim(current)

    def _random(self, content: Any, current: Any) -> Any:
        if not self._is_free(current, random.Random):
            current = random.Random()
        current.setstate(content)
        return self._claim(current)

    def _is_free(self, current: Any, kind: type) -> bool:
        """
        :return: True if the present stream can take the state. Two attributes may share one stream before a reset and have one
            each after it; then only the first takes it
        """
        return type(current) is kind and id(current) not in self._streams

    def _claim(self, stream: Any) -> Any:
        self._streams.add(id(stream))
        return self._keep(stream)

    def _space(self, content: Any, current: Any) -> Any:
        kind, streams = content
        parts = list(parts_of(current)) if isinstance(current, spaces.Space) else []
        if not parts or kind_of_space(current) != kind or len(parts) != len(streams):
            raise ValueError(f"is {current}, but the state is of a {kind}")
        self._keep(current)
        for part, stream in zip(parts, streams, strict=True):
            part._np_random = self.decode(stream, part._np_random)
        return current

    def _object(self, content: Any, current: Any) -> Any:
        kind, attributes = content
        if type(current) not in OBJECTS or type(current).__qualname__ != kind:
            raise ValueError(f"is {current!r:.200}, but the state is of a {kind}")
        self._keep(current)
        self._update(vars(current), attributes.items(), dict(vars(current)))
        return current

    def _method(self, content: Any, current: Any) -> types.MethodType:
        index, name = content
        method = getattr(self._layers[index], name, None)
        if not isinstance(method, types.MethodType):
            raise ValueError(f"was the method {name} of {type(self._layers[index]).__qualname__}, which does not exist")
        return method

    def _simulation(self, place: Any, current: Any) -> Any:
        index, name = place
        simulation = present_attributes(self._layers[index]).get(name)
        return current if simulation is None else simulation

    def _function(self, content: Any, current: Any) -> Any:
        name, (defaults, keyword_defaults, attributes, cells) = content
        self._keep(self._constant(name, current))
        if not isinstance(current, types.FunctionType) or len(values_in_closure(current)) != len(cells):
            raise ValueError(f"is {current!r:.200}, but the state is of another {name}")
        current.__defaults__ = self.decode(defaults, current.__defaults__)
        current.__kwdefaults__ = self.decode(keyword_defaults, current.__kwdefaults__)
        vars(current).update(self.decode(attributes, vars(current)))
        decoded = self.decode(cells, values_in_closure(current))
        for cell, cell_value in zip(current.__closure__ or (), decoded, strict=True):
            if cell_value:
                cell.cell_contents = cell_value[0]
        return current

    def _partial(self, parts: Any, current: Any) -> Any:
        if not isinstance(current, functools.partial):
            raise ValueError(f"is {current!r:.200}, but the state is of a partial")
        self._keep(current)
        present = current.func, current.args, current.keywords
        decoded = [self.decode(part, value) for part, value in zip(parts, present, strict=True)]
        current.__setstate__((*decoded, vars(current)))  # type: ignore[attr-defined]  # typeshed leaves it out
        return current

    def _constant(self, content: str, current: Any) -> Any:
        name = constant_name(current)
        if name != content:
            raise ValueError(f"is {current!r:.200}, but the state is of {content}")
        return current

    _DECODERS: ClassVar[dict[Any, Callable[["AttributeDecoder", Any, Any], Any]]] = {
        "@seen": lambda self, number, current: self._decoded[number],
        "@layer": lambda self, index, current: self._layers[index],
        "@mujoco": _simulation,
        "@method": _method,
        "@constant": _constant,
        "@function": _function,
        "@partial": _partial,
        "@enum": lambda self, content, current: _member(*content),
        "@dict": lambda self, items, current: self._update(self._keep({}), items, current),
        "@ordered": lambda self, items, current: self._update(self._keep(OrderedDict()), items, current),
        "@deque": lambda self, content, current: self._extend(self._keep(deque(maxlen=content[0])), content[1], current),
        "@view": _view,
        "@generator": _generator,
        "@random_state": _random_state,
        "@random": _random,
        "@space": _space,
        "@object": _object,
    }


def _member(module: str, path: str, name: str) -> enum.Enum:
    """:return: a member of an enumeration; the module must have been imported already, because the text is from a file"""
    owner: Any = sys.modules.get(module)
    for part in path.split("."):
        owner = getattr(owner, part, None)
    if not isinstance(owner, enum.EnumMeta) or name not in owner.__members__:
        raise ValueError(f"was {path}.{name}, but the module {module} has no such member of an enumeration")
    return owner.__members__[name]
