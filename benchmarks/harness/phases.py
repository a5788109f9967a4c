"""How much of the CPU time of ``VPG.learn`` each phase takes."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

from sb3_vpg import VPG

PHASES = {"collection": "collect_rollouts", "step of the policy": "_train_policy", "fit of the critic": "_train_critic"}
REST = "all the rest"


def shares(model: VPG, n_steps: int) -> dict[str, float]:
    """
    :param n_steps: environment steps to train
    :return: the share of each phase in the CPU time of ``model.learn(n_steps)``; they sum to 1
    """
    spent = dict.fromkeys(PHASES, 0.0)

    def timed(phase: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            start = time.process_time()
            result = method(*args, **kwargs)
            spent[phase] += time.process_time() - start
            return result

        return run

    with ExitStack() as stack:
        # Not on the model, because learn() warns about attributes that cannot be saved
        for phase, name in PHASES.items():
            stack.enter_context(patch.object(VPG, name, timed(phase, getattr(VPG, name))))
        start = time.process_time()
        model.learn(n_steps)
        total = time.process_time() - start
    return {**{phase: seconds / total for phase, seconds in spent.items()}, REST: 1.0 - sum(spent.values()) / total}
