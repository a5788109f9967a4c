"""Plain values come back from JSON bitwise equal; other values are refused with an error that names them."""

import json
import math
from collections import OrderedDict, deque
from contextlib import suppress

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from helpers import LinearExtractor, OddlyNamedPolicy, UsersBuffer
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from stable_baselines3.common.utils import ConstantSchedule, FloatSchedule, LinearSchedule

from sb3_vpg.checkpoints.attribute_decoder import AttributeDecoder
from sb3_vpg.checkpoints.attribute_encoder import AttributeEncoder
from sb3_vpg.common.random_state import BIT_GENERATORS
from sb3_vpg.exceptions import NotPlainError
from sb3_vpg.persistence import json_codec
from sb3_vpg.persistence.class_names import class_name
from sb3_vpg.persistence.json_codec import decode, encode, is_plain
from sb3_vpg.persistence.memory_limit import MAX_DEPTH, loads
from sb3_vpg.policies import MlpPolicy


def through_json(value):
    return decode(json.loads(json.dumps(encode(value))))


def assert_same(first, second):
    """Assert that two values have the same types, order and bits."""
    assert type(first) is type(second)
    if isinstance(first, np.ndarray):
        assert first.dtype == second.dtype
        assert first.shape == second.shape
        assert first.tobytes() == second.tobytes()
    elif isinstance(first, np.generic):
        assert_same(np.asarray(first), np.asarray(second))
    elif isinstance(first, dict):
        assert len(first) == len(second)
        for pair, other in zip(first.items(), second.items(), strict=True):
            assert_same(pair, other)
    elif isinstance(first, (list, tuple, deque)):
        assert getattr(first, "maxlen", None) == getattr(second, "maxlen", None)
        assert len(first) == len(second)
        for item, other in zip(first, second, strict=True):
            assert_same(item, other)
    elif isinstance(first, float):
        assert math.copysign(1, first) == math.copysign(1, second) or math.isnan(first)
        assert first == second or (math.isnan(first) and math.isnan(second))
    else:
        assert first == second


DTYPES = st.one_of(
    npst.boolean_dtypes(),
    npst.integer_dtypes(endianness="?"),
    npst.unsigned_integer_dtypes(endianness="?"),
    npst.floating_dtypes(endianness="?"),
    npst.complex_number_dtypes(endianness="?"),
    npst.unicode_string_dtypes(endianness="?", min_len=1, max_len=5),
    npst.byte_string_dtypes(min_len=1, max_len=5),
    npst.datetime64_dtypes(endianness="?"),
)
ARRAYS = npst.arrays(DTYPES, npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
TEXTS = st.text(st.characters(exclude_categories=()))
KEYS = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), TEXTS, st.just("!array")),
    lambda inner: st.lists(inner, max_size=3).map(tuple),
    max_leaves=4,
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**200), 2**200), st.floats(), TEXTS, ARRAYS, DTYPES),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(KEYS, inner, max_size=4),
        st.tuples(st.lists(inner, max_size=4), st.none() | st.integers(0, 5)).map(lambda parts: deque(*parts)),
    ),
    max_leaves=12,
)


@given(VALUES)
def test_every_value_comes_back(value):
    """NaN, -0.0, long integers, lone surrogates, empty and big-endian arrays and keys that are tuples come back too."""
    assert is_plain(value)
    assert_same(value, through_json(value))


@given(DTYPES.flatmap(lambda dtype: npst.arrays(dtype, (2, 3))))
def test_scalars_and_views_come_back(values):
    """Elements of an array come back, and views that are not contiguous."""
    assert_same(values[1, 2], through_json(values[1, 2]))
    assert_same(np.asfortranarray(values)[::-1, ::2].copy(), through_json(np.asfortranarray(values)[::-1, ::2]))


def test_payload_of_a_nan_comes_back():
    bits = np.array([0x7FF8_0000_DEAD_BEEF, 0xFFF0_0000_0000_0001], dtype=np.uint64).view(np.float64)
    assert through_json(bits).view(np.uint64).tolist() == bits.view(np.uint64).tolist()


def test_decoded_arrays_are_writable():
    array = through_json(np.zeros(3))
    array[0] = 1.0


SPACES = [
    spaces.Discrete(3),
    spaces.Discrete(5, start=-2),
    spaces.MultiDiscrete([2, 3]),
    spaces.MultiDiscrete([[2, 3], [4, 5]], start=[[1, 1], [0, -1]]),
    spaces.MultiBinary(4),
    spaces.MultiBinary([2, 3]),
    spaces.Box(-1.0, 1.0, (3,), np.float32),
    spaces.Box(np.array([-np.inf, 0.0]), np.array([1.0, np.inf]), dtype=np.float64),
    spaces.Box(0, 255, (4, 4, 3), np.uint8),
    spaces.Box(-1.0, 1.0, (), np.float32),
    spaces.Dict({"b": spaces.Discrete(2), "a": spaces.Dict({"x": spaces.MultiBinary(2)})}),
    spaces.Dict(OrderedDict(b=spaces.Discrete(2), a=spaces.Dict([("y", spaces.Discrete(2)), ("x", spaces.MultiBinary(2))]))),
]


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_spaces_come_back(space):
    again = through_json(space)
    assert again == space
    assert type(again) is type(space)
    assert again.dtype == space.dtype
    for one in (space, again):
        one.seed(7)
    # The order of the keys is the order of the features
    assert str(again.sample()) == str(space.sample())


