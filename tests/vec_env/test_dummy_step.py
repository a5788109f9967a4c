"""The fast step of a ``DummyVecEnv`` returns what ``DummyVecEnv.step`` returns, and shares no memory with the environments."""

from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from helpers import CONTINUOUS, DICT, IMAGE, RandomEnv, make_model
from sb3_loop import assert_same
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_vpg.vec_env.fast_step import fast_step


class SameInfo(RandomEnv):
    """Returns the same info object in every step, with arrays that it writes to."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.info: dict[str, Any] = {"speed": np.zeros(2), "nested": {"list": [0], "place": np.zeros(1)}}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.info["speed"] += 1.0
        self.info["nested"]["list"].append(self.steps)
        self.info["nested"]["place"] -= 1.0
        return *super().step(action)[:-1], self.info


class SameEmptyInfo(RandomEnv):
    """Returns the same empty info each time, to which ``DummyVecEnv`` writes."""

    def __init__(self) -> None:
        super().__init__()
        self.info: dict[str, Any] = {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return *super().step(action)[:-1], self.info


class SameObservation(RandomEnv):
    """Writes every observation, the age of the episode, to the same memory."""

    def __init__(self) -> None:
        super().__init__(observation_space=spaces.Box(0.0, 10.0, (1,), np.float32))
        self.observation = np.zeros(1, np.float32)

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        super().reset(**kwargs)
        self.observation[:] = 0.0
        return self.observation, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        _, *rest = super().step(action)
        self.observation += 1.0
        return self.observation, *rest


class NumpyFlags(RandomEnv):
    """Returns NumPy scalars as rewards and flags; some steps are terminated and truncated at once."""

    def step(self, action: Any) -> Any:
        observation, reward, terminated, truncated, info = super().step(action)
        both = terminated or truncated
        return observation, np.float64(reward), np.bool_(terminated), np.bool_(both), info


ENVS = {
    "vector": RandomEnv,
    "box_actions": partial(RandomEnv, action_space=CONTINUOUS),
    "dict": partial(RandomEnv, observation_space=DICT),
    "image": partial(RandomEnv, observation_space=IMAGE),
    "discrete": partial(RandomEnv, observation_space=spaces.Discrete(5)),
    "monitored": lambda: Monitor(RandomEnv()),
    "one_info": SameInfo,
    "one_empty_info": SameEmptyInfo,
    "numpy_flags": NumpyFlags,
    "cartpole": lambda: gym.make("CartPole-v1"),
}


def pair(kind: str, n_envs: int = 3) -> tuple[DummyVecEnv, DummyVecEnv]:
    first, second = (DummyVecEnv([ENVS[kind]] * n_envs) for _ in range(2))
    for env in (first, second):
        env.seed(4)
        env.reset()
    return first, second


@pytest.mark.parametrize("n_envs", [1, 3])
@pytest.mark.parametrize("kind", ENVS)
def test_every_transition_equals_that_of_sb3(kind, n_envs):
    """Equal in value and type are observations, rewards, dones, infos with the last observations, and infos of resets."""
    fast, slow = pair(kind, n_envs)
    step = fast_step(fast)
    assert step != fast.step
    fast.action_space.seed(0)
    ends = 0
    for _ in range(40):
        actions = np.stack([fast.action_space.sample() for _ in range(n_envs)])
        ours, theirs = step(actions), slow.step(actions)
        assert_same(ours, theirs, rtol=0, atol=0)
        for one, other in zip(ours[1:3], theirs[1:3], strict=True):
            assert (one.dtype, one.shape) == (other.dtype, other.shape)
        for one, other in zip(ours[3], theirs[3], strict=True):
            assert one.keys() == other.keys()
            assert type(one["TimeLimit.truncated"]) is type(other["TimeLimit.truncated"])
        assert_same(fast.reset_infos, slow.reset_infos)
        assert_same(dict(fast.buf_obs), dict(slow.buf_obs), rtol=0, atol=0)
        np.testing.assert_array_equal(fast.actions, slow.actions)
        ends += int(ours[2].sum())
    assert ends >= n_envs


def deep_copy(x: Any) -> Any:
    """:return: a copy of what a step returned, with arrays instead of numbers"""
    if isinstance(x, dict):
        return {key: deep_copy(value) for key, value in x.items()}
    if isinstance(x, (list, tuple)):
        return [deep_copy(value) for value in x]
    return np.array(x, copy=True)


@pytest.mark.parametrize("kind", ENVS)
def test_what_a_step_returned_does_not_change_later(kind):
    """Neither later steps nor resets write to observations, rewards, dones, infos and last observations."""
    env, _ = pair(kind)
    step, returned, copies = fast_step(env), [], []
    for _ in range(15):
        returned.append(step(np.stack([env.action_space.sample() for _ in range(3)])))
        copies.append(deep_copy(returned[-1]))
    env.reset()
    assert_same(returned, copies, rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["one_info", "dict", "monitored", "one_empty_info"])
def test_writing_to_what_a_step_returned_does_not_change_the_environment(kind):
    """A wrapper may scale observations in place or add an entry to an info."""
    changed, slow = pair(kind)
    step = fast_step(changed)
    changed.action_space.seed(0)
    for _ in range(15):
        actions = np.stack([changed.action_space.sample() for _ in range(3)])
        ours, theirs = step(actions), slow.step(actions)
        assert_same(ours, theirs, rtol=0, atol=0)
        for array in [*(ours[0].values() if isinstance(ours[0], dict) else [ours[0]]), ours[1], ours[2]]:
            array[...] = 1
        for info in ours[3]:
            info["mine"] = True
            if "speed" in info:
                info["speed"][...] = np.nan
                info["nested"]["list"].clear()


def test_the_last_observation_is_that_of_the_episode_that_ended():
    """This holds even if the reset writes to the same memory; SB3's own step then returns the reset's observation."""
    env = DummyVecEnv([SameObservation])
    step, observed = fast_step(env), env.reset().flatten().tolist()
    for _ in range(7):
        observations, _, dones, infos = step(np.zeros(1, int))
        observed += [*infos[0].get("terminal_observation", []), *observations.flatten()] if dones[0] else [observations.item()]
    assert observed == [0, 1, 2, 3, 4, 5, 6, 0, 1]


class MyVecEnv(DummyVecEnv):
    """A user's subclass."""

    def step_wait(self) -> Any:
        observations, rewards, dones, infos = super().step_wait()
        return observations, rewards + 100.0, dones, infos


