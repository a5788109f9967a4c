"""load() takes and compares what SB3's load() does, and its errors say whose fault they are."""

import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from helpers import RandomEnv, make_model
from holding import Holding, Remembering, assert_loaded, build
from sb3_contrib import TRPO
from stable_baselines3 import A2C, DQN, PPO
from torch import nn

from sb3_vpg import VPG, RandomSearch
from sb3_vpg.exceptions import RefusedFileError
from sb3_vpg.persistence.archives import read_archive


class Raising(Holding):
    """A class of the user's that raises an error since the model was saved."""

    error: Any = None

    def __init__(self, space: Any) -> None:
        super().__init__(space)
        if Raising.error is not None:
            raise Raising.error


@pytest.mark.parametrize("error", [TypeError("mine"), AssertionError("mine"), ValueError("mine"), KeyError("mine")], ids=repr)
def test_error_of_the_users_class_is_not_reported_as_a_damaged_file(error, model_path, monkeypatch):
    build(cls=Raising).save(model_path)
    monkeypatch.setattr(Raising, "error", error)
    with pytest.raises(
        ValueError, match=rf"could not be rebuilt: {type(error).__name__}: .*mine.*{__name__}:Raising"
    ) as refusal:
        VPG.load(model_path, device="cpu")
    assert not isinstance(refusal.value, RefusedFileError)
    assert refusal.value.__cause__ is error


@pytest.mark.parametrize("method", ["get_extra_state", "set_extra_state"])
@pytest.mark.parametrize("reader", ["load", "set_parameters"])
def test_error_of_a_method_of_the_users_class_is_not_reported_as_a_damaged_file(reader, method, model_path, monkeypatch):
    model = build(cls=Remembering, state="number")
    model.save(model_path)

    def fail(*_: Any) -> None:
        raise TypeError("mine")

    monkeypatch.setattr(Remembering, method, fail)
    with pytest.raises(ValueError, match=r"could not be rebuilt: TypeError: mine.*holding:Remembering") as refusal:
        VPG.load(model_path, device="cpu") if reader == "load" else model.set_parameters(model_path)
    assert not isinstance(refusal.value, RefusedFileError)


class BrokenEnv(RandomEnv):
    @property
    def observation_space(self) -> Any:
        raise TypeError("mine")

    @observation_space.setter
    def observation_space(self, space: Any) -> None:
        """The constructor sets it."""


def test_error_of_the_users_environment_is_not_reported_as_a_damaged_file(model_path):
    make_model().save(model_path)
    with pytest.raises(ValueError, match=r"could not be rebuilt: TypeError: mine.*:BrokenEnv") as refusal:
        VPG.load(model_path, BrokenEnv(), device="cpu")
    assert not isinstance(refusal.value, RefusedFileError)


def test_any_path_like_object_is_a_path_and_is_saved_as_plain_text(tmp_path):

    class Anywhere:
        def __fspath__(self) -> str:
            return str(tmp_path / "model.zip")

    for folder in (tmp_path / "tb", np.str_(tmp_path / "tb")):
        model = make_model(tensorboard_log=folder)
        model.mine = Path("a/b")
        model.save(Anywhere())
        assert json.loads(read_archive(Anywhere())["data"])["tensorboard_log"] == str(tmp_path / "tb")
        loaded = VPG.load(Anywhere(), device="cpu")
        assert (loaded.tensorboard_log, loaded.mine) == (str(tmp_path / "tb"), Path("a/b"))
        loaded.set_parameters(Anywhere())
    assert type(loaded.tensorboard_log) is str
    for wrong in (b"model", 3):
        with pytest.raises(ValueError, match="path must be a path or a binary file"):
            model.save(wrong)
        with pytest.raises(ValueError, match="tensorboard_log must be a path"):
            make_model(tensorboard_log=wrong)


def test_policy_kwargs_are_compared_as_sb3_compares_them(model_path):
    """The keyword must equal the stored value, as in A2C; custom_objects replaces it."""
    stored, other = {"net_arch": [8], "activation_fn": nn.Tanh}, {"net_arch": [8], "activation_fn": nn.ReLU}
    model = make_model(policy_kwargs=stored)
    model.save(model_path)
    assert_loaded(model, VPG.load(model_path, device="cpu", policy_kwargs=stored))
    with pytest.raises(
        ValueError, match=r"specified policy kwargs do not equal the stored policy kwargs.*custom_objects={'policy_kwargs'"
    ):
        VPG.load(model_path, device="cpu", policy_kwargs=other)
    assert VPG.load(model_path, device="cpu", custom_objects={"policy_kwargs": other}).policy.activation_fn is nn.ReLU


