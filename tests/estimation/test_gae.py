"""Generalised advantage estimation equals a plain double loop and SB3's buffer."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch as th
from helpers import DISCRETE, VECTOR
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from stable_baselines3.common.buffers import RolloutBuffer

from sb3_vpg.estimation.returns import gae

Array = npt.NDArray[Any]


@st.composite
def rollouts(draw: st.DrawFn) -> tuple[Array, Array, Array, Array, float, float]:
    """Rewards, values, dones, values of the observations after the last row, gamma and lambda."""
    n_rows, n_envs = draw(st.integers(1, 40)), draw(st.integers(1, 4))
    numbers = st.floats(-10, 10, width=32)
    rewards = draw(arrays(np.float32, (n_rows, n_envs), elements=numbers))
    values = draw(arrays(np.float32, (n_rows, n_envs), elements=numbers))
    dones = draw(arrays(np.bool_, (n_rows, n_envs)))
    last = draw(arrays(np.float32, n_envs, elements=numbers))
    factors = st.sampled_from([0.0, 0.5, 0.9, 0.99, 1.0])
    return rewards, values, dones, last, draw(factors), draw(factors)


def double_sum(rewards: Array, values: Array, dones: Array, last: Array, gamma: float, lam: float) -> Array:
    """Equation 16 of Schulman et al. 2015, as a double sum."""
    n_rows, n_envs = rewards.shape
    following = np.vstack([values[1:], last])
    advantages = np.zeros((n_rows, n_envs))
    for env in range(n_envs):
        for start in range(n_rows):
            for row in range(start, n_rows):
                after = 0.0 if dones[row, env] else float(following[row, env])
                delta = float(rewards[row, env]) + gamma * after - float(values[row, env])
                advantages[start, env] += (gamma * lam) ** (row - start) * delta
                if dones[row, env]:
                    break
    return advantages


@given(rollout=rollouts())
def test_advantages_equal_the_double_sum_of_the_paper(rollout: Any) -> None:
    """``gae`` equals the double sum for any lengths, episode ends and discounts, and does not change its arguments."""
    rewards, values, dones, last, gamma, lam = rollout
    arguments = [rewards, values, 1.0 - dones.astype(np.float32), last]
    before = [array.copy() for array in arguments]
    actual = gae(*arguments, gamma, lam)
    np.testing.assert_allclose(actual, double_sum(rewards, values, dones, last, gamma, lam), rtol=1e-4, atol=1e-3)
    for array, expected in zip(arguments, before, strict=True):
        np.testing.assert_array_equal(array, expected)


@given(rollout=rollouts())
def test_advantages_equal_those_of_sb3s_buffer(rollout: Any) -> None:
    """``gae`` equals SB3's buffer in all rows, also in the last, whose end SB3 takes as a separate argument."""
    rewards, values, dones, last, gamma, lam = rollout
    n_rows, n_envs = rewards.shape
    buffer = RolloutBuffer(n_rows, VECTOR, DISCRETE, "cpu", gae_lambda=lam, gamma=gamma, n_envs=n_envs)
    buffer.rewards, buffer.values = rewards.copy(), values.copy()
    buffer.episode_starts = np.vstack([np.ones(n_envs), dones[:-1]]).astype(np.float32)
    buffer.compute_returns_and_advantage(th.as_tensor(last), dones[-1])
    actual = gae(rewards, values, 1.0 - dones.astype(np.float32), last, gamma, lam)
    np.testing.assert_allclose(actual, buffer.advantages, rtol=1e-4, atol=1e-3)
    assert actual.dtype == buffer.advantages.dtype == np.float32


@pytest.mark.parametrize("n_rows", [1, 2, 3, 7, 8, 9, 1000, 1024, 1025])
def test_long_rollouts_are_as_exact_as_short_ones(n_rows: int) -> None:
    """``gae`` doubles a window, so episodes are longer than it, and lengths are near powers of two."""
    rng = np.random.default_rng(n_rows)
    rewards, values = rng.normal(size=(2, n_rows, 2))
    dones, last = rng.random((n_rows, 2)) < 0.002, rng.normal(size=2)
    actual = gae(rewards, values, 1.0 - dones, last, 0.999, 0.98)
    advantages, after = np.zeros((n_rows, 2)), np.zeros(2)
    for row in reversed(range(n_rows)):
        following = last if row == n_rows - 1 else values[row + 1]
        after = rewards[row] + 0.999 * following * ~dones[row] - values[row] + 0.999 * 0.98 * after * ~dones[row]
        advantages[row] = after
    np.testing.assert_allclose(actual, advantages, rtol=1e-9, atol=1e-9)
