"""Invented results of comparisons, without training."""

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np

from sb3_vpg.compare.results import Comparison
from sb3_vpg.compare.runs.records import Record
from sb3_vpg.compare.runs.tasks import Task
from sb3_vpg.compare.score_normalization import Reference

REFERENCE = Reference(random=20.0, threshold=120.0, source="the task's own")


def task(algo: str = "vpg", env_id: str = "CartPole-v1", seed: int = 0, n_timesteps: int = 1000) -> Task:
    return Task(algo, env_id, seed, n_timesteps, n_timesteps // 10, 5, 4, {"n_timesteps": 2000.0, "policy": "MlpPolicy"})


def record(of: Task, final: float, curve: Sequence[float] | None = None) -> Record:
    """:return: the record of a run with a curve of evaluations; by default, a straight line from 20 to the final return"""
    returns = list(np.linspace(20, final, 10) if curve is None else curve)
    steps = [of.eval_freq * number for number in range(1, len(returns) + 1)]
    # A shorter curve is that of an algorithm that stopped early, as RandomSearch does
    trained = of.n_timesteps if len(returns) == 10 else of.eval_freq * (len(returns) + 1)
    return Record(of, trained, [final - 1, final + 1] * 2, steps, returns, 3.0, 2.0, "Machine: a test  \nPython")


def comparison(
    finals: Callable[[str, str, int], float | None],
    algos: Sequence[str] = ("vpg", "a2c"),
    env_ids: Sequence[str] = ("CartPole-v1", "Acrobot-v1"),
    n_seeds: int = 6,
    failures: dict[str, str] | None = None,
) -> Comparison:
    """:param finals: final return by algorithm, environment and seed; None for a run that is missing"""
    records = [
        record(task(*run), final) for run in product(algos, env_ids, range(n_seeds)) if (final := finals(*run)) is not None
    ]
    return Comparison(algos, env_ids, range(n_seeds), records, dict.fromkeys(env_ids, REFERENCE), failures or {})


def drawn(seed: int = 0, better: float = 10.0) -> Callable[[str, str, int], float]:
    """:return: random final returns; those of VPG are higher on average"""
    rng = np.random.default_rng(seed)
    runs = product(("vpg", "a2c"), ("CartPole-v1", "Acrobot-v1"), range(50))
    returns = {run: float(rng.normal(80 + better * (run[0] == "vpg"), 15)) for run in runs}
    return lambda *run: returns[run]
