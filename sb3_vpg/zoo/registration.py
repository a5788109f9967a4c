"""Our algorithms in the zoo's tables. The tables are dicts that all of rl_zoo3 shares, so an assignment is enough."""

from rl_zoo3 import ALGOS
from rl_zoo3.hyperparams_opt import HYPERPARAMS_CONVERTER, HYPERPARAMS_SAMPLER

from sb3_vpg.vpg import VPG
from sb3_vpg.zoo.tuning import convert_vpg_params, sample_vpg_params


def register() -> None:
    """See ``sb3_vpg.zoo.register``."""
    ALGOS["vpg"] = VPG
    HYPERPARAMS_SAMPLER["vpg"] = sample_vpg_params
    HYPERPARAMS_CONVERTER["vpg"] = convert_vpg_params
