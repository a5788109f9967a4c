"""Draw the learning curve of one run from the zoo's files in its folder."""

import json
import zipfile
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from stable_baselines3.common.monitor import LoadMonitorResultsError, get_monitor_files, load_results

from sb3_vpg.common.atomic_files import atomic_replace

EPISODES_PER_ROW = "episodes_per_row"
"""Key in the first line of a compact monitor file: over how many episodes each row is a mean."""
_WINDOW = 100


def draw_learning_curve(run: Path, title: str, picture: Path) -> Path | None:
    """
    Draw the return of every training episode, the mean of the last 100, and the evaluations if there are any.

    :param run: folder with ``*.monitor.csv`` and optionally ``evaluations.npz``
    :param title: of the picture
    :param picture: the file to write
    :return: ``picture``, or None if the run recorded no episode
    :raises ValueError: if the files are damaged
    """
    try:
        return _draw(run, title, picture)
    except (ValueError, LookupError, AssertionError, TypeError, EOFError, zipfile.BadZipFile) as error:
        why = f"{type(error).__name__}: {error}".removesuffix(": ")
        raise ValueError(f"the curves of {run} (*.monitor.csv, evaluations.npz) cannot be read: {why}") from error


def _draw(run: Path, title: str, picture: Path) -> Path | None:
    try:
        episodes = load_results(str(run))
    except LoadMonitorResultsError:
        return None
    if episodes.empty:
        return None
    steps, returns = episodes["l"].cumsum().to_numpy(), episodes["r"].to_numpy()
    figure = Figure(figsize=(7.0, 4.0), layout="constrained")
    axes = figure.subplots()
    per_row = _episodes_per_row(run)
    label = "training episode" if per_row == 1 else f"mean of {per_row} training episodes"
    axes.plot(steps, returns, ".", color="0.75", markersize=3, label=label)
    rows = -(-_WINDOW // per_row)
    if len(returns) >= rows > 1:
        means = np.convolve(returns, np.full(rows, 1 / rows), mode="valid")
        axes.plot(steps[rows - 1 :], means, color="C0", label=f"mean of {rows * per_row} training episodes")
    if (run / "evaluations.npz").is_file():
        evaluations = np.load(run / "evaluations.npz")
        results = evaluations["results"]
        axes.plot(evaluations["timesteps"], results.mean(axis=1), "o-", color="C1", markersize=4, label="evaluation")
        axes.fill_between(
            evaluations["timesteps"], results.min(axis=1), results.max(axis=1), color="C1", alpha=0.2, linewidth=0
        )
    axes.set(title=title, xlabel="environment steps", ylabel="return")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.legend(loc="lower right")
    with atomic_replace(picture) as part:
        figure.savefig(part, dpi=150)
    return picture


def _episodes_per_row(run: Path) -> int:
    """Return 1, or the number in the compact monitor files of an agent that ships."""
    counts = [1]
    for name in get_monitor_files(str(run)):
        with open(name) as file:
            counts.append(int(json.loads(file.readline().lstrip("#")).get(EPISODES_PER_ROW, 1)))
    return max(counts)
