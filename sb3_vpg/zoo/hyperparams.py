"""
Where the hyperparameters lie, and what the zoo's ``-conf`` wants to find in a Python module: the dict ``hyperparams``.
"""

from pathlib import Path
from typing import Any

import yaml

_PACKAGE = Path(__file__).resolve().parent.parent


def hyperparams_file(algo: str) -> Path:
    """
    :param algo: name on the command line, such as ``"vpg"``
    :return: our YAML file in the zoo's format: inside the package when installed, beside it in a checkout
    """
    installed = _PACKAGE / "hyperparams"
    folder = installed if installed.is_dir() else _PACKAGE.parent / "hyperparams"
    return folder / f"{algo}.yml"


hyperparams: dict[str, Any] = yaml.safe_load(hyperparams_file("vpg").read_text())
"""The entries of VPG by environment id."""
