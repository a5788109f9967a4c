"""The statistics of a comparison agree with slow, obvious implementations and with rliable's functions."""

from dataclasses import replace

import numpy as np
import pytest
from comparison_results import comparison, drawn, record, task
from rliable import metrics

from sb3_vpg.compare.report import stats
from sb3_vpg.compare.results import N_POINTS, Comparison, area, points
from sb3_vpg.compare.runs.records import Record
from sb3_vpg.compare.score_normalization import Reference

rng = np.random.default_rng(3)
SCORES = rng.normal(0.6, 0.4, size=(12, 3))
OTHERS = np.round(rng.normal(0.5, 0.4, size=(9, 3)), 1)


def middle_half(values: np.ndarray) -> float:
    ordered = sorted(values.ravel())
    cut = len(ordered) // 4
    return float(np.mean(ordered[cut : len(ordered) - cut]))


def test_aggregates_agree_with_their_definitions() -> None:
    found = stats.aggregates(SCORES)
    assert found["IQM"].point == pytest.approx(middle_half(SCORES))
    assert found["Mean"].point == pytest.approx(SCORES.mean())
    # The median of the means over runs, as Agarwal et al. define it
    assert found["Median"].point == pytest.approx(np.median(SCORES.mean(axis=0)))
    assert found["Optimality gap"].point == pytest.approx(np.mean([max(1 - score, 0) for score in SCORES.ravel()]))


def test_intervals_are_those_of_a_bootstrap_within_environments() -> None:
    """A loop resamples the runs of each environment separately; both ends agree within the noise of 2,000 samples."""
    means = []
    for _ in range(4000):
        columns = [SCORES[rng.integers(0, len(SCORES), len(SCORES)), env] for env in range(SCORES.shape[1])]
        means.append([middle_half(np.array(columns)), np.mean(columns)])
    expected = np.percentile(means, [2.5, 97.5], axis=0)
    found = stats.aggregates(SCORES)
    for column, name in enumerate(("IQM", "Mean")):
        interval = (found[name].low, found[name].high)
        assert interval == pytest.approx(expected[:, column], abs=0.02)
        assert expected[1, column] - expected[0, column] > 0.15, "the interval is much wider than the tolerance"


def test_probability_of_improvement_counts_pairs() -> None:
    pairs = [np.mean([[(x > y) + 0.5 * (x == y) for y in OTHERS[:, env]] for x in SCORES[:, env]]) for env in range(3)]
    found = stats.improvement(SCORES, OTHERS)
    assert found.point == pytest.approx(np.mean(pairs))
    assert found.point == pytest.approx(metrics.probability_of_improvement(SCORES, OTHERS))
    tied = np.round(SCORES, 1)
    assert stats.improvement(tied, OTHERS).point == pytest.approx(metrics.probability_of_improvement(tied, OTHERS))
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.point < found.high


def test_profiles_and_curves_agree_at_every_point() -> None:
    taus = np.array([0.0, 0.5, 1.0])
    assert [each.point for each in stats.profile(SCORES, taus)] == pytest.approx([np.mean(tau < SCORES) for tau in taus])
    curves = rng.normal(size=(8, 2, 4))
    found = stats.iqm_curve(curves)
    assert [each.point for each in found] == pytest.approx([metrics.aggregate_iqm(curves[..., point]) for point in range(4)])
    assert [each.point for each in found] == pytest.approx([middle_half(curves[..., point]) for point in range(4)])


def test_intervals_are_reproducible_and_keep_the_global_random_state() -> None:
    np.random.seed(5)
    expected = np.random.random(3)
    np.random.seed(5)
    first = stats.aggregates(SCORES)
    assert np.random.random(3) == pytest.approx(expected, abs=0)
    np.random.seed(6)
    assert stats.aggregates(SCORES) == first
    assert stats.improvement(SCORES, OTHERS) == stats.improvement(SCORES, OTHERS)


@pytest.mark.parametrize("n_runs", [1, stats.MIN_RUNS - 1, stats.MIN_RUNS])
def test_few_runs_have_no_interval(n_runs: int) -> None:
    found = stats.aggregates(SCORES[:n_runs])["IQM"]
    assert (found.low is None) == (n_runs < stats.MIN_RUNS)
    assert ("too few runs" in found.text()) == (n_runs < stats.MIN_RUNS)
    assert (stats.improvement(SCORES, OTHERS[:n_runs]).low is None) == (n_runs < stats.MIN_RUNS)


def test_a_rounded_zero_has_no_minus() -> None:
    assert stats.Estimate(-0.001, -0.006, 0.004).text() == "0.00 [-0.01, 0.00]"


def test_normalised_scores() -> None:
    reference = Reference(random=-200.0, threshold=100.0, source="")
    assert reference.normalize(np.array([-200.0, 100.0, 250.0])) == pytest.approx([0.0, 1.0, 1.5])


def curve(run: Record, random: float) -> np.ndarray:
    reference = Reference(random, threshold=100.0, source="")
    return Comparison(["vpg"], ["CartPole-v1"], [0], [run], {"CartPole-v1": reference}, {}).curve(run)


def test_a_curve_is_interpolated_between_evaluations() -> None:
    run = record(task(n_timesteps=1000), final=110.0)
    found = curve(run, random=10.0)
    assert len(found) == N_POINTS == len(points(1000))
    # Evaluations are at 100, 200, …; points are at 0 (random actions), 50, 100, 150
    first, second = run.mean_returns[:2]
    assert found[:4] == pytest.approx([10.0, (10.0 + first) / 2, first, (first + second) / 2])
    assert found[-1] == pytest.approx(run.mean_returns[-1])


@pytest.mark.parametrize("n_evaluations", [1, 2, 10, 20])
def test_the_area_under_a_straight_line_is_half_its_height(n_evaluations: int) -> None:
    """The area does not depend on the number of evaluations."""
    steps = [1000 * number // n_evaluations for number in range(1, n_evaluations + 1)]
    run = replace(record(task(n_timesteps=1000), final=100.0), timesteps=steps, mean_returns=[step / 10 for step in steps])
    assert area(curve(run, random=0.0)) == pytest.approx(50.0)


@pytest.mark.parametrize("evaluations", [[], [30.0], [30.0, 60.0, 90.0]])
def test_an_algorithm_that_stops_early_keeps_its_final_return(evaluations: list[float]) -> None:
    run = record(task(n_timesteps=1000), final=110.0, curve=evaluations)
    found = curve(run, random=10.0)
    # The record says that it stopped one evaluation interval after its last evaluation
    after = len(evaluations) * 2 + 2
    assert found[after:] == pytest.approx(110.0)
    assert found[:after:2] == pytest.approx([10.0, *evaluations])


def test_only_complete_seeds_are_aggregated() -> None:
    scores = drawn()
    missing = ("vpg", "Acrobot-v1", 2)
    found = comparison(lambda *which: None if which == missing else scores(*which))
    assert found.complete_seeds("vpg") == [0, 1, 3, 4, 5]
    assert found.complete_seeds("a2c") == [0, 1, 2, 3, 4, 5]
    assert found.missing() == ["vpg-Acrobot-v1-2"]
    expected = [
        [(scores("vpg", env_id, seed) - 20) / 100 for env_id in ("CartPole-v1", "Acrobot-v1")] for seed in (0, 1, 3, 4, 5)
    ]
    assert found.final("vpg") == pytest.approx(np.array(expected))
    assert found.curves("vpg").shape == (5, 2, N_POINTS)
    # The last evaluations of these records equal the final returns
    assert found.curves("vpg")[..., -1] == pytest.approx(found.final("vpg"))
