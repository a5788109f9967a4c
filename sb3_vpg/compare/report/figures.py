"""The figures of a report. Each algorithm has the same colour in all of them, and the first has the thickest line."""

from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sb3_vpg.compare.report import stats
from sb3_vpg.compare.report.stats import Estimate
from sb3_vpg.compare.results import N_POINTS, Comparison, label, points

# Okabe and Ito's palette, which colour-blind readers can distinguish
_COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "axes.axisbelow": True,
    "axes.titlesize": 11,
    "legend.frameon": False,
}


class Figures:
    """
    Draws the figures of a comparison.

    :param comparison: the results
    :param overall: aggregates of each algorithm with at least one complete seed
    :param improvements: probability that the first algorithm improves on each other one; empty if it has no complete seed
    """

    def __init__(
        self, comparison: Comparison, overall: dict[str, dict[str, Estimate]], improvements: dict[str, Estimate]
    ) -> None:
        self.comparison, self.algos, self.overall, self.improvements = comparison, list(overall), overall, improvements
        self._colours = {algo: _COLOURS[number % len(_COLOURS)] for number, algo in enumerate(comparison.algos)}

    def all(self) -> dict[str, bytes]:
        """:return: PNG files by name"""
        drawn: dict[str, Callable[[], Figure]] = {"learning_curves": self.learning_curves}
        if self.algos:
            drawn |= {"aggregates": self.aggregates, "sample_efficiency": self.sample_efficiency, "profiles": self.profiles}
        if self.improvements:
            drawn["improvement"] = self.improvement
        with plt.rc_context(_STYLE):
            return {name: _png(draw()) for name, draw in drawn.items()}

    def aggregates(self) -> Figure:
        """:return: the aggregates over all environments, with intervals"""
        figure, axes = plt.subplots(1, len(stats.AGGREGATES), figsize=(11, 0.75 + 0.38 * len(self.algos)), sharey=True)
        for axis, name in zip(axes, stats.AGGREGATES, strict=True):
            self._intervals(axis, {algo: estimates[name] for algo, estimates in self.overall.items()})
            axis.set_title(f"{name} {'(less is better)' if name == 'Optimality gap' else ''}")
        figure.supxlabel("normalised score: 0 random actions, 1 threshold", fontsize=10)
        return figure

    def improvement(self) -> Figure:
        """:return: the probability that a run of the first algorithm scores higher than one of each other algorithm"""
        figure, axis = plt.subplots(figsize=(6, 1.0 + 0.38 * len(self.improvements)))
        self._intervals(axis, self.improvements)
        axis.set_xlim(-0.02, 1.02)
        axis.axvline(0.5, color="#555555", linewidth=1, linestyle="--")
        axis.set_xlabel(f"probability that a run of {label(self.comparison.algos[0])} scores higher than one of …")
        return figure

    def _intervals(self, axis: Axes, estimates: dict[str, Estimate]) -> None:
        """Draw one row for each algorithm, the first on top: a mark, and a bar if there is an interval."""
        for row, (algo, estimate) in enumerate(reversed(estimates.items())):
            low, high = estimate.low, estimate.high
            if low is not None and high is not None:
                axis.barh(row, high - low, left=low, height=0.6, color=self._colours[algo], alpha=0.45)
            axis.plot([estimate.point] * 2, [row - 0.3, row + 0.3], color=self._colours[algo], linewidth=2.5)
        axis.set_yticks(range(len(estimates)), [label(algo) for algo in reversed(estimates)])
        axis.grid(visible=False, axis="y")
        # Without this, marks at the edges would be cut off
        axis.use_sticky_edges = False
        axis.margins(x=0.04, y=0.08)

    def sample_efficiency(self) -> Figure:
        """:return: the interquartile mean over all runs and environments, against the share of the steps"""
        figure, axis = plt.subplots(figsize=(7, 4))
        shares = np.linspace(0, 100, N_POINTS)
        for algo in self.algos:
            self._band(axis, algo, shares, stats.iqm_curve(self.comparison.curves(algo)))
        axis.set(xlabel="% of the steps", ylabel="IQM of normalised scores")
        axis.axhline(1, color="#555555", linewidth=1, linestyle="--")
        axis.legend()
        return figure

    def profiles(self) -> Figure:
        """:return: the fraction of runs above each normalised score"""
        figure, axis = plt.subplots(figsize=(7, 4))
        scores = {algo: self.comparison.final(algo) for algo in self.algos}
        lowest, highest = (bound(np.concatenate([array.ravel() for array in scores.values()])) for bound in (np.min, np.max))
        taus = np.linspace(min(lowest, 0), max(highest * 1.02, 0.1), 101)
        for algo in self.algos:
            self._band(axis, algo, taus, stats.profile(scores[algo], taus))
        axis.set(xlabel="normalised score τ", ylabel="fraction of runs above τ", ylim=(-0.02, 1.02))
        axis.legend()
        return figure

    def learning_curves(self) -> Figure:
        """:return: the interquartile mean of returns over runs, for each environment"""
        env_ids = self.comparison.env_ids
        columns = min(3, len(env_ids))
        rows = -(-len(env_ids) // columns)
        # The legend is one line below the axes
        width = max(3.9 * columns, 1.4 * len(self.comparison.algos))
        figure, axes = plt.subplots(rows, columns, figsize=(width, 3.0 * rows), squeeze=False)
        for axis, env_id in zip(axes.flat, env_ids, strict=False):
            self._learning_curves_on(axis, env_id)
        for axis in axes.flat[len(env_ids) :]:
            axis.set_axis_off()
        handles = [Line2D([], [], color=self._colours[algo], linewidth=2.5) for algo in self.comparison.algos]
        names = [label(algo) for algo in self.comparison.algos]
        figure.legend(handles, names, loc="outside lower center", ncols=len(names))
        return figure

    def _learning_curves_on(self, axis: Axes, env_id: str) -> None:
        reference = self.comparison.references[env_id]
        for algo in self.comparison.algos:
            runs = self.comparison.of(algo, env_id)
            # A curve ends at the steps of its own algorithm
            if runs:
                estimates = stats.iqm_curve(np.array([self.comparison.curve(run) for run in runs])[:, None])
                self._band(axis, algo, points(runs[0].task.n_timesteps) / 1000, estimates)
        axis.axhline(reference.threshold, color="#555555", linewidth=1, linestyle="--")
        axis.set(title=env_id, xlabel="thousand steps", ylabel="return")
        low = min(reference.random, axis.get_ylim()[0])
        # A curve far below random actions would flatten all others
        axis.set_ylim(bottom=max(low, reference.random - (reference.threshold - reference.random)))

    def _band(self, axis: Axes, algo: str, x: np.ndarray, estimates: Sequence[Estimate]) -> None:
        """Draw a line, and a band around it if all its points have intervals."""
        first = algo == self.comparison.algos[0]
        colour, width = self._colours[algo], 2.6 if first else 1.6
        means = [each.point for each in estimates]
        axis.plot(x, means, color=colour, linewidth=width, label=label(algo), zorder=3 if first else 2)
        bounds = [(each.low, each.high) for each in estimates if each.low is not None and each.high is not None]
        if len(bounds) == len(estimates):
            low, high = zip(*bounds, strict=True)
            axis.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)


def _png(figure: Figure) -> bytes:
    file = BytesIO()
    figure.set_layout_engine("constrained")
    # Without version and date, the same scores make the same file
    figure.savefig(file, format="png", dpi=130, metadata={"Software": None})
    plt.close(figure)
    return file.getvalue()
