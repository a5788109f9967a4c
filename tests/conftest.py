"""Tests use one thread per process, as networks are small and CI machines have few cores; Hypothesis runs are repeatable."""

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
# Workers of pytest-xdist and programs that tests start inherit these
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")
# A background shell may ignore SIGINT, which is inherited; tests that send SIGINT would then wait forever
signal.signal(signal.SIGINT, signal.default_int_handler)
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def _restore_torch_settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Restore torch's number of threads, and its validation of arguments, which ``th.compile`` switches off."""
    monkeypatch.setattr(th.distributions.Distribution, "_validate_args", True)
    yield
    th.set_num_threads(1)


@pytest.fixture
def model_path(tmp_path):
    """A path for ``save()``, with the suffix that it would add."""
    return tmp_path / "model.zip"


@pytest.fixture(scope="module")
def pushed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``logs`` of a run with normalised observations, and with ``hub``, to which the run was pushed."""
    folder = tmp_path_factory.mktemp("pushed")
    train_and_push(folder)
    return folder


@pytest.fixture
def repository(pushed: Path, tmp_path: Path) -> Path:
    """A copy of the pushed repository, which a test may change."""
    return Path(shutil.copytree(pushed / "hub/me" / NAME, tmp_path / "hub/me" / NAME))
