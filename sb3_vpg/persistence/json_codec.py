"""
Encode plain values as JSON, and decode them, without a pickle: reading a file runs none of its author's code.

JSON's own types stay as they are. Each other value (tuple, array, random generator, space, class ...) becomes an object with
a single key, a tag that begins with ``!``. ``class_names`` says how classes are stored.

A model's settings are plain values already. The state of an environment is an object graph, which
``sb3_vpg.checkpoints.attribute_encoder`` turns into plain values first.
"""

import base64
import inspect
import re
from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.utils import ConstantSchedule, FloatSchedule, LinearSchedule

from sb3_vpg.common.random_state import BIT_GENERATORS
from sb3_vpg.exceptions import NotPlainError
from sb3_vpg.persistence.class_names import class_name, find_class, is_nameable, read_class
from sb3_vpg.persistence.memory_limit import MAX_DEPTH, is_too_deep

# How many random words these bit generators hold in advance; the others hold none
_BUFFERED = {"MT19937": 624, "Philox": 4}
_SPACES: dict[type[spaces.Space[Any]], tuple[str, ...]] = {
    spaces.Box: ("low", "high", "dtype"),
    spaces.Discrete: ("n", "start", "dtype"),
    spaces.MultiDiscrete: ("nvec", "start", "dtype"),
    spaces.MultiBinary: ("n",),
    spaces.Dict: ("spaces",),
}
# Their attributes, each of which is a number or another schedule
_SCHEDULES = {
    f"{FloatSchedule.__module__}:FloatSchedule": {"value_schedule"},
    f"{ConstantSchedule.__module__}:ConstantSchedule": {"val"},
    f"{LinearSchedule.__module__}:LinearSchedule": {"start", "end", "end_fraction"},
    "rl_zoo3.utils:SimpleLinearSchedule": {"initial_value"},
}
_DTYPE = re.compile(r"[<>|=]?[?biufcSUVmM]\d{0,9}(\[\w{1,20}\])?")


def encode(value: Any, name: str = "value") -> Any:
    """
    :param value: of JSON's types and those in ``_CODECS``, which may be nested
    :param name: of the value, for the error
    :return: JSON from which ``decode`` makes an equal value
    :raises NotPlainError: for a value of another type, and for one that is nested deeper than ``memory_limit.loads`` reads
    """
    # A value that holds itself has no end
    with suppress(RecursionError):
        encoded = _encode(value, name)
        if not is_too_deep(encoded):
            return encoded
    raise NotPlainError(f"{name} is nested more than {MAX_DEPTH} deep, which is not plain data")


def _encode(value: Any, name: str) -> Any:
    kind = type(value)
    if value is None or kind in (bool, int, float, str):
        return value
    if kind is list:
        return [_encode(item, f"{name}[{index}]") for index, item in enumerate(value)]
    if kind in (dict, OrderedDict) and all(type(key) is str and not key.startswith("!") for key in value):
        return {key: _encode(item, f"{name}[{key!r}]") for key, item in value.items()}
    for tag, (applies, write, _) in _CODECS.items():
        if applies(value):
            return {tag: write(value, name)}
    raise NotPlainError(
        f"{name} is of the type {kind.__module__}.{kind.__qualname__}, which is not plain data: {value!r:.200}"
    )


def is_plain(value: Any) -> bool:
    """:return: True if ``encode`` takes the value"""
    try:
        encode(value)
    except NotPlainError:
        return False
    return True


