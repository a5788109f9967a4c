"""The global random streams of a checkpoint are restored on the machine that resumes."""

import pytest
import torch as th

from sb3_vpg.common.random_state import copy_streams, restore_streams


@pytest.mark.parametrize("n_present", [1, 2, 3])
def test_states_of_gpus_that_are_missing_now_are_skipped(n_present, monkeypatch):
    """A checkpoint of a machine with two GPUs can be resumed on one with another number of them."""
    restored = {}
    monkeypatch.setattr(th.cuda, "is_available", lambda: True)
    monkeypatch.setattr(th.cuda, "device_count", lambda: n_present)

    def set_rng_state(state, index):
        if index >= n_present:
            raise IndexError("tuple index out of range")
        restored[index] = state.tolist()

    monkeypatch.setattr("torch.cuda.random.set_rng_state", set_rng_state)
    states = [th.tensor([index, 7], dtype=th.uint8).numpy() for index in range(2)]
    restore_streams({**copy_streams(), "cuda": states})
    assert restored == {index: [index, 7] for index in range(min(2, n_present))}
