"""Our hyperparameter files. ``-conf sb3_vpg.zoo.hyperparams`` makes the zoo read the dict ``hyperparams`` of this module."""

from pathlib import Path
from typing import Any

import yaml

from sb3_vpg.zoo.package_data import packaged


def hyperparams_file(algo: str) -> Path:
    """
    :param algo: name on the command line, such as ``"vpg"``
    :return: our YAML file in the zoo's format: inside the package when installed, beside it in a checkout
    """
    return packaged("hyperparams") / f"{algo}.yml"


hyperparams: dict[str, Any] = yaml.safe_load(hyperparams_file("vpg").read_text())
"""The entries of VPG, by environment id."""
