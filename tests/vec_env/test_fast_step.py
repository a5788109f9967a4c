"""The fast step through SB3's wrappers returns what SB3's step returns, and leaves the same state in every wrapper."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from helpers import CONTINUOUS, DICT, IMAGE, VECTOR, RandomEnv, make_model, weights
from hypothesis import given, settings
from hypothesis import strategies as st
from sb3_loop import assert_same
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    SubprocVecEnv,
    VecCheckNan,
    VecEnv,
    VecEnvWrapper,
    VecExtractDictObs,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
    VecTransposeImage,
)

from sb3_vpg.exceptions import EnvironmentFailedError
from sb3_vpg.vec_env import make_vec_env
from sb3_vpg.vec_env.fast_step import fast_step


class WithInfos(RandomEnv):
    """Returns numbers and arrays in its infos, as simulators do."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        *result, _ = super().step(action)
        return *result, {"position": np.float64(self.steps), "forces": np.ones(2) * self.age}  # type: ignore[return-value]


Wrap = Callable[[VecEnv], VecEnv]
VECTORS: dict[str, Wrap] = {
    "normalize": VecNormalize,
    "normalize_observations": lambda env: VecNormalize(env, norm_reward=False, clip_obs=0.5, epsilon=1e-3),
    "normalize_rewards": lambda env: VecNormalize(env, norm_obs=False, clip_reward=0.7, gamma=0.9),
    "normalize_frozen": lambda env: VecNormalize(env, training=False),
    "monitor": VecMonitor,
    "frame_stack": lambda env: VecFrameStack(env, 2),
    "check_nan": lambda env: VecCheckNan(env, raise_exception=True),
}
IMAGES: dict[str, Wrap] = {
    "transpose": VecTransposeImage,
    "monitor": VecMonitor,
    "frame_stack": lambda env: VecFrameStack(env, 3),
    "normalize_rewards": lambda env: VecNormalize(env, norm_obs=False),
}
DICTS: dict[str, Wrap] = {
    "normalize": lambda env: VecNormalize(env, norm_obs_keys=["vector"]),
    "transpose": VecTransposeImage,
    "frame_stack": lambda env: VecFrameStack(env, 2),
    "monitor": VecMonitor,
    "check_nan": VecCheckNan,
    "extract": lambda env: VecExtractDictObs(env, "vector"),
}
STACKABLE = spaces.Dict({"vector": VECTOR, "image": IMAGE})


def wrapped(make_env: Callable[[], gym.Env], layers: list[Wrap], n_envs: int) -> VecEnv:
    env: VecEnv = DummyVecEnv([make_env] * n_envs)
    for layer in layers:
        env = layer(env)
    env.seed(4)
    env.action_space.seed(0)
    return env


CHANGING = {
    "returns",
    "old_obs",
    "old_reward",
    "episode_returns",
    "episode_lengths",
    "episode_count",
    "_observations",
    "_actions",
}
"""Attributes of SB3's wrappers that a step changes; its statistics and stacks are objects of their own."""


def state_of(env: VecEnv) -> list[dict[str, Any]]:
    """:return: the attributes of every wrapper that a step may change, the outermost first"""
    states = []
    while isinstance(env, VecEnvWrapper):
        own: dict[str, Any] = {}
        for name, value in vars(env).items():
            if name in ("obs_rms", "ret_rms"):
                parts = value if isinstance(value, dict) else {"": value}
                own[name] = {key: [part.mean, part.var, part.count] for key, part in parts.items()}
            elif name == "stacked_obs":
                subs = getattr(value, "sub_stacked_observations", {"": value})
                own[name] = {key: sub.stacked_obs for key, sub in subs.items()}
            elif name in CHANGING:
                own[name] = value
        states.append(own)
        env = env.venv
    return states


def without_seconds(infos: Any) -> list[dict[str, Any]]:
    """:return: infos without the seconds of episodes, the only difference allowed"""
    return [{**info, "episode": {**info["episode"], "t": 0.0}} if "episode" in info else info for info in infos]


def assert_equal_steps(fast: VecEnv, slow: VecEnv, n_steps: int = 25) -> None:
    """The two environments are equal; one is stepped by the fast step, one by SB3's."""
    assert_same(fast.reset(), slow.reset(), rtol=0, atol=0)
    step = fast_step(fast)
    assert step != fast.step
    for _ in range(n_steps):
        actions = np.stack([fast.action_space.sample() for _ in range(fast.num_envs)])
        ours, theirs = step(actions), slow.step(actions)
        for one, other in zip(ours[:3], theirs[:3], strict=True):
            assert_same(one, other, rtol=0, atol=0)
            if isinstance(one, dict):
                assert list(one) == list(other)
            else:
                assert (one.dtype, one.shape) == (other.dtype, other.shape)
        assert_same(without_seconds(ours[3]), without_seconds(theirs[3]), rtol=0, atol=0)
        assert_same(state_of(fast), state_of(slow), rtol=0, atol=0)


def stacks(layers: dict[str, Wrap]) -> st.SearchStrategy[list[str]]:
    """:return: wrappers in any order, each at most once"""
    return st.lists(st.sampled_from(sorted(layers)), min_size=1, max_size=4, unique=True)


