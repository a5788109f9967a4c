"""The algorithms that this package adds to rl-zoo3."""

from typing import TYPE_CHECKING

import sb3_vpg

if TYPE_CHECKING:
    # The import takes seconds, for which ``sb3-vpg --help`` should not wait
    from stable_baselines3.common.base_class import BaseAlgorithm

ALGORITHMS = {"vpg": "VPG", "random_search": "RandomSearch"}
"""Our algorithms by their name on the command line, as ``sb3_vpg`` exports them. The first is the command's default."""
DEFAULT_ALGORITHM = next(iter(ALGORITHMS))


def algorithm_class(algo: str) -> "type[BaseAlgorithm]":
    """:return: the class of one of ours, by its name on the command line"""
    found: type[BaseAlgorithm] = getattr(sb3_vpg, ALGORITHMS[algo])
    return found