class WithOption(VPG):
    """A user's algorithm with a further argument."""

    attribute = 1

    def __init__(self, *args: Any, mine: int = 0, **kwargs: Any) -> None:
        self.mine = mine
        super().__init__(*args, **kwargs)


def test_keywords_replace_settings_and_unknown_ones_are_refused(model_path):
    env = make_model().get_env()
    make_model(policy_kwargs={"net_arch": [8]}).save(model_path)
    zoo = {"seed": 3, "tensorboard_log": None, "verbose": 0, "n_steps": 8, "monitor_wrapper": False, "_last_obs": None}
    loaded = VPG.load(model_path, env=env, device="cpu", **zoo, custom_objects={"learning_rate": 0.0, "clip_range": None})
    assert (loaded.n_steps, loaded.seed, loaded.rollout_buffer.buffer_size) == (8, 3, 8)
    loaded = WithOption.load(model_path, device="cpu", mine=5, attribute=6)
    assert (loaded.mine, loaded.attribute) == (5, 6)
    for keywords, says in (
        ({"foo": 3}, r"VPG\.load\(\) got an unexpected keyword argument 'foo'"),
        ({"gama": 0.5}, "did you mean 'gamma'"),
        ({"n_epochs": 4}, "n_critic_updates"),
        ({"mine": 5}, "'mine'"),
    ):
        with pytest.raises(TypeError, match=says):
            VPG.load(model_path, device="cpu", **keywords)


@pytest.mark.parametrize("trust", [False, True], ids=["", "trust"])
@pytest.mark.parametrize("algorithm", [A2C, PPO, TRPO, DQN, RandomSearch], ids=lambda cls: cls.__name__)
def test_model_of_another_algorithm_is_refused_as_such(algorithm, trust, model_path):
    policy = "LinearPolicy" if algorithm is RandomSearch else "MlpPolicy"
    algorithm(policy, "CartPole-v1", device="cpu").save(model_path)
    with pytest.raises(RefusedFileError, match=r"another algorithm than VPG .*load it with the class that saved it"):
        VPG.load(model_path, device="cpu", trust=trust)


def test_refusal_has_its_advice_as_an_attribute(model_path):
    """A command line replaces it by advice about its flags."""
    model = make_model()
    model.mine = lambda: 1
    with pytest.warns(UserWarning, match="mine"):
        model.save(model_path)
    with pytest.raises(RefusedFileError, match=r"holds pickles.*mine.*; if you made .*trust=True") as refusal:
        VPG.load(model_path, device="cpu")
    assert "trust=True" in refusal.value.advice
    assert "trust=True" not in refusal.value.reason
    assert str(refusal.value) == f"{refusal.value.reason}; {refusal.value.advice}"


def test_folder_does_not_hide_the_model_beside_it(tmp_path):
    """The zoo keeps a run's settings in ``CartPole-v1/`` beside ``CartPole-v1.zip``."""
    (tmp_path / "CartPole-v1").mkdir()
    model = make_model()
    model.save(tmp_path / "CartPole-v1.zip")
    for path in (tmp_path / "CartPole-v1", str(tmp_path / "CartPole-v1"), f"{tmp_path}/CartPole-v1/"):
        assert_loaded(model, VPG.load(path, device="cpu"))
        model.set_parameters(path)


def test_keys_of_a_dict_space_keep_their_order(model_path):
    """A space made of an OrderedDict does not sort its keys, and the features are concatenated in their order."""
    box = spaces.Box(-1.0, 1.0, (2,))
    env = RandomEnv(spaces.Dict(OrderedDict(b=box, a=spaces.Box(-1.0, 1.0, (3,)))))
    model = make_model("MultiInputPolicy", env).learn(32)
    model.save(model_path)
    loaded = VPG.load(model_path, env=env, device="cpu")
    assert list(loaded.observation_space.spaces) == ["b", "a"]
    for observation in [model.observation_space.sample() for _ in range(20)]:
        probabilities = [
            one.policy.get_distribution(one.policy.obs_to_tensor(observation)[0]).distribution.probs for one in (model, loaded)
        ]
        assert th.equal(*probabilities)


def test_environment_is_compared_with_the_stored_spaces(model_path):
    """The keyword action_space does not replace the stored one here, as in A2C."""
    a2c_path = model_path.with_name("a2c.zip")
    model, a2c = make_model(), A2C("MlpPolicy", RandomEnv(), device="cpu")
    model.save(model_path)
    a2c.save(a2c_path)
    other = RandomEnv(action_space=type(model.action_space)(5))
    for cls, path in ((A2C, a2c_path), (VPG, model_path)):
        with pytest.raises(ValueError, match="spaces do not match"):
            cls.load(path, env=other, device="cpu", action_space=other.action_space)
