"""The algorithms that this package adds to rl-zoo3, and the names of all."""

import ast
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import sb3_vpg

if TYPE_CHECKING:
    # At run time, ``sb3-vpg --help`` would wait seconds for this import
    from stable_baselines3.common.base_class import BaseAlgorithm

ALGORITHMS = {"vpg": "VPG", "maskable_vpg": "MaskableVPG", "vpg_lstm": "RecurrentVPG", "random_search": "RandomSearch"}
"""From the name on the command line to the class that ``sb3_vpg`` exports. The first is the default of the commands."""
DEFAULT_ALGORITHM = next(iter(ALGORITHMS))
VPG_ALGORITHMS = ("vpg", "maskable_vpg", "vpg_lstm")
"""VPG and its subclasses: they save checkpoints, can be resumed, and share a search space."""
CONTRIB_ALGORITHMS = {"ppo_mask": "MaskablePPO"}
"""Algorithms of sb3_contrib that rl_zoo3 does not have, to compare with."""
ADDED_ALGORITHMS = (*ALGORITHMS, *CONTRIB_ALGORITHMS)
"""Algorithms that rl_zoo3 does not have. Our files have all of their hyperparameters."""


def algorithm_class(algo: str) -> "type[BaseAlgorithm]":
    """:return: the class of one of our algorithms, given its name on the command line"""
    algorithm: type[BaseAlgorithm] = getattr(sb3_vpg, ALGORITHMS[algo])
    return algorithm


def algorithm_names() -> list[str]:
    """:return: the names of rl_zoo3's algorithms and ours on the command line; if possible, without the import of rl_zoo3"""
    try:
        # A program that has imported rl_zoo3 may have added algorithms
        names = [] if "rl_zoo3" in sys.modules else _names_in_source()
    except (OSError, ValueError):
        # The source has another form than we know
        names = []
    if not names:
        from rl_zoo3 import ALGOS

        names = list(ALGOS)
    return list(dict.fromkeys([*names, *ADDED_ALGORITHMS]))


def _names_in_source() -> list[str]:
    """
    :return: the keys of ``rl_zoo3.ALGOS``, read from its source
    :raises OSError: if there is no such file
    :raises ValueError: if it does not define this table, or if its keys are not plain strings
    """
    package = find_spec("rl_zoo3")
    file = Path(package.origin if package and package.origin else "").with_name("utils.py")
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "ALGOS" and isinstance(node.value, ast.Dict):
            return [ast.literal_eval(key) for key in node.value.keys if key is not None]
    raise ValueError(f"{file} does not define ALGOS")
