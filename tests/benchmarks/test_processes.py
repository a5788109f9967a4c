"""benchmarks/processes.py: what one process measures, and the arithmetic of its report and its model."""

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    report, runs = map(import_module, ("harness.process_report", "harness.process_runs"))


def process(steps: int, seconds: float, n_exchanges: int = 0, iterations: int = 10) -> dict[str, Any]:
    own = {"steps": steps, "seconds": seconds, "CPU seconds": seconds / 2, "iterations": iterations}
    exchanges = {"calls": n_exchanges, "seconds": 0.5}
    return {**own, "n_numbers": 100, "exchanges": exchanges, "rollouts": {"calls": iterations, "seconds": seconds / 4}}


RAW = {
    "n_envs": 8,
    "exchange": {"HalfCheetah-v4": {"message": 0.001, "rollout": 0.004, "sum": 0.002}},
    "runs": {
        "HalfCheetah-v4": {
            report.ALONE: [[process(1000, 4.0)], [process(1000, 5.0)]],
            report.ONE: [[process(1000, 4.0)], [process(1000, 5.0)]],
            report.TWO: [[process(500, 2.0, 50), process(500, 2.5, 50)]] * 2,
            report.LIMIT: [[process(500, 2.0), process(500, 2.0)]] * 2,
        }
    },
}


def test_the_slowest_process_counts_and_the_steps_of_all() -> None:
    two = RAW["runs"]["HalfCheetah-v4"][report.TWO]
    assert report.rates(two) == [400.0, 400.0]
    assert report.cpu_seconds(two) == [225.0, 225.0]
    # In the rounds 400 / 250 and 400 / 200, and 500 / 250 and 500 / 200
    assert "| HalfCheetah-v4: 2 processes / 1 | ≥ 1.70 | 1.80 | met |" in report.goals(RAW)
    assert "Two independent runs reach 2.25: this machine has no more to give two processes." in report.goals(RAW)


def test_the_cost_of_an_iteration_is_that_of_its_exchanges() -> None:
    """4 messages of 1 ms and one of 4 ms with the rollout, whose cost grows with its length."""
    assert report.exchange_cost(RAW, "HalfCheetah-v4") == pytest.approx(0.008)
    assert report.exchange_cost(RAW, "HalfCheetah-v4", longer=2) == pytest.approx(0.012)
    (row,) = [line for line in report.exchange_table(RAW) if line.startswith("| HalfCheetah-v4")]
    assert row == "| HalfCheetah-v4 | 50.00 | 150.00 | 5 | 1.00 | 4.00 | 2.00 | 8.00 | 50.00 |"


def test_the_model_of_many_processes() -> None:
    """Free exchanges: only the update does not get faster. An update without cost: P times as fast."""
    assert report.modelled(1, 0.2, 0.1, 0.1) == pytest.approx(1.0)
    assert report.modelled(128, 0.2, 0.0, 0.0) == pytest.approx(128.0)
    assert report.modelled(4, 0.2, 0.1, 0.0) == pytest.approx(4 * 0.3 / 0.6)
    # Never more than an iteration divided by an update and an exchange
    assert report.modelled(10**9, 0.2, 0.1, 0.05) == pytest.approx(0.3 / 0.15)
    assert any("128 processes" in line for line in report.report(RAW))


def test_one_process_measures_its_training() -> None:
    """Without torchrun: two iterations of 8 environments, and no exchange."""
    (own,) = runs.train("CartPole-v1", 8, 2 * 8 * 32)
    assert (own["iterations"], own["steps"]) == (2, 512)
    assert own["exchanges"] == {"calls": 0, "seconds": 0.0}
    assert own["rollouts"]["calls"] == 2
    assert 0.0 < own["rollouts"]["seconds"] < own["seconds"]
