"""``normalize`` agrees with a plain implementation in float64."""

import numpy as np
import pytest
import torch as th
from hypothesis import given
from hypothesis import strategies as st

from sb3_vpg.collection.advantages import normalize

SCALES = {"tiny": 1e-12, "small": 1e-4, "one": 1.0, "large": 1e6, "huge": 1e18, "beyond_squaring": 1e35}


def normalize_in_float64(advantages: np.ndarray) -> np.ndarray:
    """Subtract the mean and divide by the sample standard deviation plus 1e-8, as A2C and PPO do."""
    numbers = [float(number) for number in advantages]
    mean = sum(numbers) / len(numbers)
    deviation = (sum((number - mean) ** 2 for number in numbers) / (len(numbers) - 1)) ** 0.5
    return np.array([(number - mean) / (deviation + 1e-8) for number in numbers])


def spread_out(numbers: list[float]) -> bool:
    """:return: whether the numbers differ by more than the rounding errors of float32"""
    return max(numbers) - min(numbers) > 1e-3 * max(abs(number) for number in numbers)


@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES.keys())
@given(numbers=st.lists(st.floats(-8.0, 8.0, width=32), min_size=2, max_size=40).filter(spread_out))
def test_normalize_agrees_with_float64(scale, numbers):
    """The result is that of float64 at every scale, also if the squares of the numbers overflow float32."""
    advantages = (np.array(numbers) * scale).astype(np.float32)
    expected = normalize_in_float64(advantages)
    np.testing.assert_allclose(
        normalize(th.as_tensor(advantages)).numpy(), expected, rtol=1e-2, atol=2e-3 * abs(expected).max() + 1e-20
    )


@pytest.mark.parametrize("count", [2, 3, 64, 999, 4096])
@given(value=st.floats(-(2.0**112), 2.0**112, width=32))
def test_equal_advantages_become_exactly_zero(count, value):
    """Equal advantages become exactly zero: rounding errors of the mean must not be divided by a tiny deviation."""
    assert th.equal(normalize(th.full((count,), value)), th.zeros(count))


@pytest.mark.parametrize("offset", [1.0, -300.0, 1e6], ids=str)
def test_small_differences_are_normalized(offset):
    """Two advantages that differ by 32 units in the last place become plus and minus the square root of 1/2."""
    low = np.float32(offset)
    advantages = th.tensor([low, low + 32 * np.spacing(np.abs(low))])
    th.testing.assert_close(normalize(advantages), th.tensor([-(0.5**0.5), 0.5**0.5]), rtol=1e-2, atol=0)


@given(value=st.floats(-(2.0**127), 2.0**127, width=32))
def test_single_advantage_is_returned_unchanged(value):
    """A single advantage is returned unchanged, since it has no sample deviation."""
    advantage = th.tensor([value])
    assert th.equal(normalize(advantage), advantage)


@given(
    st.lists(st.floats(-1.0, 1.0, width=32), min_size=2, max_size=40).filter(spread_out), st.sampled_from([0.5, 4.0, 1024.0])
)
def test_the_scale_of_the_rewards_does_not_matter(numbers, factor):
    """Multiplying all advantages by a factor does not change the normalised ones."""
    advantages = th.tensor(numbers)
    if advantages.std() < 0.01:
        advantages = advantages / advantages.std()
    th.testing.assert_close(normalize(factor * advantages), normalize(advantages), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")], ids=str)
def test_nan_and_infinity_remain_visible(bad):
    """If an advantage is NaN or infinite, so is some result, which ``train()`` refuses."""
    assert not th.isfinite(normalize(th.tensor([1.0, 2.0, bad, 3.0]))).all()
