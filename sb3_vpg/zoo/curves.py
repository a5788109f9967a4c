"""The learning curve of one run, from the files that the zoo leaves in its folder."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from stable_baselines3.common.monitor import LoadMonitorResultsError, load_results

from sb3_vpg.files import replaced_whole

_WINDOW = 100


def draw_learning_curve(run: Path, title: str) -> Path | None:
    """
    Draw the return of every training episode, its mean over the last 100, and the evaluations where there are any.

    :param run: folder with ``*.monitor.csv`` and perhaps ``evaluations.npz``
    :param title: of the picture
    :return: the picture's path, or None if the run recorded no episode
    """
    try:
        episodes = load_results(str(run))
    except LoadMonitorResultsError:
        return None
    if episodes.empty:
        return None
    steps, returns = episodes["l"].cumsum().to_numpy(), episodes["r"].to_numpy()
    figure = Figure(figsize=(7.0, 4.0), layout="constrained")
    axes = figure.subplots()
    axes.plot(steps, returns, ".", color="0.75", markersize=3, label="training episode")
    if len(returns) >= _WINDOW:
        means = np.convolve(returns, np.full(_WINDOW, 1 / _WINDOW), mode="valid")
        axes.plot(steps[_WINDOW - 1 :], means, color="C0", label=f"mean of {_WINDOW} training episodes")
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
    picture = run / "learning_curve.png"
    with replaced_whole(picture) as part:
        figure.savefig(part, dpi=150)
    return picture
