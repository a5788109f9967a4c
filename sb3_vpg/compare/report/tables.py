"""The tables of a report, as plain rows of text: the page and its Markdown twin print the same ones."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from sb3_vpg.compare.report import stats
from sb3_vpg.compare.report.stats import Estimate
from sb3_vpg.compare.results import Comparison, area, final_return, label, machine
from sb3_vpg.compare.runs.records import Record


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
    :param area: of the mean return over the curve
    :param seconds: medians of the CPU seconds, one for each kind of machine; None where they are not known
    """

    final: Estimate
    area: Estimate
    seconds: Sequence[float | None]


def form(values: Sequence[float]) -> str:
    """:return: how to print returns: where they are small, tenths would say nothing"""
    return ".1f" if max(abs(value) for value in values) >= 10 else ".3f"


def env_scores(comparison: Comparison, env_id: str) -> dict[str, EnvScores]:
    """:return: by algorithm, for those that have finished runs on an environment"""
    found = {}
    for algo in comparison.algos:
        runs = comparison.of(algo, env_id)
        if runs:
            final = stats.iqm(np.array([final_return(run) for run in runs]))
            height = stats.iqm(area(np.array([comparison.curve(run) for run in runs])))
            found[algo] = EnvScores(final, height, _medians(comparison, runs, lambda run: run.cpu_seconds))
    return found


def of_environment(comparison: Comparison, env_id: str, scores: dict[str, EnvScores]) -> Table:
    """:return: one row for each algorithm: score, area under the curve, seconds"""
    head = ["", "runs", "steps", "final return: IQM [95%]", "mean ± std", "area under the curve: IQM [95%]"]
    numbers = " / ".join(str(number) for number, _ in enumerate(comparison.machines, 1))
    which = f", machine {numbers}" if len(comparison.machines) > 1 else ""
    head += [f"CPU s (median{which})", f"wall s (median{which})"]
    rows = []
    for algo in comparison.algos:
        runs = comparison.of(algo, env_id)
        if not runs:
            rows.append([label(algo), "0", *["-"] * (len(head) - 2)])
            continue
        finals = [final_return(one) for one in runs]
        digits = form(finals)
        spread = f" ± {np.std(finals, ddof=1):{digits}}" if len(finals) > 1 else ""
        shown = [scores[algo].final.text(digits), f"{np.mean(finals):{digits}}{spread}", scores[algo].area.text(digits)]
        wall = _medians(comparison, runs, lambda one: one.wall_seconds)
        texts = [seconds_text(medians) for medians in (scores[algo].seconds, wall)]
        rows.append([label(algo), str(len(runs)), _steps(runs), *shown, *texts])
    return Table(head, rows, _best(comparison, env_id, scores))


def _best(comparison: Comparison, env_id: str, scores: dict[str, EnvScores]) -> frozenset[tuple[int, int]]:
    rows = {algo: row for row, algo in enumerate(comparison.algos)}
    found = set()
    # Areas are each of its own budget: where these differ, the largest is not the best
    for column, measure in ((3, _final), (5, _area)) if len(comparison.budgets(env_id)) < 2 else ((3, _final),):
        highest = max((measure(one) for one in scores.values()), default=0.0)
        found |= {(rows[algo], column) for algo, one in scores.items() if measure(one) == highest}
    return frozenset(found)


def _final(scores: EnvScores) -> float:
    return scores.final.point


def _area(scores: EnvScores) -> float:
    return scores.area.point


def _medians(comparison: Comparison, runs: Sequence[Record], seconds: Callable[[Record], float | None]) -> list[float | None]:
    known = {name: [seconds(one) for one in runs if machine(one) == name] for name in comparison.machines}
    found = [[value for value in values if value is not None] for values in known.values()]
    return [median(values) if values else None for values in found]


def seconds_text(medians: Sequence[float | None]) -> str:
    """:return: to the second, one for each kind of machine"""
    return " / ".join("-" if value is None else f"{value:.0f}" for value in medians)


def _steps(runs: Sequence[Record]) -> str:
    """:return: those that were trained for, from the fewest to the most"""
    fewest, most = (bound(one.num_timesteps for one in runs) for bound in (min, max))
    return f"{most:,}" if fewest == most else f"{fewest:,} to {most:,}"


def aggregates(comparison: Comparison, overall: dict[str, dict[str, Estimate]]) -> Table:
    """:return: over all environments, of normalised scores"""
    rows = []
    for algo, found in overall.items():
        reached = stats.iqm_curve(area(comparison.curves(algo))[..., None])[0]
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
