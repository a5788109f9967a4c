"""The algorithms that this package adds to rl-zoo3."""

from typing import TYPE_CHECKING

import sb3_vpg

if TYPE_CHECKING:
    # At run time, ``sb3-vpg --help`` would wait seconds for this import
    from stable_baselines3.common.base_class import BaseAlgorithm

ALGORITHMS = {"vpg": "VPG", "random_search": "RandomSearch"}
"""From the name on the command line to the class that ``sb3_vpg`` exports. The first is the default of the commands."""
DEFAULT_ALGORITHM = next(iter(ALGORITHMS))


def algorithm_class(algo: str) -> "type[BaseAlgorithm]":
    """:return: the class of one of our algorithms, given its name on the command line"""
    algorithm: type[BaseAlgorithm] = getattr(sb3_vpg, ALGORITHMS[algo])
    return algorithm
