"""Random arguments, YAML files and archives either work or raise a documented error with a message."""

import contextlib
import inspect
import io
import json
import math
import tempfile
import warnings
import zipfile
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch as th
import yaml
from helpers import RandomEnv, make_model
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sb3_vpg import VPG
from sb3_vpg.checkpoints.callback import TrainingCheckpoint
from sb3_vpg.checkpoints.files import latest, progress
from sb3_vpg.common.arguments import OnPolicyKwargs
from sb3_vpg.exceptions import RefusedFileError
from sb3_vpg.persistence.archives import write_archive
from sb3_vpg.zoo.cli import main

LONG = 100
WILD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 9),
    st.sampled_from([2**31, 2**63, 10**30, -(10**30), 10**400]),
    st.floats(),
    st.floats(0.0, 1.0),
    st.text(max_size=5),
    st.sampled_from(["MlpPolicy", "CnnPolicy", "lin_0.1", "lin_nan", "1e-3", "average", "none", "optimal", "cpu", "gpu"]),
    st.sampled_from([[], [1], {}, {"a": 1}, {1: 2}, {"net_arch": [-1]}, {"net_arch": [4]}, (1, 2), b"x", 1j]),
    st.sampled_from([np.zeros(3), np.array(0.5), np.array([1]), np.float32(0.5), np.int64(2), np.bool_(True)]),
    st.sampled_from([object(), int, len, th.nn.Tanh, RandomEnv, lambda progress: progress, lambda: 1, lambda _: math.nan]),
)
ARGUMENTS = [*inspect.signature(VPG).parameters, *OnPolicyKwargs.__annotations__]
ARGUMENTS = [name for name in ARGUMENTS if name not in ("kwargs", "policy", "env", "_init_setup_model", "tensorboard_log")]
# Words that a message may contain instead of the argument's name
OTHER_WORDS = {
    "use_sde": "gSDE|n_episodes",
    "sde_sample_freq": "sde",
    "policy_kwargs": "'a'|net_arch|dimension|size",
    "rollout_buffer_kwargs": "'a'",
    "vf_learning_rate": "learning_rate",
}


def learn_briefly(model: VPG) -> None:
    """Learn for one iteration. It may raise ValueError, but the weights stay finite."""
    counts = (model.n_steps, model.n_critic_updates, model.n_episodes or 0)
    if max(counts) < LONG:
        with contextlib.suppress(ValueError):
            model.learn(4)
        assert all(tensor.isfinite().all() for tensor in model.policy.state_dict().values())


@settings(max_examples=300)
@given(st.dictionaries(st.sampled_from(ARGUMENTS), WILD, min_size=1, max_size=2))
def test_arguments(arguments):
    """Any arguments give a model that learns, or a ValueError or TypeError that names one of them."""
    kwargs = {"n_steps": 4, "n_critic_updates": 1, "device": "cpu", "policy_kwargs": {"net_arch": [4]}, **arguments}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with contextlib.redirect_stdout(io.StringIO()):
            try:
                model = VPG("MlpPolicy", RandomEnv(), **kwargs)
            except (ValueError, TypeError) as error:
                text = str(error)
            else:
                learn_briefly(model)
                return
    named = [
        name for name in arguments if name in text or any(word in text for word in OTHER_WORDS.get(name, name).split("|"))
    ]
    assert named, text


