"""The tables of a report, as rows of text. The HTML page and the Markdown file print the same tables."""

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
    :param rows: texts of the cells
    :param best: cells to print bold, as (row, column)
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    best: frozenset[tuple[int, int]] = frozenset()


@dataclass(frozen=True)
class EnvScores:
    """
    Scores of an algorithm on an environment.

    :param final: interquartile mean of the mean returns of the finished agents
    :param area: interquartile mean of the areas under the learning curves
    :param seconds: median CPU seconds on each machine; None if they are unknown
    """

    final: Estimate
    area: Estimate
    seconds: Sequence[float | None]


def number_format(values: Sequence[float]) -> str:
    """:return: the format of returns: one decimal if any is at least 10 in size, otherwise three"""
    return ".1f" if max(abs(value) for value in values) >= 10 else ".3f"


def env_scores(comparison: Comparison, env_id: str) -> dict[str, EnvScores]:
    """:return: the scores of each algorithm that has finished runs on an environment"""
    scores = {}
    for algo in comparison.algos:
        runs = comparison.of(algo, env_id)
        if runs:
            final = stats.iqm(np.array([final_return(run) for run in runs]))
            height = stats.iqm(area(np.array([comparison.curve(run) for run in runs])))
            scores[algo] = EnvScores(final, height, _medians(comparison, runs, lambda run: run.cpu_seconds))
    return scores


def final_returns(comparison: Comparison, scores: dict[str, dict[str, EnvScores]]) -> Table:
    """
    :param scores: by environment and algorithm
    :return: a table with one row for each environment: the final return of each algorithm, and the steps it was given
    """
    same_steps = all(len(comparison.budgets(env_id)) < 2 for env_id in comparison.env_ids)
    rows, best = [], set()
    for number, (env_id, by_algo) in enumerate(scores.items()):
        cells = [", ".join(f"{steps:,}" for steps in comparison.budgets(env_id)) or "-"] if same_steps else []
        n_before = 1 + len(cells)
        for column, algo in enumerate(comparison.algos, n_before):
            runs = comparison.of(algo, env_id)
            if not runs:
                cells.append("-")
                continue
            final = by_algo[algo].final
            after = "" if same_steps else f" after {runs[0].task.n_timesteps:,}"
            cells.append(f"{final.text(number_format([final_return(run) for run in runs]))}{after}")
            if final.point == max(other.final.point for other in by_algo.values()):
                best.add((number, column))
        rows.append([env_id, *cells])
    head = ["", *(["steps"] if same_steps else []), *map(label, comparison.algos)]
    return Table(head, rows, frozenset(best))


def of_environment(comparison: Comparison, env_id: str, scores: dict[str, EnvScores]) -> Table:
    """:return: a table with one row for each algorithm: final return, area under the curve, seconds"""
    head = ["", "runs", "steps", "final return: IQM [95%]", "mean ± std", "area under the curve: IQM [95%]"]
    numbers = " / ".join(str(number) for number, _ in enumerate(comparison.machines, 1))
    on_machines = f", machine {numbers}" if len(comparison.machines) > 1 else ""
    head += [f"CPU s (median{on_machines})", f"wall s (median{on_machines})"]
    rows = []
    for algo in comparison.algos:
        runs = comparison.of(algo, env_id)
        if not runs:
            rows.append([label(algo), "0", *["-"] * (len(head) - 2)])
            continue
        finals = [final_return(run) for run in runs]
        digits = number_format(finals)
        spread = f" ± {np.std(finals, ddof=1):{digits}}" if len(finals) > 1 else ""
        returns = [scores[algo].final.text(digits), f"{np.mean(finals):{digits}}{spread}", scores[algo].area.text(digits)]
        wall = _medians(comparison, runs, lambda run: run.wall_seconds)
        seconds = [seconds_text(medians) for medians in (scores[algo].seconds, wall)]
        rows.append([label(algo), str(len(runs)), _steps(runs), *returns, *seconds])
    return Table(head, rows, _best(comparison, env_id, scores))


def _best(comparison: Comparison, env_id: str, scores: dict[str, EnvScores]) -> frozenset[tuple[int, int]]:
    """:return: the cells of the best final return (column 3) and of the best area (column 5)"""
    columns = {3: {algo: each.final.point for algo, each in scores.items()}}
    # Areas over different numbers of steps cannot be compared
    if len(comparison.budgets(env_id)) < 2:
        columns[5] = {algo: each.area.point for algo, each in scores.items()}
    rows = {algo: row for row, algo in enumerate(comparison.algos)}
    return frozenset(
        (rows[algo], column)
        for column, values in columns.items()
        for algo, value in values.items()
        if value == max(values.values())
    )


def _medians(comparison: Comparison, runs: Sequence[Record], seconds: Callable[[Record], float | None]) -> list[float | None]:
    """:return: the median seconds of the runs on each machine; None if they are unknown"""
    by_machine = [[seconds(run) for run in runs if machine(run) == name] for name in comparison.machines]
    known = [[value for value in values if value is not None] for values in by_machine]
    return [median(values) if values else None for values in known]


def seconds_text(medians: Sequence[float | None]) -> str:
    """:return: rounded seconds of each machine"""
    return " / ".join("-" if value is None else f"{value:.0f}" for value in medians)


def _steps(runs: Sequence[Record]) -> str:
    """:return: the range of the environment steps that the runs were trained for"""
    fewest, most = (bound(run.num_timesteps for run in runs) for bound in (min, max))
    return f"{most:,}" if fewest == most else f"{fewest:,} to {most:,}"


def aggregates(comparison: Comparison, overall: dict[str, dict[str, Estimate]]) -> Table:
    """:return: a table of the aggregates over all environments"""
    rows = []
    for algo, estimates in overall.items():
        height = stats.iqm(area(comparison.curves(algo)))
        seeds = str(len(comparison.complete_seeds(algo)))
        rows.append([label(algo), seeds, *(estimate.text() for estimate in estimates.values()), height.text()])
    return Table(["", "seeds", *stats.AGGREGATES, "area under the curve (IQM)"], rows)


def improvement(first: str, improvements: dict[str, Estimate]) -> Table:
    """:return: a table of the probabilities that the first algorithm scores higher than each other one"""
    rows = [[label(algo), estimate.text()] for algo, estimate in improvements.items()]
    return Table(["against", f"P({label(first)} higher) [95%]"], rows)


def references(comparison: Comparison) -> Table:
    """:return: a table of the returns with the normalised scores 0 and 1"""
    scale = comparison.references
    rows = [[env_id, f"{each.random:.2f}", f"{each.threshold:g}", each.source] for env_id, each in scale.items()]
    return Table(["", "random actions (0)", "threshold (1)", "source of the threshold"], rows)