@settings(max_examples=40, deadline=None)
@given(stacks(VECTORS), st.integers(1, 4))
def test_steps_equal_those_of_sb3(names: list[str], n_envs: int) -> None:
    """Observations, rewards, infos and the state of each wrapper are the same to the last bit, in any order of wrappers."""
    layers = [VECTORS[name] for name in names]
    assert_equal_steps(wrapped(WithInfos, layers, n_envs), wrapped(WithInfos, layers, n_envs))


@settings(max_examples=12, deadline=None)
@given(stacks(IMAGES))
def test_steps_with_images_equal_those_of_sb3(names: list[str]) -> None:
    if "frame_stack" in names and "transpose" in names and names.index("frame_stack") > names.index("transpose"):
        names.remove("transpose")
    layers, make = [IMAGES[name] for name in names], lambda: RandomEnv(IMAGE)
    assert_equal_steps(wrapped(make, layers, 2), wrapped(make, layers, 2), n_steps=9)


@settings(max_examples=25, deadline=None)
@given(stacks(DICTS))
def test_steps_with_dicts_equal_those_of_sb3(names: list[str]) -> None:
    """Extracting one entry comes last, because the other wrappers here need the dict."""
    names = sorted(names, key=lambda name: name == "extract")
    layers = [DICTS[name] for name in names]
    make = (lambda: RandomEnv(STACKABLE)) if "frame_stack" in names else (lambda: RandomEnv(DICT))
    assert_equal_steps(wrapped(make, layers, 2), wrapped(make, layers, 2), n_steps=9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.int16, np.uint8])
def test_statistics_are_the_same_for_each_type_of_number(dtype: Any) -> None:
    space = spaces.Box(0, 100, (3,), dtype)
    make = lambda: RandomEnv(space)  # noqa: E731  # as short as the others
    assert_equal_steps(wrapped(make, [VecNormalize], 3), wrapped(make, [VecNormalize], 3))


@pytest.mark.parametrize("name", ["CartPole-v1", "Pendulum-v1"])
def test_native_environments_are_normalised_as_by_sb3(name: str) -> None:
    envs = [VecNormalize(make_vec_env(name, n_envs=5, seed=0)) for _ in range(2)]
    envs[0].action_space.seed(0)
    assert_equal_steps(*envs, n_steps=300)


def test_environments_in_other_processes_are_normalised_as_by_sb3() -> None:
    envs: list[VecEnv] = []
    for _ in range(2):
        env = VecNormalize(SubprocVecEnv([RandomEnv] * 2))
        env.seed(4)
        env.action_space.seed(0)
        envs.append(env)
    assert_equal_steps(*envs)
    for env in envs:
        env.close()


def test_the_saved_file_and_the_original_numbers_are_those_of_sb3(tmp_path: Path) -> None:
    """A callback may save a VecNormalize at any step, or ask it for the numbers before the normalisation."""
    fast, slow = (wrapped(RandomEnv, [VecNormalize], 2) for _ in range(2))
    assert_equal_steps(fast, slow)
    assert isinstance(fast, VecNormalize) and isinstance(slow, VecNormalize)  # noqa: PT018  # for mypy
    np.testing.assert_array_equal(fast.get_original_obs(), slow.get_original_obs())
    np.testing.assert_array_equal(fast.get_original_reward(), slow.get_original_reward())
    fast.save(str(tmp_path / "fast.pkl"))
    states = [pickle.loads((tmp_path / "fast.pkl").read_bytes()).__dict__, pickle.loads(pickle.dumps(slow)).__dict__]
    assert states[0].keys() == states[1].keys()
    for name in ("mean", "var"):
        assert type(getattr(fast.ret_rms, name)) is type(getattr(slow.ret_rms, name))


def test_the_monitor_file_is_that_of_sb3(tmp_path: Path) -> None:
    rows = []
    for name, choose in (("fast", fast_step), ("slow", lambda env: env.step)):
        env = VecMonitor(wrapped(WithInfos, [], 2), str(tmp_path / name), info_keywords=("position",))
        env.reset()
        step: Any = choose(env)
        for _ in range(20):
            step(np.zeros(2, int))
        assert env.episode_count == 6
        env.close()
        lines = (tmp_path / f"{name}.monitor.csv").read_text().splitlines()[1:]
        rows.append([[*line.split(",")[:2], *line.split(",")[3:]] for line in lines])
    assert rows[0] == rows[1]
    assert len(rows[0]) == 7


class Doubled(VecEnvWrapper):
    """A user's wrapper."""

    def reset(self) -> Any:
        return self.venv.reset()

    def step_wait(self) -> Any:
        observations, rewards, dones, infos = self.venv.step_wait()
        return observations * 2, rewards, dones, infos


class MyNormalize(VecNormalize):
    """A user's subclass."""

    def normalize_reward(self, reward: np.ndarray) -> np.ndarray:
        return super().normalize_reward(reward) + 1.0


