"""Tests use one thread per process, as networks are small and CI machines have few cores; Hypothesis runs are repeatable."""

import os
import shutil
import signal
from collections import Counter
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


def pytest_addoption(parser: pytest.Parser) -> None:
    """See pytest."""
    parser.addoption("--documentation", action="store_true", help="also run the long blocks and commands of the documentation")
    parser.addoption("--export", action="store_true", help="also export every agent that ships, and all spaces")
    parser.addoption("--processes", action="store_true", help="also run the long trainings on up to eight processes")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the long items of the documentation, of exports and on many processes, unless they are asked for."""
    for marker in ("documentation", "export", "processes"):
        if not config.getoption(f"--{marker}"):
            long = [item for item in items if item.get_closest_marker(marker)]
            config.hook.pytest_deselected(items=long)
            items[:] = [item for item in items if item not in long]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many blocks and commands of the documentation ran."""
    kinds: dict[str, Counter[str]] = {}
    for outcome in ("passed", "failed", "skipped"):
        reports = [report for report in terminalreporter.stats.get(outcome, ()) if report.when == "call"]
        names = [value for report in reports for name, value in report.user_properties if name == "documentation"]
        kinds[outcome] = Counter("commands" if kind == "command" else "blocks" for kind in names)
    if any(kinds.values()):
        counts = [f"{number['blocks']} blocks and {number['commands']} commands {name}" for name, number in kinds.items()]
        terminalreporter.write_line(f"Documentation: {', '.join(counts)}")


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
