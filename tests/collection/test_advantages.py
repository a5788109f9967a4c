"""``normalize`` against the definition, written in NumPy with twice the precision."""

import numpy as np
import pytest
import torch as th
from hypothesis import given
from hypothesis import strategies as st

from sb3_vpg.collection.advantages import normalize

SCALES = {"tiny": 1e-12, "small": 1e-4, "one": 1.0, "large": 1e6, "huge": 1e18, "beyond_squaring": 1e35}


def obvious(advantages: np.ndarray) -> np.ndarray:
    """Sample deviation, and A2C's and PPO's 1e-8 in the denominator, one element after the other in float64."""
    numbers = [float(number) for number in advantages]
    mean = sum(numbers) / len(numbers)
    deviation = (sum((number - mean) ** 2 for number in numbers) / (len(numbers) - 1)) ** 0.5
    return np.array([(number - mean) / (deviation + 1e-8) for number in numbers])


def spread_out(numbers: list[float]) -> bool:
    """Different beyond what float32 rounds away, which is where a deviation means something."""
    return max(numbers) - min(numbers) > 1e-3 * max(abs(number) for number in numbers)


@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES.keys())
@given(numbers=st.lists(st.floats(-8.0, 8.0, width=32), min_size=2, max_size=40).filter(spread_out))
def test_normalize_agrees_with_the_obvious_implementation(scale, numbers):
    """At every scale whose sum float32 holds, even where it cannot hold the squares, the result is that of slow float64."""
    advantages = (np.array(numbers) * scale).astype(np.float32)
    expected = obvious(advantages)
    np.testing.assert_allclose(
        normalize(th.as_tensor(advantages)).numpy(), expected, rtol=1e-2, atol=2e-3 * abs(expected).max() + 1e-20
    )


@pytest.mark.parametrize("count", [2, 3, 64, 999, 4096])
@given(value=st.floats(-(2.0**112), 2.0**112, width=32))
def test_equal_advantages_become_exactly_zero(count, value):
    """Where no action is better than another, rounding errors must not look like a preference."""
    assert th.equal(normalize(th.full((count,), value)), th.zeros(count))


@pytest.mark.parametrize("offset", [1.0, -300.0, 1e6], ids=str)
def test_small_but_real_differences_count(offset):
    """32 units in the last place are no rounding error: two such advantages become plus and minus the root of 1/2."""
    low = np.float32(offset)
    advantages = th.tensor([low, low + 32 * np.spacing(np.abs(low))])
    th.testing.assert_close(normalize(advantages), th.tensor([-(0.5**0.5), 0.5**0.5]), rtol=1e-2, atol=0)


@given(value=st.floats(-(2.0**127), 2.0**127, width=32))
def test_a_single_advantage_is_returned_as_it_is(value):
    """One number has no deviation; dividing by it would give NaN."""
    advantage = th.tensor([value])
    assert th.equal(normalize(advantage), advantage)


@given(
    st.lists(st.floats(-1.0, 1.0, width=32), min_size=2, max_size=40).filter(spread_out), st.sampled_from([0.5, 4.0, 1024.0])
)
def test_the_scale_of_the_rewards_does_not_matter(numbers, factor):
    """Scaling all advantages alike leaves the normalised ones as they are, which is what the option is for."""
    advantages = th.tensor(numbers)
    if advantages.std() < 0.01:
        advantages = advantages / advantages.std()
    th.testing.assert_close(normalize(factor * advantages), normalize(advantages), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")], ids=str)
def test_a_broken_advantage_does_not_vanish(bad):
    """NaN and infinity must come out as such: train() looks for them and refuses."""
    assert not th.isfinite(normalize(th.tensor([1.0, 2.0, bad, 3.0]))).all()