class OldDiscrete(spaces.Discrete):
    """Gymnasium's class before 1.2.2."""

    def __init__(self, n, seed=None, start=0):
        super().__init__(n, seed, start)


OldDiscrete.__name__ = "Discrete"


def test_spaces_of_another_gymnasium_are_read(monkeypatch):
    """Before 1.2.2 ``Discrete`` took no ``dtype``, but had one."""
    written = json.dumps(encode(spaces.Dict(a=spaces.Discrete(5, start=-2))))
    monkeypatch.setitem(json_codec._SPACES, OldDiscrete, json_codec._SPACES[spaces.Discrete])
    old = decode(json.loads(written))["a"]
    assert type(old) is OldDiscrete
    assert (old.n, old.start, old.dtype) == (5, -2, np.int64)
    again = json.dumps(encode(spaces.Dict(a=old)))
    assert again == written
    monkeypatch.undo()
    assert decode(json.loads(again)) == spaces.Dict(a=spaces.Discrete(5, start=-2))


@pytest.mark.parametrize("kind", BIT_GENERATORS)
@pytest.mark.parametrize("drawn", [0, 1, 3, 700], ids=str)
def test_generators_draw_the_same_numbers(kind, drawn):
    """They do so at any position of their buffers, and with half of a word left over."""
    generator = np.random.Generator(BIT_GENERATORS[kind](5))
    generator.random(drawn)
    generator.integers(0, 10, size=drawn, dtype=np.uint32)
    again = through_json(generator)
    for one in ("random", "standard_normal"):
        np.testing.assert_array_equal(getattr(again, one)(700), getattr(generator, one)(700))
    np.testing.assert_array_equal(again.integers(0, 9, 99, dtype=np.int32), generator.integers(0, 9, 99, dtype=np.int32))


@pytest.mark.parametrize("kind", BIT_GENERATORS)
def test_generator_of_an_environment_passes_both_codecs(kind):
    generator = np.random.Generator(BIT_GENERATORS[kind](5))
    state = through_json(AttributeEncoder([]).encode(generator))
    again = AttributeDecoder([]).decode(state, np.random.default_rng())
    np.testing.assert_array_equal(again.random(9), generator.random(9))


def test_both_codecs_refuse_with_the_same_error():
    for write in (encode, AttributeEncoder([]).encode):
        with pytest.raises(NotPlainError, match="object"):
            write(object())


CLASSES = [
    MlpPolicy,
    OddlyNamedPolicy,
    LinearExtractor,
    UsersBuffer,
    th.nn.Tanh,
    th.optim.Adam,
    th.optim.Adafactor,
    np.float32,
]


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_classes_come_back(cls):
    assert through_json(cls) is cls


@pytest.mark.parametrize(
    "schedule", [ConstantSchedule(0.5), LinearSchedule(0.1, 0.0, 0.5), FloatSchedule(LinearSchedule(1, 0, 1))], ids=repr
)
def test_schedules_come_back(schedule):
    again = through_json(schedule)
    assert type(again) is type(schedule)
    assert [again(progress) for progress in (1.0, 0.7, 0.0)] == [schedule(progress) for progress in (1.0, 0.7, 0.0)]


class Local(th.nn.Module):
    class Inner(th.nn.Module):
        """A nested class, which its qualified name finds."""


def test_class_in_a_class_comes_back():
    assert through_json(Local.Inner) is Local.Inner


NOT_PLAIN = {
    "function": len,
    "lambda": lambda: 1,
    "module": json,
    "object": object(),
    "set": {1},
    "bytes": b"x",
    "complex": 1j,
    "tensor": th.zeros(1),
    "objects": np.array([object()]),
    "records": np.zeros(1, dtype=[("a", "f4")]),
    "record": np.zeros(1, dtype=[("a", "f4")])[0],
    "dtype of records": np.dtype([("a", "f4")]),
    "dtype of objects": np.dtype(object),
    "subclass": OrderedDict,
    "masked array": np.ma.zeros(2),
    "class from elsewhere": json.JSONDecoder,
    "class in a function": type("Made", (th.nn.Module,), {}),
    "torch's program": th.jit.ScriptModule,
    "legacy random state": np.random.RandomState(0),
    "tuple space": spaces.Tuple([spaces.Discrete(2)]),
    "dict space with a tuple space": spaces.Dict(a=spaces.Tuple([spaces.Discrete(2)])),
    "schedule of a function": FloatSchedule(lambda progress: 0.1),
    "schedule of a class": FloatSchedule(th.nn.Identity),
}


