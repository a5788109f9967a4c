"""gymnasium's native CartPole in ``GymVecEnv`` has the same transitions and episodes as CartPole in ``DummyVecEnv``."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from scipy.stats import ks_2samp
from stable_baselines3.common.env_util import make_vec_env as sb3_make_vec_env
from stable_baselines3.common.vec_env import VecEnv

from sb3_vpg.vec_env.gym_vec_env import GymVecEnv, make_vec_env

EACH_STATE = np.array([0.3, 0.5, 2.0, 1.0])


class Unhooked(GymVecEnv):
    """A naive adapter of gymnasium's CartPole, which returns its steps unchanged."""

    def step_wait(self) -> Any:
        observations, rewards, terminated, truncated, _ = self.env.step(self._actions)
        self._returns += rewards
        self._lengths += 1
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for index in np.flatnonzero(terminated | truncated):
            episode = {"r": self._returns[index], "l": self._lengths[index]}
            infos[index] = {"episode": episode, "terminal_observation": observations[index]}
            self._returns[index] = self._lengths[index] = 0
        return observations, rewards, terminated | truncated, infos


def samples(env: VecEnv, n_episodes: int, seed: int) -> dict[str, np.ndarray]:
    """Play ``n_episodes`` episodes in each environment with a fixed stochastic linear policy."""
    rng = np.random.default_rng(seed)
    env.seed(seed)
    observations = env.reset()
    records: list[list[tuple[Any, ...]]] = [[] for _ in range(env.num_envs)]
    while min(map(len, records)) < n_episodes:
        likely_right = 1 / (1 + np.exp(-observations @ EACH_STATE * 4))
        observations, _, dones, infos = env.step((rng.random(env.num_envs) < likely_right).astype(np.int64))
        for index in np.flatnonzero(dones):
            info = infos[index]
            records[index].append((info["episode"]["r"], info["episode"]["l"], *info["terminal_observation"]))
    env.close()
    rows = np.array([row for record in records for row in record[:n_episodes]])
    return dict(zip(("return", "length", "x", "x_dot", "theta", "theta_dot"), rows.T, strict=True))


@pytest.fixture(scope="module")
def dummy_samples() -> dict[str, np.ndarray]:
    return samples(sb3_make_vec_env("CartPole-v1", 100), 10, seed=0)


def p_values(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> dict[str, float]:
    return {name: float(ks_2samp(first[name], second[name]).pvalue) for name in first}


@pytest.mark.parametrize("n_envs", [7, 100, 1000])
def test_native_episodes_have_the_distribution_of_dummy_vec_envs(n_envs: int, dummy_samples: dict[str, np.ndarray]) -> None:
    """This is a Kolmogorov-Smirnov test of each quantity with 1000 episodes or more; the seeds are fixed."""
    values = p_values(samples(make_vec_env("CartPole-v1", n_envs), max(1, 1001 // n_envs), seed=1), dummy_samples)
    assert min(values.values()) > 0.01, values


def test_the_test_above_notices_the_extra_step(dummy_samples: dict[str, np.ndarray]) -> None:
    """Every episode but the first gets one step without a reward: the returns are right, the lengths are not."""
    naive = Unhooked(gym.make_vec("CartPole-v1", 100, vectorization_mode="vector_entry_point"))
    values = p_values(samples(naive, 10, seed=1), dummy_samples)
    assert values["length"] < 1e-6, values


@pytest.mark.parametrize("max_episode_steps", [500, 7], ids=["falls", "time-outs"])
def test_each_native_step_is_a_transition_of_cartpole(max_episode_steps: int) -> None:
    """gymnasium's single CartPole computes each step again from the observation before, which is rounded to float32."""
    env = make_vec_env("CartPole-v1", 16, seed=0, env_kwargs={"max_episode_steps": max_episode_steps})
    scalar: Any = gym.make("CartPole-v1").unwrapped
    scalar.reset(seed=0)
    before, rng, ended, ages = env.reset(), np.random.default_rng(0), 0, np.zeros(16, dtype=int)
    for _ in range(60):
        actions = rng.integers(0, 2, 16)
        after, rewards, dones, infos = env.step(actions)
        ages += 1
        for index in range(16):
            scalar.state, scalar.steps_beyond_terminated = before[index].astype(float), None
            expected, reward, terminated, *_ = scalar.step(int(actions[index]))
            last = infos[index]["terminal_observation"] if dones[index] else after[index]
            np.testing.assert_allclose(last, expected, atol=1e-5)
            assert rewards[index] == reward == 1.0
            assert dones[index] == (terminated or ages[index] == max_episode_steps)
            if dones[index]:
                assert infos[index]["TimeLimit.truncated"] == (not terminated)
                assert infos[index]["episode"]["l"] == infos[index]["episode"]["r"] == ages[index]
                assert (np.abs(after[index]) <= 0.05).all()
        ended += int(dones.sum())
        ages[dones] = 0
        before = after
    assert ended > 20


def test_a_balanced_pole_is_truncated_after_500_steps() -> None:
    env = make_vec_env("CartPole-v1", 4, seed=0)
    observations = env.reset()
    for step in range(1, 1001):
        actions = (observations @ np.array([0.02, 0.05, 1.0, 0.3]) > 0).astype(int)
        observations, _, dones, infos = env.step(actions)
        assert dones.all() == dones.any() == (step % 500 == 0)
        if dones.any():
            assert all(info["TimeLimit.truncated"] and info["episode"]["r"] == 500.0 for info in infos)


def test_a_seed_repeats_a_run() -> None:
    def trace(seed: int) -> np.ndarray:
        env = make_vec_env("CartPole-v1", 5, seed=seed)
        actions = np.random.default_rng(0).integers(0, 2, (80, 5))
        return np.stack([env.reset(), *(env.step(row)[0] for row in actions)])

    np.testing.assert_array_equal(trace(1), trace(1))
    assert not np.array_equal(trace(1), trace(2))


def test_options_are_used_by_the_next_reset_only() -> None:
    env = make_vec_env("CartPole-v1", 4, seed=0)
    env.set_options({"low": 0.1, "high": 0.2})
    assert (env.reset() >= 0.1).all()
    assert (np.abs(env.reset()) <= 0.05).all()
    env.set_options([{"low": 0.1, "high": 0.2}] * 4)
    assert (env.reset() >= 0.1).all()
    with pytest.raises(ValueError, match="options must be the same for all"):
        env.set_options([{"low": 0.1}, {}, {}, {}])
