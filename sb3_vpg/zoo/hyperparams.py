"""Our hyperparameter files. ``-conf sb3_vpg.zoo.hyperparams`` makes the zoo read the dict ``hyperparams`` of this module."""

from pathlib import Path
from typing import Any

import yaml

from sb3_vpg.zoo.algorithms import ADDED_ALGORITHMS
from sb3_vpg.zoo.package_data import packaged


def hyperparams_file(algo: str) -> Path:
    """
    :param algo: name on the command line, such as ``"vpg"``
    :return: our YAML file in the zoo's format: inside the package when installed, beside it in a checkout
    """
    return packaged("hyperparams") / f"{algo}.yml"


def own_file(algo: str, env_id: str) -> Path | None:
    """
    :param algo: name on the command line
    :param env_id: environment id
    :return: our file of hyperparameters; of an algorithm of the zoo's, only if it has an entry for this environment. None: the
        zoo's own file is used
    """
    file = hyperparams_file(algo)
    is_ours = algo in ADDED_ALGORITHMS or (file.is_file() and env_id in yaml.safe_load(file.read_text()))
    return file if is_ours else None


hyperparams: dict[str, Any] = yaml.safe_load(hyperparams_file("vpg").read_text())
"""The entries of VPG, by environment id."""
