"""Our reader of torch's files returns the same as torch.load for files of torch and SB3, and does not call it."""

import io
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch as th
from helpers import CONTINUOUS, DICT, IMAGE, RandomEnv, make_model
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3 import A2C
from tampering import saved

from sb3_vpg.exceptions import RefusedFileError
from sb3_vpg.persistence.archives import read_archive, read_weights, write_archive
from sb3_vpg.persistence.tensor_pickles import read_pickle
from sb3_vpg.persistence.zip_layout import check_layout

AGENTS = sorted((Path(__file__).parents[2] / "trained_agents").glob("**/*.zip"))
DTYPES = [th.float64, th.float32, th.float16, th.bfloat16, th.int64, th.int32, th.int16, th.int8, th.uint8, th.bool]
DTYPES += [th.complex64, th.complex128]


def records(content):
    file = io.BytesIO(content)
    with zipfile.ZipFile(file) as archive:
        check_layout(file, archive)
        return {name.split("/", 1)[1]: archive.read(name) for name in archive.namelist()}


def assert_same(found, expected):
    if isinstance(expected, th.Tensor):
        assert found.dtype == expected.dtype
        assert (found.size(), found.stride()) == (expected.size(), expected.stride())
        assert found.storage_offset() == expected.storage_offset()
        assert th.equal(found, expected) or found.isnan().any()
        return
    assert type(found) is type(expected)
    if isinstance(expected, dict):
        assert list(found) == list(expected)
        assert_same(getattr(found, "_metadata", None), getattr(expected, "_metadata", None))
        found, expected = list(found.values()), list(expected.values())
    if isinstance(expected, (list, tuple)):
        assert len(found) == len(expected)
        for pair in zip(found, expected, strict=True):
            assert_same(*pair)
    elif expected == expected:
        assert found == expected


def assert_read_as_by_torch(content):
    assert_same(read_pickle(records(content)), th.load(io.BytesIO(content), map_location="cpu", weights_only=True))


def weights_of(file):
    return [content for name, content in read_archive(file).items() if name.endswith(".pth")]


def written(model):
    file = io.BytesIO()
    model.save(file)
    return file


@pytest.mark.parametrize("path", AGENTS, ids=[path.stem for path in AGENTS])
def test_shipped_agents_are_read_as_by_torch(path):
    for content in weights_of(path):
        assert_read_as_by_torch(content)


POLICIES = {
    "mlp": ("MlpPolicy", RandomEnv, {}),
    "cnn": ("CnnPolicy", lambda: RandomEnv(IMAGE), {}),
    "multi_input": ("MultiInputPolicy", lambda: RandomEnv(DICT), {}),
    "gsde": ("MlpPolicy", lambda: RandomEnv(action_space=CONTINUOUS), {"use_sde": True}),
}
OPTIMIZERS = {
    "adam": (th.optim.Adam, {}),
    "adamw_amsgrad": (th.optim.AdamW, {"amsgrad": True}),
    "sgd": (th.optim.SGD, {"momentum": 0.9}),
    "rmsprop": (th.optim.RMSprop, {"centered": True, "momentum": 0.5}),
    "adagrad": (th.optim.Adagrad, {}),
    "adadelta": (th.optim.Adadelta, {}),
    "adafactor": (th.optim.Adafactor, {}),
    "rprop": (th.optim.Rprop, {}),
    "nadam": (th.optim.NAdam, {}),
}


@pytest.mark.parametrize(("policy", "env", "kwargs"), POLICIES.values(), ids=POLICIES)
def test_our_models_are_read_as_by_torch(policy, env, kwargs):
    for content in weights_of(written(make_model(policy, env(), **kwargs).learn(32))):
        assert_read_as_by_torch(content)


