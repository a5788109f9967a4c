"""Shows the results of a search, in addition to the zoo's own report: plots, and the best trial as an entry."""

import re
import shlex
import warnings
from pathlib import Path
from typing import Any

import matplotlib
import optuna
from matplotlib import pyplot
from optuna.trial import TrialState
from optuna.visualization.matplotlib import plot_optimization_history, plot_param_importances

from sb3_vpg.common.atomic_files import atomic_replace
from sb3_vpg.zoo.tuning.best_entry import entry_text
from sb3_vpg.zoo.tuning.study import count_trials


def report(study: optuna.Study, storage: str | None, folder: Path | None) -> None:
    """
    Print the best trial as an entry of a hyperparameter file, and draw plots.

    :param study: a study with a completed trial
    :param storage: storage of the study; None if it is only in memory
    :param folder: folder for the plots; None for no plots
    """
    print(f"\nStudy {study.study_name}: {count_trials(study)}")
    try:
        _, text = entry_text(study)
    except ValueError as error:
        print(f"The best trial cannot be shown as an entry: {error}")
    else:
        print(f"The best trial as an entry of a hyperparameter file, with all its hyperparameters:\n\n{text}")
        if storage is not None:
            words = ["best_entry", "--storage", storage, "--study-name", study.study_name, "-o", "FILE.yml"]
            print(f"Write it to a file: {shlex.join(['sb3-vpg', *words])}")
    if folder is not None:
        draw(study, folder)


def draw(study: optuna.Study, folder: Path) -> None:
    """
    Draw the optimisation history and, if completed trials differ in value, the importances of the hyperparameters.

    :param study: a study with a completed trial
    :param folder: folder for the PNG files
    """
    matplotlib.use("Agg")
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", study.study_name)
    drawn = [_save(plot_optimization_history(study), folder / f"study_{name}_history.png")]
    if len({trial.value for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))}) > 1:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            drawn.append(_save(plot_param_importances(study), folder / f"study_{name}_importances.png"))
        if caught:
            print("The importances of some hyperparameters are not accurate: there are too few trials.")
    pyplot.close("all")
    print(f"Plots: {', '.join(map(str, drawn))}")


def _save(axes: Any, picture: Path) -> Path:
    with atomic_replace(picture) as part:
        axes.figure.savefig(part, dpi=150, bbox_inches="tight")
    return picture