def patched(name: str) -> DummyVecEnv:
    env = DummyVecEnv([RandomEnv])
    setattr(env, name, getattr(env, name))
    return env


OTHERS = {
    "subclass": lambda: MyVecEnv([RandomEnv]),
    **{
        f"patched_{name}": partial(patched, name) for name in ("step", "step_async", "step_wait", "_save_obs", "_obs_from_buf")
    },
}


@pytest.mark.parametrize("make", OTHERS.values(), ids=OTHERS.keys())
def test_other_environments_step_themselves(make):
    """These are a subclass, and an environment of which a method was replaced."""
    env = make()
    assert fast_step(env) == env.step


def test_a_model_gets_the_rewards_of_a_subclass():
    model = make_model(env=MyVecEnv([RandomEnv])).learn(16)
    assert model.rollout_buffer.rewards.min() > 50


def test_environments_that_were_replaced_are_stepped():
    """A callback may set ``env.envs[0] = Wrapper(env.envs[0])``."""
    env, _ = pair("vector", 2)
    step = fast_step(env)

    class Rich(gym.RewardWrapper):
        def reward(self, reward):
            return 1000.0

    env.envs[1] = Rich(env.envs[1])
    _, rewards, _, _ = step(np.zeros(2, int))
    assert rewards[0] < 1000.0 == rewards[1]
