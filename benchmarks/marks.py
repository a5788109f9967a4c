"""When the runs of time_to_solve.py reach their marks, over the seeds: counts, medians, intervals and goals."""

import math
from typing import Any

import numpy as np
from report import Goal, table
from solving import THRESHOLD

MARKS = ("first", "stays", "training")
SECONDS, STEPS = 0, 1
NEVER = (math.inf, math.inf)

Runs = dict[str, list[dict[str, Any]]]


def reached(run: dict[str, Any], mark: str) -> tuple[float, float]:
    """:return: CPU seconds and environment steps to the mark; infinite if it was not reached"""
    if mark == "training":
        return NEVER if run["training"] is None else (run["training"][1], run["training"][0])
    evaluations = run["evaluations"]
    if mark == "stays":
        if run["failure"] is not None:
            return NEVER
        too_low = [index for index, (_, _, score) in enumerate(evaluations) if score < THRESHOLD]
        evaluations = evaluations[too_low[-1] + 1 :] if too_low else evaluations
    good = [(seconds, steps) for steps, seconds, score in evaluations if score >= THRESHOLD]
    return good[0] if good else NEVER


def quantile(values: np.ndarray, q: float) -> Any:
    """Without a weighted mean of two neighbours, which is no number where both are infinite."""
    return np.quantile(values, q, method="inverted_cdf")


def median_interval(values: np.ndarray, n_resamples: int = 10_000) -> tuple[float, float]:
    """:return: 95 % bootstrap interval of the median over seeds"""
    drawn = np.random.default_rng(0).integers(0, len(values), (n_resamples, len(values)))
    medians = np.median(values[drawn], axis=1)
    return float(quantile(medians, 0.025)), float(quantile(medians, 0.975))


def summary(runs: list[dict[str, Any]], mark: str) -> tuple[int, np.ndarray]:
    """:return: how many reached the mark, and seconds and steps of each, shape (2, seeds)"""
    values = np.array([reached(run, mark) for run in runs]).T
    return int(np.isfinite(values[SECONDS]).sum()), values


def median(runs: Runs, name: str, mark: str, what: int) -> float:
    """:return: the median over the seeds; NaN if there is no such setting among the runs"""
    return float(np.median(summary(runs[name], mark)[1][what])) if name in runs else math.nan


def shown(value: float, form: str) -> str:
    return format(value, form) if math.isfinite(value) else "never"


def spread(values: np.ndarray, form: str) -> str:
    """:return: median, quartiles, and the interval of the median in brackets"""
    if not np.isfinite(values).any():
        return "never"
    low, high = median_interval(values)
    numbers = (float(np.median(values)), float(quantile(values, 0.25)), float(quantile(values, 0.75)), low, high)
    middle, first, third, least, most = (shown(number, form) for number in numbers)
    return f"{middle}, {first} to {third} [{least} to {most}]"


def mark_table(labels: dict[str, str], runs: Runs) -> list[str]:
    rows = []
    for name, label in labels.items():
        for mark in MARKS:
            n, values = summary(runs[name], mark)
            cells = [label, mark, f"{n} of {len(runs[name])}", spread(values[SECONDS], ",.2f"), spread(values[STEPS], ",.0f")]
            ratios = [median(runs, name, mark, what) / median(runs, "ppo", mark, what) for what in (SECONDS, STEPS)]
            rows.append(cells + [f"{value:.2f}" if math.isfinite(value) else "" for value in ratios])
    head = ["", "mark", "reached by", "CPU s: median, quartiles [95 %]", "steps: median, quartiles [95 %]"]
    return table([*head, "CPU s / PPO's", "steps / PPO's"], rows)


def goals(runs: Runs) -> list[Goal]:
    found = []
    for name in ("fast", "frugal"):
        for mark in MARKS if name in runs else ():
            n, values = summary(runs[name], mark)
            found.append(Goal(f"{name}, {mark}: seeds that reach it", n, values.shape[1], form=".0f"))
    for mark, limit in (("first", 0.5), ("training", 2.0)):
        found.append(Goal(f"fast, {mark}: median CPU s", median(runs, "fast", mark, SECONDS), limit, at_least=False))
    for mark in MARKS:
        times = median(runs, "fast", mark, SECONDS) / median(runs, "ppo", mark, SECONDS)
        found.append(Goal(f"fast, {mark}: median CPU s / PPO's", times, 1 / 8, at_least=False, form=".3f"))
    steps = median(runs, "frugal", "first", STEPS)
    return [*found, Goal("frugal, first: median steps", steps, 12_000, at_least=False, form=",.0f")]


def every_run(labels: dict[str, str], runs: Runs) -> list[str]:
    rows = []
    for seed in range(max(map(len, runs.values()))):
        for name, label in labels.items():
            run = runs[name][seed]
            cells = []
            for mark in MARKS:
                seconds, steps = reached(run, mark)
                cells.append(f"{seconds:,.2f} s, {steps:,}" if math.isfinite(seconds) else "never")
            last = f"{run['evaluations'][-1][2]:.1f}" if run["failure"] is None else "gave up"
            rows.append([str(seed), label, *cells, f"{run['seconds']:,.2f} s", last])
    return table(["seed", "", *MARKS, "whole budget", "last evaluation"], rows)
