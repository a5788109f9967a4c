"""The tables of a report, as plain rows of text: the page and its Markdown twin print the same ones."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from sb3_vpg.compare import stats
from sb3_vpg.compare.execution import Record
from sb3_vpg.compare.pictures import label
from sb3_vpg.compare.scores import Comparison, area, final_return
from sb3_vpg.compare.stats import Estimate


@dataclass(frozen=True)
class Table:
    """
    :param head: names of the columns
    :param rows: their texts
    :param best: the cells to stand out, as (row, column)
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    best: frozenset[tuple[int, int]] = frozenset()


@dataclass(frozen=True)
class EnvScores:
    """
    What the runs of an algorithm on an environment came to.

    :param final: interquartile mean of the finished agents' mean returns
    :param area: interquartile mean of the mean return over the curve
    """

    final: Estimate
    area: Estimate


def form(values: Sequence[float]) -> str:
    """:return: how to print returns: where they are small, tenths would say nothing"""
    return ".1f" if max(abs(value) for value in values) >= 10 else ".3f"


def env_scores(comparison: Comparison, env_id: str) -> dict[str, EnvScores]:
    """:return: by algorithm, for those that have finished runs on an environment"""
    found = {}
    for algo in comparison.algos:
        runs = comparison.of(algo, env_id)
        if runs:
            measures = (np.array([measure(one) for one in runs]) for measure in (final_return, area))
            found[algo] = EnvScores(*map(stats.iqm, measures))
    return found


def of_environment(comparison: Comparison, env_id: str, scores: dict[str, EnvScores]) -> Table:
    """:return: one row for each algorithm: score, area under the curve, seconds"""
    head = ["", "runs", "steps", "final return: IQM [95%]", "mean ± std", "area under the curve: IQM [95%]"]
    head += ["CPU s (median)", "wall s (median)"]
    rows = []
    for algo in comparison.algos:
        runs = comparison.of(algo, env_id)
        if not runs:
            rows.append([label(algo), "0", *["-"] * (len(head) - 2)])
            continue
        finals = [final_return(one) for one in runs]
        digits = form(finals)
        shown = [scores[algo].final.text(digits), f"{np.mean(finals):{digits}} ± {np.std(finals):{digits}}"]
        shown.append(scores[algo].area.text(digits))
        seconds = [_median(runs, lambda one: one.cpu_seconds), _median(runs, lambda one: one.wall_seconds)]
        rows.append([label(algo), str(len(runs)), f"{runs[0].task.n_timesteps:,}", *shown, *seconds])
    return Table(head, rows, _best(comparison, scores))


def _best(comparison: Comparison, scores: dict[str, EnvScores]) -> frozenset[tuple[int, int]]:
    rows = {algo: row for row, algo in enumerate(comparison.algos)}
    found = set()
    for column, measure in ((3, _final), (5, _area)):
        highest = max((measure(one) for one in scores.values()), default=0.0)
        found |= {(rows[algo], column) for algo, one in scores.items() if measure(one) == highest}
    return frozenset(found)


def _final(scores: EnvScores) -> float:
    return scores.final.point


def _area(scores: EnvScores) -> float:
    return scores.area.point


def _median(runs: Sequence[Record], seconds: Callable[[Record], float | None]) -> str:
    known = [value for value in map(seconds, runs) if value is not None]
    return f"{median(known):.0f}" if known else "-"


def aggregates(comparison: Comparison, overall: dict[str, dict[str, Estimate]]) -> Table:
    """:return: over all environments, of normalised scores"""
    rows = []
    for algo, found in overall.items():
        reached = stats.iqm_curve(comparison.curves(algo).mean(axis=-1, keepdims=True))[0]
        seeds = str(len(comparison.complete_seeds(algo)))
        rows.append([label(algo), seeds, *(one.text() for one in found.values()), reached.text()])
    return Table(["", "seeds", *stats.AGGREGATES, "area under the curve (IQM)"], rows)


def improvement(first: str, against: dict[str, Estimate]) -> Table:
    """:return: the first algorithm against each other one"""
    rows = [[label(algo), found.text()] for algo, found in against.items()]
    return Table(["against", f"P({label(first)} higher) [95%]"], rows)


def references(comparison: Comparison) -> Table:
    """:return: what normalised scores refer to"""
    found = comparison.references
    rows = [[env_id, f"{one.random:.2f}", f"{one.threshold:g}", one.source] for env_id, one in found.items()]
    return Table(["", "random actions (0)", "threshold (1)", "whose threshold"], rows)


def losses(comparison: Comparison, scores: dict[str, dict[str, EnvScores]]) -> list[str]:
    """
    :param comparison: of algorithms
    :param scores: by environment and algorithm
    :return: a sentence for each environment and measure in which another algorithm stands above the first
    """
    first, sentences = comparison.algos[0], []
    for env_id, found in scores.items():
        for name, measure in (("final return", "final"), ("area under the curve", "area")):
            if first not in found:
                continue
            ours: Estimate = getattr(found[first], measure)
            theirs = {algo: getattr(one, measure) for algo, one in found.items() if algo != first}
            above = [(algo, one) for algo, one in theirs.items() if one.point > ours.point]
            digits = form([ours.point])
            named = [f"{label(algo)} {one.text(digits)}{_apart(ours, one)}" for algo, one in above]
            if named:
                sentences.append(f"{env_id}, {name}: {label(first)} {ours.text(digits)}, below {'; '.join(named)}")
    return sentences


def _apart(ours: Estimate, theirs: Estimate) -> str:
    if ours.high is None or theirs.low is None:
        return ""
    return " (intervals apart)" if theirs.low > ours.high else " (intervals overlap)"
