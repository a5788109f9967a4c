"""When the runs of time_to_solve.py reach their milestones: counts, medians and intervals over the seeds, and goals."""

import math
from typing import Any

import numpy as np

from harness.report import Goal, short, table
from harness.training_run import THRESHOLD

MILESTONES = ("first", "stays", "training")
SECONDS, STEPS = 0, 1
NEVER = (math.inf, math.inf)

Runs = dict[str, list[dict[str, Any]]]


def time_to(run: dict[str, Any], milestone: str) -> tuple[float, float]:
    """:return: CPU seconds and environment steps until the milestone; infinite if it was not reached"""
    if milestone == "training":
        return NEVER if run["training"] is None else (run["training"][1], run["training"][0])
    evaluations = run["evaluations"]
    if milestone == "stays":
        if run["failure"] is not None:
            return NEVER
        too_low = [index for index, (_, _, score) in enumerate(evaluations) if score < THRESHOLD]
        evaluations = evaluations[too_low[-1] + 1 :] if too_low else evaluations
    good = [(seconds, steps) for steps, seconds, score in evaluations if score >= THRESHOLD]
    return good[0] if good else NEVER


def quantile(values: np.ndarray, q: float) -> Any:
    """A quantile without interpolation, which would give NaN between two infinite neighbours."""
    return np.quantile(values, q, method="inverted_cdf")


def median_interval(values: np.ndarray, n_resamples: int = 10_000) -> tuple[float, float]:
    """:return: 95 % bootstrap interval of the median over seeds"""
    drawn = np.random.default_rng(0).integers(0, len(values), (n_resamples, len(values)))
    medians = np.median(values[drawn], axis=1)
    return float(quantile(medians, 0.025)), float(quantile(medians, 0.975))


def summary(runs: list[dict[str, Any]], milestone: str) -> tuple[int, np.ndarray]:
    """:return: the number of runs that reached the milestone, and seconds and steps of each run, shape (2, seeds)"""
    values = np.array([time_to(run, milestone) for run in runs]).T
    return int(np.isfinite(values[SECONDS]).sum()), values


def median(runs: Runs, name: str, milestone: str, quantity: int) -> float:
    """
    :param quantity: ``SECONDS`` or ``STEPS``
    :return: the median over the seeds; NaN if the setting ``name`` was not run
    """
    return float(np.median(summary(runs[name], milestone)[1][quantity])) if name in runs else math.nan


def formatted(value: float, form: str) -> str:
    return format(value, form) if math.isfinite(value) else "never"


def spread(values: np.ndarray, form: str) -> str:
    """:return: median, quartiles, and the interval of the median in brackets"""
    if not np.isfinite(values).any():
        return "never"
    low, high = median_interval(values)
    numbers = (float(np.median(values)), float(quantile(values, 0.25)), float(quantile(values, 0.75)), low, high)
    middle, first, third, least, most = (formatted(number, form) for number in numbers)
    return f"{middle}, {first} to {third} [{least} to {most}]"


def milestone_table(labels: dict[str, str], runs: Runs) -> list[str]:
    rows = []
    for name, label in labels.items():
        for milestone in MILESTONES:
            n, values = summary(runs[name], milestone)
            cells = [label, milestone, f"{n} of {len(runs[name])}"]
            cells += [spread(values[SECONDS], ",.2f"), spread(values[STEPS], ",.0f")]
            ratios = [median(runs, name, milestone, what) / median(runs, "ppo", milestone, what) for what in (SECONDS, STEPS)]
            rows.append(cells + [f"{value:.2f}" if math.isfinite(value) else "" for value in ratios])
    head = ["", "milestone", "reached by", "CPU s: median, quartiles [95 %]", "steps: median, quartiles [95 %]"]
    return table([*head, "CPU s / PPO's", "steps / PPO's"], rows)


def overview(labels: dict[str, str], runs: Runs) -> list[str]:
    """:return: a row for each setting: how many runs reach each milestone, and the medians with intervals of the seconds"""
    rows = []
    for name, label in labels.items():
        cells = [label]
        for milestone in MILESTONES:
            n, values = summary(runs[name], milestone)
            text = "never"
            if np.isfinite(values).any():
                middle = float(np.median(values[SECONDS]))
                steps = float(np.median(values[STEPS]))
                times = [formatted(number, ",.2f") for number in (middle, *median_interval(values[SECONDS]))]
                after = f", {short(steps)} steps" if math.isfinite(steps) else ""
                text = f"{times[0]} s [{times[1]}, {times[2]}]{after}"
            cells.append(f"{text} ({n} of {len(runs[name])})")
        rows.append(cells)
    return ["## Overview", "", *table(["", *MILESTONES], rows)]


def goals(runs: Runs) -> list[Goal]:
    result = []
    for name in ("fast", "frugal"):
        for milestone in MILESTONES if name in runs else ():
            n, values = summary(runs[name], milestone)
            result.append(Goal(f"{name}, {milestone}: seeds that reach it", n, values.shape[1], form=".0f"))
    for milestone, limit in (("first", 0.5), ("training", 2.0)):
        seconds = median(runs, "fast", milestone, SECONDS)
        result.append(Goal(f"fast, {milestone}: median CPU s", seconds, limit, at_least=False))
    for milestone in MILESTONES:
        ratio = median(runs, "fast", milestone, SECONDS) / median(runs, "ppo", milestone, SECONDS)
        result.append(Goal(f"fast, {milestone}: median CPU s / PPO's", ratio, 1 / 8, at_least=False, form=".3f"))
    steps = median(runs, "frugal", "first", STEPS)
    return [*result, Goal("frugal, first: median steps", steps, 12_000, at_least=False, form=",.0f")]


def run_table(labels: dict[str, str], runs: Runs) -> list[str]:
    """:return: a row for each seed and setting"""
    rows = []
    for seed in range(max(map(len, runs.values()))):
        for name, label in labels.items():
            run = runs[name][seed]
            cells = []
            for milestone in MILESTONES:
                seconds, steps = time_to(run, milestone)
                cells.append(f"{seconds:,.2f} s, {steps:,}" if math.isfinite(seconds) else "never")
            last = f"{run['evaluations'][-1][2]:.1f}" if run["failure"] is None else "failed"
            rows.append([str(seed), label, *cells, f"{run['seconds']:,.2f} s", last])
    return table(["seed", "", *MILESTONES, "whole budget", "last evaluation"], rows)
