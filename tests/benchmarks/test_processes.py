"""benchmarks/processes.py: what one process measures, and the arithmetic of its report and its model."""

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    report, runs = map(import_module, ("harness.process_report", "harness.process_runs"))


def process(steps: int, seconds: float, n_sums: int = 0, n_objects: int = 0, iterations: int = 10) -> dict[str, Any]:
    own = {"steps": steps, "seconds": seconds, "CPU seconds": seconds / 2, "iterations": iterations, "n_numbers": 100}
    exchanges = {"sums": {"calls": n_sums, "seconds": 0.5}, "objects": {"calls": n_objects, "seconds": 0.25}}
    return {**own, **exchanges, "rollouts": {"calls": iterations, "seconds": seconds / 4}}


RAW = {
    "n_envs": 8,
    "exchange": {"HalfCheetah-v4": {"sums": 0.001, "objects": 0.004}},
    "runs": {
        "HalfCheetah-v4": {
            report.ALONE: [[process(1000, 4.0)], [process(1000, 5.0)]],
            report.ONE: [[process(1000, 4.0)], [process(1000, 5.0)]],
            report.TWO: [[process(500, 2.0, 200, 20), process(500, 2.5, 200, 20)]] * 2,
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
    """20 sums of 1 ms and 2 objects of 4 ms."""
    assert report.exchange_cost(RAW, "HalfCheetah-v4") == pytest.approx(0.028)
    (row,) = [line for line in report.exchange_table(RAW) if line.startswith("| HalfCheetah-v4")]
    assert row == "| HalfCheetah-v4 | 100 | 50.0 | 200.0 | 20 | 1.00 | 2 | 4.00 | 28.0 | 75.0 |"


def test_the_model_of_many_processes() -> None:
    """Free exchanges: P times as fast. Exchanges that cost an iteration with every other process: no gain."""
    assert report.modelled(1, 0.2, 0.1) == 1.0
    assert report.modelled(128, 0.2, 0.0) == 128.0
    assert report.modelled(32, 0.2, 0.2) == 1.0
    # 16 times as long: 8 * 3.2 s of work in 3.2 s and 7 exchanges of 0.1 s
    assert report.modelled(8, 0.2, 0.1, 16) == pytest.approx(25.6 / 3.9)
    assert any("128 processes" in line for line in report.report(RAW))


def test_one_process_measures_its_training() -> None:
    """Without torchrun: two iterations of 8 environments, and no exchange."""
    (own,) = runs.train("CartPole-v1", 8, 2 * 8 * 32)
    assert (own["iterations"], own["steps"]) == (2, 512)
    assert own["sums"] == own["objects"] == {"calls": 0, "seconds": 0.0}
    assert own["rollouts"]["calls"] == 2
    assert 0.0 < own["rollouts"]["seconds"] < own["seconds"]
