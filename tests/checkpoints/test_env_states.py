"""An environment that is built anew continues from a restored state to the last bit."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from env_continuation import Builder, HidingEnv, World, assert_continues, bits, cart_poles, play, registered
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from helpers import DICT, IMAGE, VECTOR, RandomEnv
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    VecCheckNan,
    VecEnv,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
    VecTransposeImage,
)
from vector_envs import DISABLED, SAME_STEP, talkative

from sb3_vpg.checkpoints.env_state import get_state, set_state
from sb3_vpg.vec_env.gym_vec_env import GymVecEnv
from sb3_vpg.vec_env.gym_vec_env import make_vec_env as make_gym_vec_env
from sb3_vpg.wrappers import SurvivalReward

LIGHT = sorted(
    name
    for name, spec in gym.registry.items()
    if str(spec.entry_point).startswith(("gymnasium.envs.classic_control", "gymnasium.envs.toy_text"))
)


@pytest.mark.filterwarnings("ignore:.*out of date")
@pytest.mark.parametrize("used", [0, 11], ids=["new", "used"])
@pytest.mark.parametrize("n_envs", [1, 3])
@pytest.mark.parametrize("name", LIGHT)
def test_gymnasiums_environments_continue(name: str, n_envs: int, used: int) -> None:
    assert assert_continues(lambda: registered(name, n_envs), used=used) >= 3 * n_envs


def test_the_environments_above_exist() -> None:
    names = {name.split("-")[0] for name in LIGHT}
    assert {"CartPole", "Acrobot", "MountainCar", "MountainCarContinuous", "Pendulum"} <= names
    assert {"FrozenLake", "FrozenLake8x8", "CliffWalking", "Taxi", "Blackjack"} <= names


def test_a_random_map_is_part_of_the_state() -> None:
    def build() -> VecEnv:
        return make_vec_env("FrozenLake-v1", 2, env_kwargs={"desc": None, "map_name": None})

    assert assert_continues(build) > 0


BOXES = spaces.Dict({"vector": VECTOR, "image": IMAGE})


def dicts(space: spaces.Dict = DICT) -> VecEnv:
    return DummyVecEnv([lambda: RandomEnv(space)] * 2)


def images() -> VecEnv:
    return DummyVecEnv([lambda: RandomEnv(IMAGE)] * 2)


STACKS: dict[str, Builder] = {
    "VecNormalize": lambda: VecNormalize(cart_poles()),
    "VecNormalize, rewards": lambda: VecNormalize(cart_poles(), norm_obs=False, gamma=0.9),
    "VecFrameStack": lambda: VecFrameStack(cart_poles(), 3),
    "VecNormalize of frames": lambda: VecNormalize(VecFrameStack(cart_poles(), 3)),
    "frames of VecNormalize": lambda: VecFrameStack(VecNormalize(cart_poles()), 3),
    "VecMonitor": lambda: VecMonitor(DummyVecEnv([RandomEnv] * 2)),
    "VecCheckNan": lambda: VecCheckNan(cart_poles()),
    "dicts": dicts,
    "dicts, VecNormalize": lambda: VecNormalize(dicts(), norm_obs_keys=["vector"]),
    "dicts, VecFrameStack": lambda: VecFrameStack(VecTransposeImage(dicts(BOXES)), 2),
    "images": lambda: VecTransposeImage(VecFrameStack(images(), 2)),
    "Box actions": lambda: VecNormalize(DummyVecEnv([lambda: RandomEnv(action_space=VECTOR)])),
}


@pytest.mark.parametrize("used", [0, 8], ids=["new", "used"])
@pytest.mark.parametrize("build", STACKS.values(), ids=STACKS)
def test_vec_env_wrappers_continue(build: Builder, used: int) -> None:
    assert assert_continues(build, used=used) > 0


def wrapped(wrap: Callable[[gym.Env], gym.Env]) -> Builder:
    return lambda: DummyVecEnv([lambda: Monitor(wrap(gym.make("CartPole-v1", max_episode_steps=15)))] * 2)


def rescaled(env: gym.Env) -> gym.Env:
    space = spaces.Box(-np.inf, np.inf, (4,), np.float32)
    return gym.wrappers.TransformObservation(env, lambda observation: observation * np.float32(0.5), space)


WRAPPERS: dict[str, Callable[[gym.Env], gym.Env]] = {
    "NormalizeObservation": gym.wrappers.NormalizeObservation,
    "NormalizeReward": gym.wrappers.NormalizeReward,
    "FrameStackObservation": lambda env: gym.wrappers.FrameStackObservation(env, 3, padding_type="zero"),
    "DelayObservation": lambda env: gym.wrappers.DelayObservation(env, 2),
    "RecordEpisodeStatistics": lambda env: gym.wrappers.RecordEpisodeStatistics(env, buffer_length=4),
    "StickyAction": lambda env: gym.wrappers.StickyAction(env, 0.5),
    "TimeAwareObservation": gym.wrappers.TimeAwareObservation,
    "TransformObservation": rescaled,
    "SurvivalReward": SurvivalReward,
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_gymnasiums_wrappers_continue(wrap: Callable[[gym.Env], gym.Env]) -> None:
    assert assert_continues(wrapped(wrap)) > 0


def sync(mode: AutoresetMode) -> Builder:
    return lambda: GymVecEnv(SyncVectorEnv(talkative(3), autoreset_mode=mode))


VECTORS: dict[str, Builder] = {
    "native": lambda: make_gym_vec_env("CartPole-v1", 5, env_kwargs={"max_episode_steps": 12}),
    "native, VecNormalize": lambda: VecNormalize(make_gym_vec_env("CartPole-v1", 5)),
    "sync": sync(SAME_STEP),
    "sync, disabled": sync(DISABLED),
    "sync, observations copied": lambda: GymVecEnv(SyncVectorEnv(talkative(2), autoreset_mode=SAME_STEP, copy=False)),
    "sync CartPole": lambda: make_gym_vec_env("CartPole-v1", 3, vectorization_mode="sync"),
    "sync in wrappers": lambda: GymVecEnv(
        gym.wrappers.vector.RecordEpisodeStatistics(
            gym.wrappers.vector.NormalizeReward(SyncVectorEnv(talkative(3), autoreset_mode=SAME_STEP)), stats_key="stats"
        )
    ),
}


@pytest.mark.parametrize("used", [0, 8], ids=["new", "used"])
@pytest.mark.parametrize("build", VECTORS.values(), ids=VECTORS)
def test_gymnasiums_vector_environments_continue(build: Builder, used: int) -> None:
    assert assert_continues(build, used=used) > 0


@settings(max_examples=30)
@given(
    build=st.sampled_from([cart_poles, dicts, VECTORS["native"], STACKS["VecNormalize of frames"]]),
    before=st.integers(0, 60),
    after=st.integers(1, 60),
    seed=st.integers(0, 2**31),
    used=st.integers(0, 30),
)
def test_the_state_can_be_taken_between_any_two_steps(build: Builder, before: int, after: int, seed: int, used: int) -> None:
    assert_continues(build, before, after, seed, used)


def test_seed_and_options_for_the_first_reset_are_restored() -> None:
    first, second = cart_poles(), cart_poles()
    first.seed(5)
    first.set_options({"low": 0.01, "high": 0.02})
    assert set_state(second, get_state(first)) is None
    observations = second.reset()
    np.testing.assert_array_equal(observations, first.reset())
    assert (observations >= 0.01).all()


@pytest.mark.parametrize("build", [STACKS["VecNormalize of frames"], VECTORS["native"], sync(SAME_STEP)])
def test_the_state_is_a_copy(build: Builder) -> None:
    """Later steps change it neither in the environment that it was taken from nor in the one that it was restored in."""
    first, second = build(), build()
    first.seed(0)
    first.reset()
    play(first, 10, 0)
    state = get_state(first)
    as_taken = bits(state)
    play(first, 30, 1)
    assert bits(state) == as_taken
    set_state(second, state)
    play(second, 30, 2)
    assert bits(state) == as_taken


class StateDictEnv(HidingEnv):
    """Its ``state_dict`` holds the position of the world, which is not plain, and its own counters."""

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.world.position, "rest": (self.steps, self.episodes, getattr(self, "age", 0))}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.world.position = state["position"]
        self.steps, self.episodes, self.age = state["rest"]


class StateDictVecEnv(DummyVecEnv):
    """Its ``state_dict`` holds only the positions of its environments, which therefore start new episodes."""

    def state_dict(self) -> dict[str, Any]:
        return {"positions": [env.unwrapped.world.position for env in self.envs]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for env, position in zip(self.envs, state["positions"], strict=True):
            env.unwrapped.world.position = position


@pytest.mark.parametrize("used", [0, 8], ids=["new", "used"])
def test_an_environment_with_state_dict_continues(used: int) -> None:
    """Its ``state_dict`` need not hold ``np_random`` and the random streams of its spaces."""
    assert assert_continues(lambda: DummyVecEnv([lambda: Monitor(StateDictEnv())] * 2), used=used) > 0


def test_a_vec_env_with_state_dict_is_restored() -> None:
    first, second = StateDictVecEnv([HidingEnv] * 2), StateDictVecEnv([HidingEnv] * 2)
    first.reset()
    play(first, 9, 0)
    assert set_state(second, get_state(first)) is None
    assert second.get_attr("world")[1].position == first.get_attr("world")[1].position != 0.0


def test_infos_of_resets_need_not_be_plain() -> None:
    class HidingInfos(RandomEnv):
        def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
            return super().reset(**kwargs)[0], {"world": World()}

    assert assert_continues(lambda: DummyVecEnv([HidingInfos])) > 0
