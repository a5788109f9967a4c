"""Add our algorithms to the zoo's tables. All of rl_zoo3 shares these dicts, so they are changed in place."""

from typing import Any

from rl_zoo3 import ALGOS
from rl_zoo3.hyperparams_opt import HYPERPARAMS_CONVERTER, HYPERPARAMS_SAMPLER

from sb3_vpg.zoo.algorithms import ALGORITHMS, algorithm_class
from sb3_vpg.zoo.tuning.search_space import convert_vpg_params, sample_vpg_params


def register() -> None:
    """See ``sb3_vpg.zoo.register``."""
    ALGOS.update({algo: algorithm_class(algo) for algo in ALGORITHMS})
    HYPERPARAMS_SAMPLER.update(vpg=sample_vpg_params, random_search=_no_search_space)
    HYPERPARAMS_CONVERTER.update(vpg=convert_vpg_params, random_search=_no_search_space)


def _no_search_space(*args: Any, **kwargs: Any) -> dict[str, Any]:
    """:raises ValueError: always"""
    raise ValueError(
        "random_search has no hyperparameters to search: its weights are drawn at random. Run 'sb3-vpg train --algo "
        "random_search' with several seeds, or optimize another algorithm"
    )