def test_wrappers_of_the_user_step_themselves() -> None:
    """Those of SB3's around them are fast and return the same."""
    for layer in (Doubled, MyNormalize):
        env = wrapped(RandomEnv, [layer], 2)
        assert fast_step(env) == env.step
        layers: list[Wrap] = [VecMonitor, layer, VecNormalize]
        assert_equal_steps(wrapped(RandomEnv, layers, 2), wrapped(RandomEnv, layers, 2))


@pytest.mark.parametrize("name", ["step_wait", "normalize_obs", "_normalize_obs", "normalize_reward", "_update_reward"])
def test_a_wrapper_with_a_replaced_method_steps_itself(name: str) -> None:
    env = wrapped(RandomEnv, [VecNormalize], 2)
    setattr(env, name, getattr(env, name))
    assert fast_step(env) == env.step


def test_statistics_of_the_users_class_are_updated_by_its_methods() -> None:
    env: Any = wrapped(RandomEnv, [VecNormalize], 2)
    env.obs_rms = type("MyStatistics", (type(env.obs_rms),), {})(shape=env.observation_space.shape)
    assert fast_step(env) == env.step


def test_statistics_whose_update_was_replaced_stay_frozen() -> None:
    env: Any = wrapped(RandomEnv, [VecNormalize, VecMonitor], 2)
    env.reset()
    env.venv.obs_rms.update = lambda batch: None
    before, step = env.venv.obs_rms.mean.copy(), fast_step(env)
    for _ in range(5):
        step(np.zeros(2, int))
    np.testing.assert_array_equal(env.venv.obs_rms.mean, before)


@pytest.mark.parametrize("layers", [[VecNormalize], [VecNormalize, VecMonitor]], ids=["outer", "inner"])
def test_a_method_that_a_callback_replaces_works_from_the_next_step_on(layers: list[Wrap]) -> None:
    env: Any = wrapped(RandomEnv, layers, 2)
    env.reset()
    step = fast_step(env)
    assert step(np.zeros(2, int))[1].any()
    normalizer = env if len(layers) == 1 else env.venv
    normalizer.normalize_reward = lambda rewards: 0.0 * rewards
    assert not step(np.zeros(2, int))[1].any()


def test_other_keys_to_normalise_are_used_from_the_next_step_on() -> None:
    """SB3 updates the statistics of the keys that it was built with, and normalises those that are set."""
    envs: Any = [wrapped(lambda: RandomEnv(STACKABLE), [VecNormalize], 2) for _ in range(2)]
    for env in envs:
        env.norm_obs_keys = ["vector"]
    assert_equal_steps(*envs)


class CountsSteps(VecEnvWrapper):
    """A user's wrapper with a step of its own, which SB3's wrappers around it do not call."""

    n_steps = 0

    def reset(self) -> Any:
        return self.venv.reset()

    def step_wait(self) -> Any:
        return self.venv.step_wait()

    def step(self, actions: Any) -> Any:
        self.n_steps += 1
        return super().step(actions)


def test_a_wrapper_inside_is_stepped_as_by_sb3() -> None:
    envs: Any = [wrapped(RandomEnv, [CountsSteps, VecNormalize], 2) for _ in range(2)]
    assert_equal_steps(*envs)
    assert [env.venv.n_steps for env in envs] == [0, 0]


def test_observations_share_no_memory_with_the_stack_of_frames() -> None:
    """A callback may write to the observations of a step."""
    layers: list[Wrap] = [lambda env: VecFrameStack(env, 2), VecTransposeImage]
    envs = [wrapped(lambda: RandomEnv(STACKABLE), layers, 2) for _ in range(2)]
    steps: Any = [fast_step(envs[0]), envs[1].step]
    for env in envs:
        env.reset()
    for _ in range(4):
        ours, theirs = (step(np.zeros(2, int))[0] for step in steps)
        assert_same(ours, theirs, rtol=0, atol=0)
        ours["vector"][...] = theirs["vector"][...] = 9.0


def test_a_failing_environment_is_named_through_wrappers() -> None:
    def rewards(step: int) -> float:
        if step == 5:
            raise RuntimeError("broken simulator")
        return 1.0

    env = VecNormalize(VecMonitor(DummyVecEnv([RandomEnv, lambda: RandomEnv(rewards=rewards)])))
    with pytest.raises(EnvironmentFailedError, match=r"nvironment 1 .*broken simulator"):
        make_model(env=env).learn(64)


def test_a_check_that_fails_keeps_its_error() -> None:
    env = VecCheckNan(
        DummyVecEnv([lambda: RandomEnv(rewards=lambda step: np.nan if step == 5 else 1.0)]), raise_exception=True
    )
    with pytest.raises(ValueError, match="found nan in rewards"):
        make_model(env=env).learn(64)


def test_training_inside_of_wrappers_is_that_of_the_slow_step(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = []
    for is_fast in (True, False):
        if not is_fast:
            monkeypatch.setattr("sb3_vpg.collection.rollouts.fast_step", lambda env: env.step)
        env = wrapped(lambda: RandomEnv(action_space=CONTINUOUS), [VecMonitor, VecNormalize], 2)
        ends.append(weights(make_model(env=env).learn(96)))
    for name, value in ends[0].items():
        np.testing.assert_array_equal(value, ends[1][name])
