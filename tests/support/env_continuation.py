"""Restores the state of an environment in another one, and compares the steps of both to the last bit."""

from collections.abc import Callable
from contextlib import closing
from copy import deepcopy
from typing import Any

import gymnasium as gym
import numpy as np
from helpers import RandomEnv
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from sb3_vpg.checkpoints.env_state import get_state, set_state

Builder = Callable[[], VecEnv]


def bits(value: Any) -> Any:
    """:return: a value that is equal only for equal types and bits; times are left out"""
    if isinstance(value, dict):
        return {key: bits(item) for key, item in value.items() if key not in ("t", "_t")}
    if isinstance(value, (list, tuple)):
        return type(value), [bits(item) for item in value]
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    return type(value), repr(value)


def play(env: VecEnv, steps: int, seed: int) -> tuple[list[Any], int]:
    """:return: the results of steps with random actions, and the number of ended episodes"""
    space = deepcopy(env.action_space)
    space.seed(seed)
    results, ended = [], 0
    for _ in range(steps):
        result = env.step(np.array([space.sample() for _ in range(env.num_envs)]))
        results.append(bits(result))
        ended += int(result[2].sum())
    return results, ended


def assert_continues(build: Builder, before: int = 37, after: int = 80, seed: int = 0, used: int = 0) -> int:
    """
    :param before: steps before the state is taken
    :param after: steps to compare
    :param used: steps of the other environment before the state is restored; 0: it has not been reset
    :return: the number of episodes that ended after the state was taken
    """
    with closing(build()) as env, closing(build()) as anew:
        env.seed(seed)
        env.reset()
        play(env, before, seed)
        state = deepcopy(get_state(env))
        assert state["missing"] is None
        assert_plain(state)
        expected, ended = play(env, after, seed + 1)
        if used:
            anew.seed(seed + 100)
            anew.reset()
            play(anew, used, seed + 3)
        assert set_state(anew, state) is None
        for step, (result, wanted) in enumerate(zip(play(anew, after, seed + 1)[0], expected, strict=True)):
            assert result == wanted, f"step {step} differs"
        assert bits(anew.reset()) == bits(env.reset())
    return ended


def assert_plain(value: Any) -> None:
    if isinstance(value, dict):
        assert type(value) is dict
        assert_plain(list(value))
        assert_plain(list(value.values()))
    elif isinstance(value, (list, tuple)):
        assert type(value) in (list, tuple)
        for item in value:
            assert_plain(item)
    elif not isinstance(value, np.generic):
        assert type(value) in (type(None), bool, int, float, str, np.ndarray)
        assert not isinstance(value, np.ndarray) or not value.dtype.hasobject


def registered(name: str, n_envs: int) -> VecEnv:
    return make_vec_env(name, n_envs, env_kwargs={"max_episode_steps": 23})


def cart_poles(n_envs: int = 3) -> VecEnv:
    return registered("CartPole-v1", n_envs)


class World:
    """State that is not plain."""

    def __init__(self) -> None:
        self.position = 0.0


class HidingEnv(RandomEnv):
    def __init__(self) -> None:
        super().__init__()
        self.world = World()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, _, terminated, truncated, info = super().step(action)
        self.world.position += self.np_random.normal()
        return observation, self.world.position, terminated, truncated, info


def holding(value: Any) -> Builder:
    """:return: a function that makes two environments, of which the second has ``value`` in its attribute ``thing``"""

    def made() -> gym.Env:
        env = RandomEnv()
        env.thing = value() if value is World else value  # type: ignore[attr-defined]
        return env

    return lambda: DummyVecEnv([RandomEnv, lambda: Monitor(made())])
