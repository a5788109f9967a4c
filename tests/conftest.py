"""One thread for each process (the networks are tiny, and CI machines are small) and repeatable Hypothesis runs."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch as th
from hub_repositories import NAME, train_and_push
from hypothesis import settings

th.set_num_threads(1)
# The same for the workers of pytest-xdist and for the programs that tests start: they inherit it
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")
# Whoever runs tests in the background may ignore Ctrl-C, which is inherited: those that press it would wait for ever
signal.signal(signal.SIGINT, signal.default_int_handler)
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def _settings_of_the_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put back what a test sets for the whole process: the number of threads, and torch's validation (``th.compile``)."""
    monkeypatch.setattr(th.distributions.Distribution, "_validate_args", True)
    yield
    th.set_num_threads(1)


@pytest.fixture
def model_path(tmp_path):
    """Where a model is saved to; ``save()`` takes the suffix as it is."""
    return tmp_path / "model.zip"


@pytest.fixture(scope="module")
def pushed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``logs`` of one run on normalised observations, and ``hub``, to which it was pushed."""
    folder = tmp_path_factory.mktemp("pushed")
    train_and_push(folder)
    return folder


@pytest.fixture
def repository(pushed: Path, tmp_path: Path) -> Path:
    """A copy of what was pushed, to spoil."""
    return Path(shutil.copytree(pushed / "hub/me" / NAME, tmp_path / "hub/me" / NAME))