@settings(max_examples=60)
@given(WILD, st.booleans())
def test_policies_and_environments(value, is_policy):
    """Any policy or environment gives a model, or a documented error with a message."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            VPG(value, RandomEnv()) if is_policy else VPG("MlpPolicy", value)
        except (ValueError, TypeError, AssertionError, gym.error.Error) as error:
            text = str(error)
        else:
            return
    assert text


YAML = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 2**40) | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)
SETTINGS = [
    "n_envs",
    "gamma",
    "n_critic_updates",
    "learning_rate",
    "policy_kwargs",
    "normalize",
    "env_wrapper",
    "seed",
    "frame_stack",
]
# Few enough steps for a test
SMALL = st.fixed_dictionaries({"n_timesteps": st.just(32), "n_steps": st.just(8), "policy": st.just("MlpPolicy")})
HYPERPARAMS = st.one_of(
    YAML,
    st.tuples(SMALL, st.dictionaries(st.sampled_from(SETTINGS), YAML.filter(lambda value: value != 2), max_size=2)).map(
        lambda parts: {**parts[0], **parts[1]}
    ),
)


def is_feasible(hyperparams):
    """:return: True if training with these hyperparameters takes little time and memory"""
    if not isinstance(hyperparams, dict):
        return True
    counts = [hyperparams.get(name, 1) for name in ("n_envs", "n_critic_updates", "frame_stack")]
    return all(not isinstance(count, (int, float)) or not count > 8 for count in counts)


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much])
@given(hyperparams=HYPERPARAMS.filter(is_feasible))
def test_hyperparameter_files(hyperparams, capsys):
    """Training succeeds, or exits with code 1, one line of text and no folder of a run."""
    with tempfile.TemporaryDirectory() as folder:
        conf, logs = Path(folder) / "conf.yml", Path(folder) / "logs"
        conf.write_text(yaml.safe_dump({"CartPole-v1": hyperparams}), encoding="utf-8")
        code = main(["train", "-conf", str(conf), "-f", str(logs), "-n", "32", "--eval-freq", "-1", "--verbose", "0"])
        message = capsys.readouterr().err
        if code == 0:
            return
        assert code == 1
        assert message.count("\n") == 1
        assert message.startswith("sb3-vpg train: ")
        assert not list(logs.glob("vpg/*_*"))
        report = Path(message.split("the traceback is in ")[1].strip().rstrip(")"))
        report.unlink()


@pytest.mark.parametrize(
    "content", [b"\xff\xfe", b"", b"- 1", b"a: [", b"!!python/object:os.system {}", b"{[1]: 2}", b"&a [*a]"]
)
def test_files_that_are_no_hyperparameters(content, tmp_path, capsys):
    conf = tmp_path / "conf.yml"
    conf.write_bytes(content)
    assert main(["train", "-conf", str(conf), "-f", str(tmp_path / "logs"), "-n", "32"]) == 1
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "conf.yml" in message
    Path(message.split("the traceback is in ")[1].strip().rstrip(")")).unlink()
    assert not list((tmp_path / "logs").glob("vpg/*_*"))


def opened(content):
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def model_file():
    file = io.BytesIO()
    make_model().learn(32).save(file)
    return file.getvalue()


def checkpoint_file():
    with tempfile.TemporaryDirectory() as folder:
        make_model().learn(32, TrainingCheckpoint(folder, verbose=0))
        return latest(folder).read_bytes()


MODEL, CHECKPOINT = model_file(), checkpoint_file()


def spliced(value, draw):
    """:return: the value with one part replaced"""
    if isinstance(value, dict) and value and draw(st.integers(0, 5)):
        key = draw(st.sampled_from(sorted(value)))
        return {**value, key: spliced(value[key], draw)}
    if isinstance(value, list) and value and draw(st.integers(0, 5)):
        place = draw(st.integers(0, len(value) - 1))
        return [*value[:place], spliced(value[place], draw), *value[place + 1 :]]
    return draw(
        st.one_of(YAML, st.sampled_from(["MlpPolicy", 10**12, -1, {"!tuple": [1]}, {"!array": ["<f4", [1], "AAAAAA=="]}]))
    )


@st.composite
def damaged(draw, content):
    """An archive with bytes changed, removed or inserted, members exchanged, or settings replaced."""
    how = draw(st.sampled_from(["flip", "cut", "insert", "swap", "member", "splice"]))
    place = draw(st.integers(0, len(content) - 1))
    if how == "flip":
        return content[:place] + bytes([content[place] ^ draw(st.integers(1, 255))]) + content[place + 1 :]
    if how == "cut":
        return content[:place] + content[place + draw(st.integers(1, 2000)) :]
    if how == "insert":
        return content[:place] + draw(st.binary(min_size=1, max_size=50)) + content[place:]
    members = opened(content)
    first, second = (draw(st.sampled_from(sorted(members))) for _ in range(2))
    if how == "swap":
        members[first], members[second] = members[second], members[first]
    elif how == "member":
        # With a correct checksum
        inner = members[first]
        place = draw(st.integers(0, len(inner)))
        members[first] = inner[:place] + draw(st.binary(max_size=9)) + inner[place + draw(st.integers(0, 9)) :]
    else:
        name = draw(st.sampled_from([name for name in ("data", "training.json") if name in members]))
        members[name] = json.dumps(spliced(json.loads(members[name]), draw)).encode()
    return write_archive(members)


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(damaged(MODEL))
def test_damaged_models(content):
    """A damaged file gives a model of finite weights, or a RefusedFileError that names the file."""
    try:
        model = VPG.load(io.BytesIO(content), device="cpu")
    except RefusedFileError as error:
        text = str(error)
    else:
        assert all(tensor.isfinite().all() for tensor in model.policy.state_dict().values())
        return
    assert text.startswith("the file")


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(damaged(CHECKPOINT))
def test_damaged_checkpoints(content):
    """A damaged checkpoint is read, or refused with an error that names the file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint_32_steps.zip"
        path.write_bytes(content)
        try:
            steps, total = progress(path)
        except RefusedFileError as error:
            text = str(error)
        else:
            assert steps >= 0
            assert total > 0
            return
        assert str(path) in text
