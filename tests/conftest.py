"""One thread for torch (the networks are tiny, and CI machines are small) and repeatable Hypothesis runs."""

import pytest
import torch as th
from hypothesis import settings

th.set_num_threads(1)
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


@pytest.fixture
def model_path(tmp_path):
    """Where a model is saved to; ``save()`` takes the suffix as it is."""
    return tmp_path / "model.zip"
