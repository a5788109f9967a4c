"""How much of the CPU time of ``VPG.learn`` each phase takes."""

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

from sb3_vpg import VPG

PHASES = {"collection": "collect_rollouts", "step of the policy": "_train_policy", "fit of the critic": "_train_critic"}
REST = "all the rest"


def seconds_in(methods: Mapping[str, tuple[type, str]], run: Callable[[], Any]) -> tuple[dict[str, float], float]:
    """
    :param methods: by name of a phase: a class, and the name of its method. A phase contains those that it calls
    :param run: calls these methods
    :return: CPU seconds within each method, and CPU seconds of ``run``
    """
    spent = dict.fromkeys(methods, 0.0)

    def timed(phase: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            start = time.process_time()
            result = method(*args, **kwargs)
            spent[phase] += time.process_time() - start
            return result

        return run

    with ExitStack() as stack:
        # On the class, because learn() warns about attributes of a model that cannot be saved
        for phase, (owner, name) in methods.items():
            stack.enter_context(patch.object(owner, name, timed(phase, getattr(owner, name))))
        start = time.process_time()
        run()
        return spent, time.process_time() - start


def shares(model: VPG, n_steps: int) -> dict[str, float]:
    """
    :param n_steps: environment steps to train
    :return: the share of each phase in the CPU time of ``model.learn(n_steps)``; they sum to 1
    """
    methods = {phase: (VPG, name) for phase, name in PHASES.items()}
    spent, total = seconds_in(methods, lambda: model.learn(n_steps))
    return {**{phase: seconds / total for phase, seconds in spent.items()}, REST: 1.0 - sum(spent.values()) / total}
