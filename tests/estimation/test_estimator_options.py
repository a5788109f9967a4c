"""All combinations of the estimator's options, and baselines that need no critic."""

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from helpers import RandomEnv
from mdps import ScriptedEnv, play
from stable_baselines3.common.buffers import DictRolloutBuffer, RolloutBuffer
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_vpg import VPG
from sb3_vpg.collection.buffers import EpisodeDictRolloutBuffer, EpisodeRolloutBuffer

BASELINES = ["value", "none", "average", "leave_one_out", "optimal"]
# Terminated and timed-out episodes with different returns
SCRIPT = [([1.0, 2.0, -1.0], False), ([3.0], True), ([0.5, 4.0], True), ([2.0, 2.0], False)]


class OwnBuffer(RolloutBuffer):
    """A user's buffer."""


def make(n_envs: int = 2, policy: str = "MlpPolicy", **options: Any) -> VPG:
    # Each environment begins with another episode, since equal returns would make all advantages 0
    env = DummyVecEnv([lambda i=i: ScriptedEnv(SCRIPT[i:] + SCRIPT[:i]) for i in range(n_envs)])
    arguments: dict[str, Any] = {"n_steps": 5, "n_critic_updates": 1, "seed": 0, "device": "cpu", **options}
    model = VPG(policy, env, policy_kwargs={"net_arch": {"pi": [], "vf": [4]}}, **arguments)
    model.set_logger(Logger(folder=None, output_formats=[]))
    return model


# The defined pairs (reward_to_go, discount_steps): for rollouts of fixed length; for several episodes; for a single episode
PLAIN, REINFORCE, DISCOUNTED = (True, False), (False, False), (True, True)
DEFINED: dict[str, tuple[list[tuple[bool, bool]], ...]] = {
    "value": ([PLAIN], [PLAIN, DISCOUNTED], [PLAIN, DISCOUNTED]),
    "none": ([PLAIN], [PLAIN, REINFORCE, DISCOUNTED], [PLAIN, REINFORCE, DISCOUNTED]),
    "average": ([PLAIN], [PLAIN, REINFORCE, DISCOUNTED], [PLAIN, REINFORCE, DISCOUNTED]),
    "leave_one_out": ([], [PLAIN, REINFORCE, DISCOUNTED], []),
    "optimal": ([], [PLAIN, REINFORCE, DISCOUNTED], []),
}


def is_defined(
    baseline: str, n_episodes: int | None, n_envs: int, reward_to_go: bool, discount_steps: bool, own: bool
) -> bool:
    column = 0 if n_episodes is None else 2 if n_episodes * n_envs == 1 else 1
    allowed = (reward_to_go, discount_steps) in DEFINED[baseline][column]
    return allowed and (not own or (baseline == "value" and n_episodes is None))


def named_options(
    baseline: str, n_episodes: int | None, n_envs: int, reward_to_go: bool, discount_steps: bool, own: bool
) -> set[str]:
    """:return: the options that the error may name: those that differ from the constructor's defaults"""
    given = {
        "baseline": baseline != "value",
        "n_episodes": n_episodes is not None,
        "reward_to_go": not reward_to_go,
        "discount_steps": discount_steps,
        "rollout_buffer_class": own,
    }
    return {name for name, differs in given.items() if differs}


@pytest.mark.parametrize("own", [False, True], ids=["", "own_buffer"])
@pytest.mark.parametrize("discount_steps", [False, True], ids=["", "discount_steps"])
@pytest.mark.parametrize("reward_to_go", [True, False], ids=["to_go", "total"])
@pytest.mark.parametrize("n_envs", [1, 2])
@pytest.mark.parametrize("n_episodes", [None, 1, 2])
@pytest.mark.parametrize("baseline", BASELINES)
def test_defined_combinations_train_and_others_are_refused(
    baseline: Any, n_episodes: int | None, n_envs: int, reward_to_go: bool, discount_steps: bool, own: bool
) -> None:
    case = (baseline, n_episodes, n_envs, reward_to_go, discount_steps, own)
    options: dict[str, Any] = {"baseline": baseline, "n_episodes": n_episodes, "reward_to_go": reward_to_go}
    options |= {"discount_steps": discount_steps, "rollout_buffer_class": OwnBuffer if own else None}
    if not is_defined(*case):
        with pytest.raises(ValueError, match="|".join(named_options(*case))):
            make(n_envs, **options)
        return
    model = make(n_envs, **options)
    before = [parameter.clone() for parameter in model.policy.parameters()]
    model.learn(1)
    assert model._n_updates == 1
    after = list(model.policy.parameters())
    assert all(th.isfinite(parameter).all() for parameter in after)
    assert any(not th.equal(old, new) for old, new in zip(before, after, strict=True))
    assert own == (type(model.rollout_buffer) is OwnBuffer)