def decode(value: Any) -> Any:
    """
    :param value: JSON from ``encode``, read by ``memory_limit.loads``
    :return: the value
    :raises ValueError: if ``encode`` never makes such JSON, or if it names a class that is not imported or not allowed
    """
    if isinstance(value, list):
        return [decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    tag = next(iter(value), "")
    if not tag.startswith("!"):
        return {key: decode(item) for key, item in value.items()}
    if tag not in _CODECS or len(value) != 1:
        raise ValueError(f"the file holds a value with the unknown tag {tag!r}")
    try:
        *_, read = _CODECS[tag]
        return read(value[tag])
    except (TypeError, LookupError, AttributeError, AssertionError, ArithmeticError, MemoryError) as error:
        raise ValueError(f"the file holds a {tag[1:]} that cannot be read: {type(error).__name__}: {error}") from error


def _is_schedule(value: Any) -> bool:
    """:return: True for a schedule of SB3's or the zoo's that consists of numbers"""
    parts = _SCHEDULES.get(class_name(type(value)))
    if parts is None or vars(value).keys() != parts:
        return False
    return all(type(part) in (int, float) or _is_schedule(part) for part in vars(value).values())


def _read_schedule(parts: Any) -> Any:
    name, state = parts
    if name not in _SCHEDULES:
        raise ValueError(f"the file names the schedule {name}; choose from {sorted(_SCHEDULES)}")
    cls = find_class(name)
    schedule = cls.__new__(cls)
    schedule.__dict__.update(decode(state))
    if not _is_schedule(schedule):
        raise ValueError(f"the file holds a {cls.__name__} that is not made of numbers")
    # A schedule that fails when called must fail now, and not when training calls it
    float(schedule(0.5))
    return schedule


def _write_array(value: Any, name: str) -> list[Any]:
    if not _is_plain_dtype(value.dtype):
        raise NotPlainError(f"{name} is an array of {value.dtype}, which is not plain data")
    return [value.dtype.str, list(value.shape), base64.b64encode(np.ascontiguousarray(value).tobytes()).decode()]


def _is_plain_dtype(dtype: np.dtype[Any]) -> bool:
    return dtype.names is None and dtype.subdtype is None and _DTYPE.fullmatch(dtype.str) is not None


def _read_dtype(text: Any) -> np.dtype[Any]:
    # NumPy also accepts lists of fields and expressions
    if not isinstance(text, str) or not _DTYPE.fullmatch(text):
        raise ValueError(f"the file names the dtype {text!r:.80}, which is not allowed")
    return np.dtype(text)


def _read_array(parts: Any) -> np.ndarray:
    dtype, shape, content = parts
    if not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError(f"the file holds an array of the shape {shape!r:.80}")
    return np.frombuffer(base64.b64decode(content, validate=True), dtype=_read_dtype(dtype)).reshape(shape).copy()


def _write_generator(value: Any, name: str) -> list[Any]:
    bits = value.bit_generator
    return [type(bits).__name__, _encode(bits.state, name)]


def _read_generator(parts: Any) -> np.random.Generator:
    kind, state = parts
    if kind not in BIT_GENERATORS:
        raise ValueError(f"the file names the random generator {kind!r}; choose from {list(BIT_GENERATORS)}")
    bits: Any = BIT_GENERATORS[kind]()
    bits.state = decode(state)
    # NumPy does not check the position, and would read beyond its buffer
    position = bits.state["state"].get("pos", bits.state.get("buffer_pos", 0))
    if not 0 <= position <= _BUFFERED.get(kind, 0):
        raise ValueError(f"the file holds a {kind} at the position {position} of {_BUFFERED.get(kind, 0)}")
    return np.random.Generator(bits)


def _write_space(value: Any, name: str) -> list[Any]:
    fields = {field: getattr(value, field) for field in _SPACES[type(value)]}
    if isinstance(value, spaces.MultiBinary) and len(value.shape) > 1:
        fields["n"] = value.shape
    return [type(value).__name__, _encode(fields, name)]


def _read_space(parts: Any) -> spaces.Space[Any]:
    name, encoded = parts
    classes = {cls.__name__: cls for cls in _SPACES}
    if name not in classes:
        raise ValueError(f"the file names the space {name!r}; choose from {sorted(classes)}")
    cls, fields = classes[name], decode(encoded)
    if set(fields) != set(_SPACES[cls]):
        raise ValueError(f"the file holds a {name} of {sorted(map(str, fields))}, not of {_SPACES[cls]}")
    if "dtype" in fields:
        fields["dtype"] = fields["dtype"].type
    if cls is spaces.Discrete:
        fields = {**fields, "n": int(fields["n"]), "start": int(fields["start"])}
    if cls is spaces.Dict:
        # Gymnasium sorts the keys of a plain dict, which would change the order of the features
        fields["spaces"] = OrderedDict(fields["spaces"])
    # Before 1.2.2 gymnasium's Discrete was always of int64, and took no dtype
    return cls(**{field: value for field, value in fields.items() if field in inspect.signature(cls).parameters})


_Codec = tuple[Callable[[Any], bool], Callable[[Any, str], Any], Callable[[Any], Any]]
_CODECS: dict[str, _Codec] = {
    "!dict": (
        lambda value: type(value) in (dict, OrderedDict),
        lambda value, name: [[_encode(key, name), _encode(item, f"{name}[{key!r}]")] for key, item in value.items()],
        lambda pairs: {decode(key): decode(item) for key, item in pairs},
    ),
    "!tuple": (
        lambda value: type(value) is tuple,
        lambda value, name: _encode(list(value), name),
        lambda items: tuple(decode(item) for item in items),
    ),
    "!deque": (
        lambda value: type(value) is deque,
        lambda value, name: [value.maxlen, _encode(list(value), name)],
        lambda parts: deque(decode(parts[1]), maxlen=parts[0]),
    ),
    "!path": (lambda value: type(value) is type(Path()), lambda value, name: value.as_posix(), Path),
    "!array": (lambda value: type(value) is np.ndarray, _write_array, _read_array),
    "!scalar": (
        lambda value: isinstance(value, np.generic),
        lambda value, name: _write_array(np.asarray(value), name),
        lambda parts: _read_array(parts)[()],
    ),
    "!dtype": (
        lambda value: isinstance(value, np.dtype) and _is_plain_dtype(value),
        lambda value, name: value.str,
        _read_dtype,
    ),
    "!generator": (
        lambda value: type(value) is np.random.Generator and type(value.bit_generator) in BIT_GENERATORS.values(),
        _write_generator,
        _read_generator,
    ),
    "!space": (lambda value: type(value) in _SPACES, _write_space, _read_space),
    "!class": (is_nameable, lambda value, name: class_name(value), read_class),
    "!schedule": (
        _is_schedule,
        lambda value, name: [class_name(type(value)), _encode(vars(value), name)],
        _read_schedule,
    ),
}
"""For each tag three functions: does it apply to a value, write the value, read it."""