@pytest.mark.parametrize("how", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_states_of_optimizers_are_read_as_by_torch(how):
    """The step size is a tensor here."""
    kind, kwargs = how
    layer = th.nn.Linear(3, 2)
    optimizer = kind(layer.parameters(), lr=0.1, **kwargs)
    layer(th.ones(3)).sum().backward()
    optimizer.step()
    optimizer.param_groups[0]["lr"] = th.tensor(0.5)
    assert_read_as_by_torch(saved(optimizer.state_dict()))


def test_models_of_sb3_are_read_as_by_torch():
    """SB3 writes the members with ``force_zip64``."""
    file = io.BytesIO()
    A2C("MlpPolicy", RandomEnv(), n_steps=4).learn(8).save(file)
    with zipfile.ZipFile(file) as archive:
        names = [name for name in archive.namelist() if name.endswith(".pth")]
        assert len(names) == 3
        for name in names:
            assert_read_as_by_torch(archive.read(name))
    assert {"policy.pth", "data"} <= set(read_archive(file))


class Extra(th.nn.Module):
    """A user's layer with an extra state."""

    def get_extra_state(self):
        return {"n": 3, "text": "ä\ud800", "nested": [1.5, (None, True, 2**200, -1)], 7: th.arange(3), "empty": [{}, (), []]}

    def set_extra_state(self, state):
        pass


def values():
    large, shared = th.arange(24.0).reshape(4, 6), th.nn.Parameter(th.ones(2, 3))
    return {
        "views": [large, large[1:3, ::2], large.t(), large[2], large[3:3], large.flatten()[5]],
        "expanded": th.ones(1).expand(4, 5),
        "nothing": [th.empty(0), th.empty(0, 3), th.empty(2, 0, dtype=th.int64), th.ones(2, 3).t()[:0]],
        "scalars": [th.tensor(1.5), th.tensor(True), th.tensor(float("nan"))],
        "channels last": th.randn(2, 3, 4, 4).to(memory_format=th.channels_last),
        "types": [th.arange(5).to(dtype) for dtype in DTYPES],
        "tied": OrderedDict(a=shared.detach(), b=shared.detach()),
        "parameter": th.nn.Parameter(th.ones(2), requires_grad=False),
        "batch norm": th.nn.Sequential(th.nn.BatchNorm1d(3), th.nn.LSTM(3, 2), Extra()).state_dict(),
        "many": [th.zeros(1) for _ in range(300)],
        "same": [large] * 3,
        "long": list(range(3000)),
        "keys": {1: 0, "a": 1, None: 2, 1.5: 3, -(2**59): 4},
    }


@pytest.mark.parametrize("key", values())
def test_values_are_read_as_by_torch(key):
    assert_read_as_by_torch(saved(values()[key]))


def test_views_of_one_storage_share_it_again():
    """Tied weights rely on it."""
    first, second = read_pickle(records(saved([(whole := th.arange(4.0)), whole[1:]])))
    first[2] = 9.0
    assert second[1] == 9.0


def test_tensors_of_a_gpu_are_read_on_the_cpu():
    content = records(saved({"a": th.arange(3.0)}))
    content["data.pkl"] = content["data.pkl"].replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0")
    assert b"cuda:0" in content["data.pkl"]
    assert_same(read_pickle(content), {"a": th.arange(3.0)})


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_big_endian_tensors_are_read_as_by_torch(dtype):
    content = records(saved(th.arange(5).to(dtype)))
    size = dtype.itemsize // (2 if dtype.is_complex else 1)
    content["data/0"] = np.frombuffer(content["data/0"], dtype=f"u{size}").byteswap().tobytes()
    content["byteorder"] = b"big"
    packed = write_archive({f"archive/{name}": record for name, record in content.items()})
    assert_same(read_pickle(content), th.load(io.BytesIO(packed), weights_only=True))
    assert_same(read_pickle(content), th.arange(5).to(dtype))


def test_torch_load_is_not_called(monkeypatch):
    """Its reader had security holes, and may have others."""
    content = saved({"a": th.ones(2)})
    monkeypatch.setattr(th, "load", None)
    assert_same(read_weights(content, "policy.pth", "model"), OrderedDict(a=th.ones(2)))


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.tuples(inner, inner) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=12,
)


@st.composite
def tensors(draw):
    """:return: any view of a storage that is large enough for it"""
    size = draw(st.lists(st.integers(0, 4), max_size=4))
    stride = [draw(st.integers(0, 7)) for _ in size]
    offset = draw(st.integers(0, 5))
    room = offset + 1 + sum((n - 1) * step for n, step in zip(size, stride, strict=True) if n)
    whole = th.arange(room + draw(st.integers(0, 3))).to(draw(st.sampled_from(DTYPES)))
    return whole.as_strided(size, stride, offset)


@settings(max_examples=150)
@given(st.lists(PLAIN | tensors(), max_size=4))
def test_any_value_is_read_as_by_torch(value):
    assert_read_as_by_torch(saved(value))


@settings(max_examples=300)
@given(st.data())
def test_damaged_pickles_are_refused_or_read_as_by_torch(data):
    content = records(saved({"a": th.arange(6.0).reshape(2, 3)[:, 1:], "b": [th.arange(3), 1, "x"]}))
    pickled = content["data.pkl"]
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(pickled) - 1))
        put = data.draw(
            st.binary(max_size=3) | st.sampled_from([b"]", b"}", b"h\x01", b"0", b"u", b"R", b"Q", b"\x8a\x01\xff"])
        )
        pickled = pickled[:place] + put + pickled[place + data.draw(st.integers(0, 3)) :]
    whole = write_archive({f"archive/{name}": record for name, record in {**content, "data.pkl": pickled}.items()})
    try:
        read_weights(whole, "policy.pth", "model.zip")
    except RefusedFileError as error:
        text = str(error)
    else:
        assert_read_as_by_torch(whole)
        return
    assert text.startswith("model.zip: 'policy.pth'")