def test_the_number_of_defined_combinations() -> None:
    options = itertools.product(BASELINES, [None, 1, 2], [1, 2], [True, False], [True, False], [True, False])
    # Rollouts of fixed length, with one and two environments: value, none, average, and value with the user's buffer
    n_fixed = 2 * 4
    # Episodes, for (n_episodes, n_envs) of (1, 1), (1, 2), (2, 1) and (2, 2); leave_one_out and optimal refuse (1, 1)
    n_episodic = 4 * 2 + 2 * 4 * 3 + 2 * 3 * 3
    assert sum(is_defined(*option) for option in options) == n_fixed + n_episodic


BAD: dict[str, dict[str, Any]] = {
    "baseline": {"baseline": "critic"},
    "baseline_none": {"baseline": None},
    "n_episodes_zero": {"n_episodes": 0},
    "n_episodes_negative": {"n_episodes": -2},
    "n_episodes_float": {"n_episodes": 2.0},
    "n_episodes_text": {"n_episodes": "2"},
}


@pytest.mark.parametrize("options", BAD.values(), ids=BAD.keys())
def test_values_out_of_range_are_refused_by_name(options: dict[str, Any]) -> None:
    (name, value), *_ = options.items()
    with pytest.raises(ValueError, match=f"{name} must .*{value}"):
        make(**options)


def test_a_model_is_checked_again_when_it_is_loaded(tmp_path: Path) -> None:
    """With one environment and one episode, ``leave_one_out`` has no other episode to compare with."""
    make(2, baseline="leave_one_out", n_episodes=1).save(tmp_path / "model.zip")
    with pytest.raises(ValueError, match=r"leave_one_out.*n_episodes=1"):
        VPG.load(tmp_path / "model.zip", env=DummyVecEnv([lambda: ScriptedEnv(SCRIPT)]))
    VPG.load(tmp_path / "model.zip", env=DummyVecEnv([lambda: ScriptedEnv(SCRIPT)]), n_episodes=2).learn(1)


BOXES = spaces.Dict({"first": spaces.Box(-1.0, 1.0, (2,), np.float32)})


class OwnDictBuffer(DictRolloutBuffer):
    """A user's buffer."""


@pytest.mark.parametrize("n_episodes", [None, 2], ids=["steps", "episodes"])
@pytest.mark.parametrize(
    ("kind", "space"),
    [
        (DictRolloutBuffer, BOXES["first"]),
        (EpisodeDictRolloutBuffer, BOXES["first"]),
        (OwnDictBuffer, BOXES["first"]),
        (RolloutBuffer, BOXES),
        (EpisodeRolloutBuffer, BOXES),
    ],
)
def test_a_buffer_that_does_not_fit_the_observations_is_refused(kind: Any, space: Any, n_episodes: int | None) -> None:
    """The message names a buffer that works; SB3 fails later with an unrelated error."""
    policy = "MultiInputPolicy" if space is BOXES else "MlpPolicy"
    expected = DictRolloutBuffer if space is BOXES else RolloutBuffer
    with pytest.raises(ValueError, match=rf"{kind.__name__} does not fit .* leave it out, or use {expected.__name__}"):
        VPG(policy, RandomEnv(space), rollout_buffer_class=kind, n_episodes=n_episodes)
    for right in (None, expected):
        VPG(policy, RandomEnv(space), rollout_buffer_class=right, n_episodes=n_episodes, n_steps=8).learn(8)


CRITIC_FREE: dict[str, dict[str, Any]] = {
    "none": {"baseline": "none", "n_episodes": 2},
    "none_n_steps": {"baseline": "none"},
    "average": {"baseline": "average", "n_episodes": 2},
    "average_n_steps": {"baseline": "average"},
    "leave_one_out": {"baseline": "leave_one_out", "n_episodes": 2},
    "optimal": {"baseline": "optimal", "n_episodes": 2},
    "total_return": {"baseline": "none", "n_episodes": 2, "reward_to_go": False},
}


