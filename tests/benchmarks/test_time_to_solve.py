"""benchmarks/time_to_solve.py: the arithmetic of its milestones, and that evaluations do not change the training."""

import math
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    milestones, training_run = import_module("harness.milestones"), import_module("harness.training_run")


def run_with(*scores: float, training: Any = None, failure: str | None = None) -> dict[str, Any]:
    """:return: the result of a run with an evaluation every 1000 steps and every tenth of a second"""
    evaluations = [[1000 * n, n / 10, score] for n, score in enumerate(scores, start=1)]
    return {"evaluations": evaluations, "training": training, "failure": failure}


@pytest.mark.parametrize(
    ("run", "first", "stays"),
    [
        (run_with(10, 480, 500), (0.2, 2000), (0.2, 2000)),
        (run_with(480, 10, 475, 500), (0.1, 1000), (0.3, 3000)),
        (run_with(480, 500, 474.9), (0.1, 1000), (math.inf, math.inf)),
        (run_with(10, 20), (math.inf, math.inf), (math.inf, math.inf)),
        (run_with(480, 500, failure="diverged"), (0.1, 1000), (math.inf, math.inf)),
    ],
    ids=["stays", "lost_and_regained", "lost_at_the_end", "never", "training_failed"],
)
def test_the_first_good_evaluation_need_not_be_the_one_that_stays(run, first, stays):
    assert milestones.time_to(run, "first") == first
    assert milestones.time_to(run, "stays") == stays


def test_a_run_that_misses_a_milestone_counts_as_later_than_any_other():
    """The median is over all runs, not over the successful ones."""
    runs = [run_with(500), run_with(10, 500), run_with(10, 20), run_with(10, 20), run_with(10)]
    n, values = milestones.summary(runs, "first")
    assert n == 2
    assert np.median(values[0]) == math.inf
    assert milestones.summary([run_with(training=[5000, 0.7])], "training")[1].tolist() == [[0.7], [5000.0]]


def test_evaluations_do_not_change_the_training():
    """Runs with many and with few evaluations have equal scores, as evaluations draw from separate random streams."""
    options = {"n_steps": 32, "n_critic_updates": 1}
    settings = [training_run.Setting("", "vpg", "native", 8, 2048, every, options) for every in (256, 1024, 2048)]
    runs = [training_run.train(setting, seed=1) for setting in settings]
    scores = [{steps: score for steps, _, score in run["evaluations"]} for run in runs]
    assert len(scores[0]) >= 8
    assert {scores[0][2048]} == {scores[1][2048]} == {scores[2][2048]}
    assert scores[0][1024] == scores[1][1024]
