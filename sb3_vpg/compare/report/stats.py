"""
Statistics over runs, computed by rliable: point estimates with 95 % intervals of a stratified bootstrap.

Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice" (arXiv 2108.13264). The
interquartile mean (IQM) is the mean of the middle half of all runs.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from rliable import library, metrics
from scipy.stats import trim_mean

MIN_RUNS = 5
"""With fewer runs, a bootstrap interval is not reliable, so there is none."""
AGGREGATES: dict[str, Callable[[np.ndarray], float]] = {
    "IQM": metrics.aggregate_iqm,
    "Median": metrics.aggregate_median,
    "Mean": metrics.aggregate_mean,
    "Optimality gap": metrics.aggregate_optimality_gap,
}
"""Aggregates of normalised scores. The optimality gap is the mean shortfall below 1, so less is better."""
_REPS = 2000
_SEED = 0


@dataclass(frozen=True)
class Estimate:
    """
    :param point: the point estimate
    :param low: lower end of the 95 % interval; None if there are fewer than ``MIN_RUNS`` runs
    :param high: its upper end, or None
    """

    point: float
    low: float | None
    high: float | None

    def text(self, form: str = ".2f") -> str:
        """:return: the estimate with its interval, or with a note that there are too few runs"""
        if self.low is None or self.high is None:
            return f"{_number(self.point, form)} (too few runs)"
        return f"{_number(self.point, form)} [{_number(self.low, form)}, {_number(self.high, form)}]"


def _number(value: float, form: str) -> str:
    """:return: the formatted value, without the minus of a rounded zero"""
    text = f"{value:{form}}"
    return text if float(text) else text.removeprefix("-")


@contextmanager
def _seeded() -> Iterator[None]:
    """Seed NumPy's global generator, from which rliable draws, and restore its state at the end."""
    before = np.random.get_state()
    np.random.seed(_SEED)
    try:
        yield
    finally:
        np.random.set_state(before)


def _estimates(scores: np.ndarray, func: Callable[[np.ndarray], np.ndarray]) -> list[Estimate]:
    """Estimate each element of the vector that ``func`` computes from scores of shape (n_runs, n_envs, ...)."""
    if len(scores) < MIN_RUNS:
        return [Estimate(float(value), None, None) for value in func(scores)]
    with _seeded():
        values, intervals = library.get_interval_estimates({"": scores}, func, reps=_REPS)
    return [Estimate(*map(float, row)) for row in zip(values[""], *intervals[""], strict=True)]


def aggregates(scores: np.ndarray) -> dict[str, Estimate]:
    """Estimate each of the ``AGGREGATES`` for normalised scores of shape (n_runs, n_envs)."""
    estimates = _estimates(scores, lambda x: np.array([func(x) for func in AGGREGATES.values()]))
    return dict(zip(AGGREGATES, estimates, strict=True))


def iqm(values: np.ndarray) -> Estimate:
    """Estimate the interquartile mean of values of shape (n_runs,) or (n_runs, n_envs)."""
    (estimate,) = _estimates(values.reshape(len(values), -1), lambda x: np.array([metrics.aggregate_iqm(x)]))
    return estimate


def iqm_points(curves: np.ndarray) -> np.ndarray:
    """Compute the interquartile mean of curves of shape (n_runs, n_points) at each point, without intervals."""
    means: np.ndarray = trim_mean(curves, proportiontocut=0.25, axis=0)
    return means


def iqm_curve(curves: np.ndarray) -> list[Estimate]:
    """Estimate the interquartile mean of curves of shape (n_runs, n_envs, n_points) at each point."""
    # The same as rliable's, for all points at once
    return _estimates(curves, lambda x: iqm_points(x.reshape(-1, x.shape[-1])))


def profile(scores: np.ndarray, taus: np.ndarray) -> list[Estimate]:
    """
    Estimate a performance profile.

    :param scores: normalised scores, shape (n_runs, n_envs)
    :param taus: thresholds, shape (n_points,)
    :return: the fraction of runs that score above each threshold
    """
    return _estimates(scores, lambda x: np.array([np.mean(x > tau) for tau in taus]))


def improvement(ours: np.ndarray, theirs: np.ndarray) -> Estimate:
    """
    Estimate the probability that a run of ours scores higher than one of theirs.

    :param ours: normalised scores, shape (n_runs, n_envs)
    :param theirs: normalised scores of another algorithm, shape (m_runs, n_envs)
    :return: the mean over environments; a tie counts as one half
    """
    if min(len(ours), len(theirs)) < MIN_RUNS:
        return Estimate(_probability(ours, theirs), None, None)
    pairs: Mapping[str, tuple[np.ndarray, np.ndarray]] = {"": (ours, theirs)}
    with _seeded():
        values, intervals = library.get_interval_estimates(pairs, _probability, reps=_REPS)
    return Estimate(float(values[""]), *map(float, np.ravel(intervals[""])))


def _probability(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Same as rliable's ``probability_of_improvement``, which takes ten times as long."""
    difference = ours[:, None] - theirs[None]
    return float(np.mean((difference > 0) + 0.5 * (difference == 0)))
