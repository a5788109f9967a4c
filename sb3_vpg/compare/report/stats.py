"""
Statistics over runs by rliable: point estimates with stratified bootstrap 95 % intervals.

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
"""With fewer runs a bootstrap says nothing that could be relied on, so there is no interval."""
AGGREGATES: dict[str, Callable[[np.ndarray], float]] = {
    "IQM": metrics.aggregate_iqm,
    "Median": metrics.aggregate_median,
    "Mean": metrics.aggregate_mean,
    "Optimality gap": metrics.aggregate_optimality_gap,
}
"""Of normalised scores. The optimality gap is what is missing to 1, on average: here, less is better."""
_REPS = 2000
_SEED = 0


@dataclass(frozen=True)
class Estimate:
    """
    :param point: value
    :param low: end of the 95 % interval; None if there are too few runs for one
    :param high: the other end
    """

    point: float
    low: float | None
    high: float | None

    def text(self, form: str = ".2f") -> str:
        """:return: the value, and the interval or the reason why there is none"""
        if self.low is None or self.high is None:
            return f"{_number(self.point, form)} (too few runs)"
        return f"{_number(self.point, form)} [{_number(self.low, form)}, {_number(self.high, form)}]"


def _number(value: float, form: str) -> str:
    """:return: never a minus before nothing"""
    text = f"{value:{form}}"
    return text if float(text) else text.removeprefix("-")


@contextmanager
def _same_draws() -> Iterator[None]:
    """rliable draws from NumPy's global generator, whatever it is given."""
    before = np.random.get_state()
    np.random.seed(_SEED)
    try:
        yield
    finally:
        np.random.set_state(before)


def _estimates(scores: np.ndarray, func: Callable[[np.ndarray], np.ndarray]) -> list[Estimate]:
    """:return: of each number that ``func`` makes of scores, which have the shape (n_runs, n_envs, …)"""
    if len(scores) < MIN_RUNS:
        return [Estimate(float(value), None, None) for value in func(scores)]
    with _same_draws():
        values, intervals = library.get_interval_estimates({"": scores}, func, reps=_REPS)
    return [Estimate(*map(float, row)) for row in zip(values[""], *intervals[""], strict=True)]


def aggregates(scores: np.ndarray) -> dict[str, Estimate]:
    """
    :param scores: normalised, shape (n_runs, n_envs), with at least one run
    :return: by the names of ``AGGREGATES``
    """
    found = _estimates(scores, lambda x: np.array([func(x) for func in AGGREGATES.values()]))
    return dict(zip(AGGREGATES, found, strict=True))


def iqm(values: np.ndarray) -> Estimate:
    """
    :param values: one for each run on one environment, shape (n_runs,)
    :return: interquartile mean
    """
    (found,) = _estimates(np.asarray(values)[:, None], lambda x: np.array([metrics.aggregate_iqm(x)]))
    return found


def iqm_points(curves: np.ndarray) -> np.ndarray:
    """
    :param curves: of runs on one environment, shape (n_runs, n_points)
    :return: interquartile mean over runs for each point, shape (n_points,), without intervals
    """
    found: np.ndarray = trim_mean(curves, proportiontocut=0.25, axis=0)
    return found


def iqm_curve(curves: np.ndarray) -> list[Estimate]:
    """
    :param curves: shape (n_runs, n_envs, n_points)
    :return: interquartile mean over runs and environments, for each point
    """
    # As rliable's for each point, at once
    return _estimates(curves, lambda x: iqm_points(x.reshape(-1, x.shape[-1])))


def profile(scores: np.ndarray, taus: np.ndarray) -> list[Estimate]:
    """
    :param scores: normalised, shape (n_runs, n_envs)
    :param taus: normalised scores, shape (n_points,)
    :return: the fraction of runs that score above each
    """
    return _estimates(scores, lambda x: np.array([np.mean(x > tau) for tau in taus]))


def improvement(ours: np.ndarray, theirs: np.ndarray) -> Estimate:
    """
    :param ours: normalised, shape (n_runs, n_envs)
    :param theirs: of another algorithm, shape (m_runs, n_envs)
    :return: the probability that a run of ours beats one of theirs, averaged over the environments; a tie counts half
    """
    if min(len(ours), len(theirs)) < MIN_RUNS:
        return Estimate(_probability(ours, theirs), None, None)
    pairs: Mapping[str, tuple[np.ndarray, np.ndarray]] = {"": (ours, theirs)}
    with _same_draws():
        values, intervals = library.get_interval_estimates(pairs, _probability, reps=_REPS)
    return Estimate(float(values[""]), *map(float, np.ravel(intervals[""])))


def _probability(ours: np.ndarray, theirs: np.ndarray) -> float:
    """As rliable's ``probability_of_improvement``, which ranks one environment after the other and takes ten times as long."""
    difference = ours[:, None] - theirs[None]
    return float(np.mean((difference > 0) + 0.5 * (difference == 0)))
