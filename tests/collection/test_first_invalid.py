"""``first_invalid`` finds the first number that is NaN, infinite or too large, and raises no false alarm."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from sb3_vpg.collection.check_nan import LARGEST, first_invalid


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_large_valid_numbers_are_accepted(dtype):
    """Numbers below the limit are valid, although the sum of their squares overflows."""
    large = {np.float16: 6e4, np.float32: 0.9 * LARGEST, np.float64: 0.9 * LARGEST}[dtype]
    assert first_invalid(np.full((100, 100), large, dtype)) is None


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@given(data=st.data())
def test_first_invalid_agrees_with_a_loop(dtype, data):
    """``first_invalid`` returns the index that a loop over all numbers finds, for any shape and any memory layout."""
    shape = data.draw(array_shapes(min_dims=1, max_dims=4, max_side=4))
    numbers = data.draw(arrays(dtype, shape, elements=st.floats(width=np.dtype(dtype).itemsize * 8)))
    numbers = data.draw(st.sampled_from([numbers, numbers.swapaxes(0, -1), np.repeat(numbers, 2, axis=0)[::2]]))
    invalid = [index for index in np.ndindex(numbers.shape) if not abs(float(numbers[index])) < LARGEST]
    assert first_invalid(numbers) == (invalid[0] if invalid else None)
