"""The arithmetic of benchmarks/time_to_solve.py: when a run has reached a mark, and that looking at it changes nothing."""

import math
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    marks, solving = import_module("marks"), import_module("solving")


def made(*scores: float, training: Any = None, failure: str | None = None) -> dict[str, Any]:
    """A run with an evaluation every 1000 steps and tenth of a second."""
    evaluations = [[1000 * n, n / 10, score] for n, score in enumerate(scores, start=1)]
    return {"evaluations": evaluations, "training": training, "failure": failure}


@pytest.mark.parametrize(
    ("run", "first", "stays"),
    [
        (made(10, 480, 500), (0.2, 2000), (0.2, 2000)),
        (made(480, 10, 475, 500), (0.1, 1000), (0.3, 3000)),
        (made(480, 500, 474.9), (0.1, 1000), (math.inf, math.inf)),
        (made(10, 20), (math.inf, math.inf), (math.inf, math.inf)),
        (made(480, 500, failure="diverged"), (0.1, 1000), (math.inf, math.inf)),
    ],
    ids=["once_and_for_all", "lost_and_found", "lost_at_the_end", "never", "given_up"],
)
def test_a_first_good_evaluation_is_not_yet_one_that_stays(run, first, stays):
    assert marks.reached(run, "first") == first
    assert marks.reached(run, "stays") == stays


def test_a_run_that_misses_its_mark_counts_as_later_than_any_other():
    """Otherwise the median would be one over those that happened to succeed."""
    runs = [made(500), made(10, 500), made(10, 20), made(10, 20), made(10)]
    n, values = marks.summary(runs, "first")
    assert n == 2
    assert np.median(values[0]) == math.inf
    assert marks.summary([made(training=[5000, 0.7])], "training")[1].tolist() == [[0.7], [5000.0]]


def test_looking_changes_nothing_in_the_course_of_training():
    """Evaluations draw from streams of their own, so a run that is looked at often is the run that is not."""
    options = {"n_steps": 32, "n_critic_updates": 1}
    seen = [
        solving.solve(solving.Setting("", "vpg", "native", 8, 2048, every, options), seed=1) for every in (256, 1024, 2048)
    ]
    scores = [{steps: score for steps, _, score in run["evaluations"]} for run in seen]
    assert len(scores[0]) >= 8
    assert {scores[0][2048]} == {scores[1][2048]} == {scores[2][2048]}
    assert scores[0][1024] == scores[1][1024]