@pytest.mark.parametrize("policy", ["MlpPolicy", "LinearPolicy"])
@pytest.mark.parametrize("options", CRITIC_FREE.values(), ids=CRITIC_FREE.keys())
def test_without_a_critic_no_value_is_computed(options: dict[str, Any], policy: str, monkeypatch: Any) -> None:
    """The critic's networks would raise, also at time-outs and at the end of a rollout. Its weights are not trained."""
    model = make(2, policy, **options)
    critic = [*model.policy.value_net.parameters(), *model.policy.mlp_extractor.value_net.parameters()]
    actor = model.policy.action_net

    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("a value was asked for")

    for network in (model.policy.value_net, model.policy.mlp_extractor.value_net):
        network.register_forward_hook(fail)
    monkeypatch.setattr(type(model.policy), "predict_values", fail)
    before, critic_before = actor.weight.clone(), [parameter.clone() for parameter in critic]
    model.learn(40, log_interval=1)
    model.predict(np.zeros((2, 2), dtype=np.float32))

    assert model._n_updates > 2
    assert not th.equal(actor.weight, before)
    assert all(th.isfinite(parameter).all() for parameter in actor.parameters())
    assert all(th.equal(old, new) for old, new in zip(critic_before, critic, strict=True))
    assert not model.critic_optimizer.state, "it has never stepped"
    assert not {"train/value_loss", "train/explained_variance"} & set(model.logger.name_to_value)
    assert all(np.isfinite(value) for key, value in model.logger.name_to_value.items() if key.startswith("train/"))


@pytest.mark.parametrize("options", CRITIC_FREE.values(), ids=CRITIC_FREE.keys())
def test_without_a_critic_its_weights_do_not_matter(options: dict[str, Any]) -> None:
    """Two runs that differ only in the critic's weights, NaN in one of them, end with the same policy to the last bit."""
    actors = []
    for fill in (0.0, float("nan")):
        model = make(2, **options)
        with th.no_grad():
            for parameter in (*model.policy.value_net.parameters(), *model.policy.mlp_extractor.value_net.parameters()):
                parameter.fill_(fill)
        actors.append(model.learn(40).policy.action_net.weight)
    assert th.isfinite(actors[0]).all()
    assert th.equal(*actors)


@pytest.mark.parametrize("options", CRITIC_FREE.values(), ids=CRITIC_FREE.keys())
def test_without_a_critic_a_time_out_is_an_end(options: dict[str, Any]) -> None:
    """The buffer holds the environment's rewards, to which SB3 would have added a value."""
    model = make(1, **options)
    play(model)
    buffer = model.rollout_buffer
    where = buffer.observations.reshape(-1, 2).astype(int)
    expected = [SCRIPT[number % len(SCRIPT)][0][age] for number, age in where]
    np.testing.assert_array_equal(buffer.rewards[:, 0], expected)
    assert any(SCRIPT[number % len(SCRIPT)][1] for number, _ in where), "no time-out was seen"
    assert not buffer.values.any()


def test_a_model_without_a_critic_is_saved_and_loaded(tmp_path: Path) -> None:
    model = make(2, baseline="leave_one_out", n_episodes=2).learn(30)
    model.save(tmp_path / "model.zip")
    loaded = VPG.load(tmp_path / "model.zip", env=model.get_env())
    assert not loaded.critic_optimizer.state
    assert loaded.baseline == "leave_one_out"
    assert loaded.n_episodes == 2
    for old, new in zip(model.policy.parameters(), loaded.policy.parameters(), strict=True):
        assert th.equal(old, new)
    assert str(loaded.policy.optimizer.state_dict()) == str(model.policy.optimizer.state_dict())
    loaded.learn(30)


@pytest.mark.parametrize("baseline", ["leave_one_out", "optimal"])
def test_episodes_that_share_their_gsde_noise_are_refused(baseline: Any) -> None:
    """Such episodes are not independent, so they are refused; one episode in each of several environments is allowed."""
    with pytest.raises(ValueError, match="share their noise"):
        VPG("MlpPolicy", "Pendulum-v1", baseline=baseline, n_episodes=2, use_sde=True)
    VPG("MlpPolicy", make_vec_env("Pendulum-v1", 2), baseline=baseline, n_episodes=1, use_sde=True)


@pytest.mark.parametrize(("saved", "wanted"), [("value", "none"), ("none", "value")])
def test_a_model_is_loaded_with_another_baseline(tmp_path: Path, saved: Any, wanted: Any) -> None:
    VPG("MlpPolicy", "CartPole-v1", n_steps=32, baseline=saved).learn(64).save(tmp_path / "model")
    VPG.load(tmp_path / "model", env=make_vec_env("CartPole-v1"), baseline=wanted).learn(64)


def test_a_broken_return_does_not_stay_in_the_average() -> None:
    model = VPG("MlpPolicy", "CartPole-v1", n_steps=32, baseline="average").learn(64)
    average = model._average_return
    model.rollout_buffer.reset()
    model.rollout_buffer.rewards[:] = math.nan
    model._compute_advantages(model.rollout_buffer)
    assert model._average_return == average