@pytest.mark.parametrize("value", NOT_PLAIN.values(), ids=NOT_PLAIN.keys())
def test_value_that_is_not_plain_is_refused_with_its_place_and_type(value):
    assert not is_plain(value)
    with pytest.raises(NotPlainError, match=r"settings\['a'\]\[1\].* is .*, which is not plain data"):
        encode({"a": (0, value)}, "settings")


def nested(depth, tag=None):
    value = []
    for _ in range(depth - 1):
        value = [value] if tag is None else {tag: value}
    return value


def cyclic():
    value = {}
    value["self"] = [value, value]
    return value


@pytest.mark.parametrize("tag", [None, "a", "!"], ids=["list", "dict", "dict_of_odd_keys"])
def test_depth_has_the_same_limit_in_every_python(tag):
    """The recursion limits of Python's releases differ. Whatever is written can be read, also as a setting of a model."""
    levels = 3 if tag == "!" else 1
    deepest = nested(MAX_DEPTH // levels, tag)
    assert_same(decode(loads(json.dumps({"gamma": encode(deepest)}).encode())["gamma"]), deepest)
    for too_deep in (nested(MAX_DEPTH // levels + 1, tag), nested(900, tag), nested(100_000, tag), cyclic()):
        with pytest.raises(NotPlainError, match="settings is nested more than 300 deep"):
            encode(too_deep, "settings")
    assert not is_plain(too_deep)


@pytest.mark.parametrize("text", ["[" * 302 + "]" * 302, "[" * 5000 + "]" * 5000, '{"a":' * 10**6 + "1" + "}" * 10**6])
def test_json_that_is_too_deep_is_a_value_error(text):
    with pytest.raises(ValueError, match="more than 300 deep"):
        loads(text.encode())


MALFORMED = {
    "unknown tag": {"!code": "x"},
    "two tags": {"!tuple": [], "!dict": []},
    "no parts": {"!array": []},
    "too many parts": {"!array": ["<f4", [0], "", ""]},
    "no base64": {"!array": ["<f4", [1], "****"]},
    "too short": {"!array": ["<f4", [2], "AAAA"]},
    "objects": {"!array": ["|O", [1], "AAAAAAAAAAA="]},
    "expression": {"!dtype": "(2,)f4"},
    "list of fields": {"!dtype": [["a", "f4"]]},
    "key that is a list": {"!dict": [[[], 1]]},
    "no pairs": {"!dict": [[1]]},
    "negative length": {"!deque": [-1, []]},
    "no generator": {"!generator": ["RandomState", {}]},
    "no state": {"!generator": ["PCG64", {}]},
    "state of another": {"!generator": ["PCG64", encode(np.random.Generator(np.random.SFC64(0)))["!generator"][1]]},
    "no space": {"!space": ["Text", {}]},
    "negative space": {"!space": ["MultiBinary", {"n": -1}]},
    "path of numbers": {"!path": 5},
    "not a name": {"!class": 5},
    "no module": {"!class": "nowhere:Thing"},
    "no class": {"!class": f"{class_name(MlpPolicy)}.forward"},
    "alias": {"!class": "sb3_vpg.vpg:BasePolicy"},
    "abstraction": {"!class": "builtins:type"},
    "no schedule": {"!schedule": ["torch.nn.modules.linear:Identity", {}]},
    "half a schedule": {"!schedule": [class_name(LinearSchedule), {"start": 1.0}]},
    "schedule of texts": {"!schedule": [class_name(ConstantSchedule), {"val": "1"}]},
    "endless schedule": {"!schedule": [class_name(ConstantSchedule), {"val": 10**400}]},
}


@pytest.mark.parametrize("value", MALFORMED.values(), ids=MALFORMED.keys())
def test_json_that_encode_never_writes_is_a_value_error(value):
    """NumPy and gymnasium raise various errors for it."""
    with pytest.raises(ValueError, match=r"\w"):
        decode({"a": [value]})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
TAGS = ["!dict", "!tuple", "!deque", "!path", "!array", "!scalar", "!dtype", "!generator", "!space", "!class", "!schedule"]
KNOWN = [
    "<f4",
    "MT19937",
    "PCG64",
    "Box",
    "Discrete",
    "Dict",
    "MultiBinary",
    "MultiDiscrete",
    "numpy:void",
    class_name(LinearSchedule),
]


@given(st.sampled_from(TAGS), JSON | st.tuples(st.sampled_from(KNOWN), JSON).map(list))
def test_any_json_is_a_value_or_a_value_error(tag, parts):
    with suppress(ValueError):
        decode({tag: parts})
