"""P processes play a single process's episodes and take its steps: to the last bit, or to rounding where torch computes."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from forked_processes import coverage_variable
from shared_training import CASES, DIAGNOSTICS, N_UPDATES

PROGRAM = Path(__file__).parents[1] / "support/shared_training.py"
N_SHORT = 2
OF_TORCHRUN = [case for case in CASES if "VecNormalize" in case]
"""Without torchrun, SB3's statistics change in each step: the reference is torchrun with one process."""


def trained(folder: Path, n_short: int, *processes: int) -> Path:
    command = [sys.executable, str(PROGRAM), str(folder), str(n_short), *map(str, processes)]
    variables = os.environ | coverage_variable()
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=580)
    assert done.returncode == 0, done.stderr + "".join(file.read_text()[-2000:] for file in folder.glob("*/output_*.txt"))
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("runs"), N_SHORT, 0, 1, 2, 4)


@pytest.fixture(scope="module")
def long_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("runs"), N_UPDATES, 0, 1, 2, 4, 8)


def check(runs: Path, n_processes: int, case: str) -> None:
    expected = np.load(runs / ("1" if case in OF_TORCHRUN else "0") / f"{case}.npz")
    found = np.load(runs / str(n_processes) / f"{case}.npz")
    n_updates = len(found["weights"]) - 1
    weights = expected["weights"][: n_updates + 1]
    assert n_updates >= N_SHORT
    assert not np.allclose(weights[0], weights[1], rtol=0, atol=1e-4), "nothing was learned"
    is_complete = n_updates == len(expected["weights"]) - 1
    if not case.startswith("torch"):
        names = {"weights", "diagnostics"} if not is_complete else set(expected)
        for name in names:
            n_compared = n_updates + 1 if name in ("weights", "diagnostics") else None
            np.testing.assert_array_equal(found[name], expected[name][:n_compared] if n_compared else expected[name], name)
        return
    # From equal weights, one update; then what rounding has become after all of them
    np.testing.assert_array_equal(found["weights"][0], weights[0])
    np.testing.assert_allclose(found["weights"][1], weights[1], rtol=0, atol=1e-6)
    np.testing.assert_allclose(found["weights"], weights, rtol=0, atol=1e-5)
    np.testing.assert_allclose(found["diagnostics"], expected["diagnostics"][: n_updates + 1], rtol=1e-3, atol=1e-3)
    if is_complete:
        assert found["timesteps"] == expected["timesteps"]
        np.testing.assert_allclose(found["episodes"], expected["episodes"], rtol=1e-5)
        for name in {"mean", "returns", "count"} & set(expected):
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("n_processes", [1, 2, 4])
@pytest.mark.parametrize("case", CASES)
def test_processes_take_the_steps_of_one(runs: Path, case: str, n_processes: int) -> None:
    """
    The same weights, diagnostics, episodes and numbers of steps. Where torch computes: weights to 1e-6 after an update from
    equal weights, and to 1e-5 after up to 20 updates.
    """
    check(runs, n_processes, case)


@pytest.mark.processes
@pytest.mark.parametrize("n_processes", [1, 2, 4, 8])
@pytest.mark.parametrize("case", CASES)
def test_processes_take_20_steps_of_one(long_runs: Path, case: str, n_processes: int) -> None:
    """The same after 20 updates in each case, also with one environment for each process."""
    check(long_runs, n_processes, case)


def test_diagnostics_are_compared(runs: Path) -> None:
    """The first process logs each diagnostic of a run with a critic."""
    diagnostics = np.load(runs / "2/value.npz")["diagnostics"]
    assert diagnostics.shape == (N_UPDATES + 1, len(DIAGNOSTICS))
    assert np.isfinite(diagnostics[1:]).all()
