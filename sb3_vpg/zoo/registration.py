"""Add our algorithms to the zoo's tables. All of rl_zoo3 shares them, so they are changed in place."""

from typing import Any

import sb3_contrib
from rl_zoo3 import ALGOS
from rl_zoo3.hyperparams_opt import HYPERPARAMS_CONVERTER, HYPERPARAMS_SAMPLER

import sb3_vpg.envs  # noqa: F401  # registers them in Gymnasium
from sb3_vpg.zoo.algorithms import ALGORITHMS, CONTRIB_ALGORITHMS, VPG_ALGORITHMS, algorithm_class
from sb3_vpg.zoo.tuning.search_space import convert_vpg_params, sample_vpg_params


def register() -> None:
    """See ``sb3_vpg.zoo.register``."""
    ALGOS.update({algo: algorithm_class(algo) for algo in ALGORITHMS})
    ALGOS.update({algo: getattr(sb3_contrib, name) for algo, name in CONTRIB_ALGORITHMS.items()})
    HYPERPARAMS_SAMPLER.update(dict.fromkeys(VPG_ALGORITHMS, sample_vpg_params), random_search=_no_search_space)
    HYPERPARAMS_CONVERTER.update(dict.fromkeys(VPG_ALGORITHMS, convert_vpg_params), random_search=_no_search_space)
    HYPERPARAMS_SAMPLER["ppo_mask"], HYPERPARAMS_CONVERTER["ppo_mask"] = (
        HYPERPARAMS_SAMPLER["ppo"],
        HYPERPARAMS_CONVERTER["ppo"],
    )


def _no_search_space(*args: Any, **kwargs: Any) -> dict[str, Any]:
    """:raises ValueError: always"""
    raise ValueError(
        "random_search has no hyperparameters to search: its weights are drawn at random. Run 'sb3-vpg train --algo "
        "random_search' with several seeds, or optimize another algorithm"
    )
