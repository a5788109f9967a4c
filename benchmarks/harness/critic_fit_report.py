"""The report of critic_fit.py: its tables and its figure."""

from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.report import table
from harness.task_settings import as_text
from sb3_vpg.compare.report.stats import iqm

Records = list[dict[str, Any]]
"""
The settings. Each has its ``part``, ``env_id``, ``label``, ``steps`` and ``entry``, the number of ``seeds``, and by seed the
finished ``runs``: what ``critic_fit.train`` returned.
"""

# Mean and spread over 5 seeds, from table 2 of the paper
PUBLISHED = {
    "published: VPG": {
        "Hopper-v4": (2601.57, 232.14),
        "Walker2d-v4": (3457.79, 646.70),
        "HalfCheetah-v4": (4928.88, 807.04),
    },
    "published: PPO": {
        "Hopper-v4": (1965.29, 478.14),
        "Walker2d-v4": (2527.74, 507.40),
        "HalfCheetah-v4": (4488.60, 2699.54),
    },
}
HEAD = ["", "runs", "final return", "IQM [95 %]", "last training episodes", "IQM [95 %]", "CPU s"]


def values(record: dict[str, Any], key: str) -> np.ndarray:
    return np.array([run[key] for run in record["runs"].values()])


def spread(mean: float, deviation: float) -> str:
    return f"{mean:.0f} ± {deviation:.0f}"


def row(record: dict[str, Any]) -> list[str]:
    label = {"paper": f"the paper's settings, {record['label']}"}.get(record["part"], record["label"])
    cells = [label, f"{len(record['runs'])} of {record['seeds']}"]
    if not record["runs"]:
        return [*cells, *[""] * 5]
    for key in ("score", "training"):
        returns = values(record, key)
        cells += [spread(returns.mean(), returns.std(ddof=min(1, len(returns) - 1))), iqm(returns).text(".0f")]
    return [*cells, f"{np.median(values(record, 'seconds')):,.0f}"]


def result_tables(records: Records) -> list[str]:
    lines = []
    long_runs = [record for record in records if record["part"] != "passes"]
    for env_id, group in groupby(long_runs, lambda record: record["env_id"]):
        compared = list(group)
        published = [[name, "5", spread(*numbers[env_id]), "", "", "", ""] for name, numbers in PUBLISHED.items()]
        lines += [f"## {env_id}, {compared[0]['steps']:,} steps", "", *table(HEAD, [*map(row, compared), *published])]
    return lines


def passes_section(records: Records) -> list[str]:
    chosen = [record for record in records if record["part"] == "passes"]
    return [
        f"## Passes of the critic: {chosen[0]['env_id']}, {chosen[0]['steps']:,} steps",
        "",
        "Our entry with other numbers of passes of the critic, all else equal. The picture has the mean over the runs, with",
        "their range.",
        "",
        *table(HEAD, [row(record) for record in chosen]),
        "![Learning curves, and final returns over CPU seconds](critic_fit.png)",
        "",
    ]


def missing_section(records: Records) -> list[str]:
    lines = []
    for record in records:
        seeds = [str(seed) for seed in range(record["seeds"]) if seed not in record["runs"]]
        if seeds:
            lines.append(f"- {record['part']}, {record['env_id']}, {record['label']}: seeds {', '.join(seeds)}")
    return ["## Missing runs", "", *(lines or ["None."]), ""]


def settings_table(records: Records) -> list[str]:
    """:return: the hyperparameters with which the finished runs were made"""
    rows = [[each["part"], each["env_id"], each["label"], as_text(each["entry"])] for each in records if each["runs"]]
    return ["## Settings", "", "What is not named has the default of the class.", "", *table(["", "", "", "settings"], rows)]


def report(records: Records) -> list[str]:
    """:return: the lines of the report"""
    failed = sum(run["failure"] is not None for record in records for run in record["runs"].values())
    return [
        "Final return: mean of 50 deterministic episodes of the finished agent, with frozen statistics of its observations.",
        "Last training episodes: mean return of the last 100, with sampled actions. Both have mean ± standard deviation over",
        "the runs, and the interquartile mean (IQM) with its 95 % bootstrap interval; fewer than 5 runs have no interval.",
        "CPU s: median over the runs, training alone, one thread. One pass is one gradient step of the critic on the whole",
        "rollout or, if the settings have a `batch_size`, one on each of its minibatches. No seed was left out.",
        "",
        "Published numbers are those of the paper's table 2, for the v3 environments. PPO there is the authors' run. In the",
        "benchmark of rl-zoo3 (one agent each, one million steps) PPO has 2410 on Hopper, 3479 on Walker2d and 5819 on",
        "HalfCheetah.",
        "",
        f"Runs that diverged: {failed}.",
        "",
        *result_tables(records),
        *passes_section(records),
        *missing_section(records),
        *settings_table(records),
    ]


def draw_curves(axes: Axes, record: dict[str, Any], colour: str) -> None:
    curves = values(record, "curve")
    millions = (np.arange(curves.shape[1]) + 0.5) * record["steps"] / curves.shape[1] / 1e6
    axes.plot(millions, curves.mean(axis=0), color=colour, label=record["label"])
    axes.fill_between(millions, curves.min(axis=0), curves.max(axis=0), color=colour, alpha=0.15, linewidth=0)


def draw(records: Records, path: Path) -> None:
    """Draw the finished runs of the part ``passes``: learning curves, and final returns over CPU seconds."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    chosen = [record for record in records if record["part"] == "passes" and record["runs"]]
    # Okabe and Ito's palette, which colour-blind readers can distinguish
    for record, colour in zip(chosen, ("#56B4E9", "#0072B2", "#009E73", "#D55E00"), strict=False):
        draw_curves(left, record, colour)
        seconds, scores = values(record, "seconds"), values(record, "score")
        right.scatter(seconds, scores, color=colour, alpha=0.5)
        right.plot(seconds.mean(), scores.mean(), "D", color=colour, markersize=9, label=record["label"])
    left.set(xlabel="million steps", ylabel="return of training episodes")
    right.set(xlabel="CPU seconds", ylabel="final return (diamond: mean of the runs)", xlim=(0, None))
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    if chosen:
        left.legend(frameon=False)
    figure.savefig(path, dpi=150)
