"""Results of comparisons that nobody has trained, for the tests of what is made of them."""

from collections.abc import Callable, Sequence

import numpy as np

from sb3_vpg.compare.results import Comparison
from sb3_vpg.compare.runs.records import Record
from sb3_vpg.compare.runs.tasks import Task
from sb3_vpg.compare.score_normalization import Reference

REFERENCE = Reference(random=20.0, threshold=120.0, source="the task's own")


def task(algo: str = "vpg", env_id: str = "CartPole-v1", seed: int = 0, n_timesteps: int = 1000) -> Task:
    return Task(algo, env_id, seed, n_timesteps, n_timesteps // 10, 5, 4, {"n_timesteps": 2000.0, "policy": "MlpPolicy"})


def record(of: Task, final: float, curve: Sequence[float] | None = None) -> Record:
    """:return: of a run with a curve of evaluations; by default a straight line from 20 to its final score"""
    steps = (
        [of.eval_freq * number for number in range(1, 11)]
        if curve is None
        else [of.eval_freq * n for n in range(1, len(curve) + 1)]
    )
    returns = list(np.linspace(20, final, 10)) if curve is None else list(curve)
    # As the search that has found, which a curve that stops stands for
    trained = of.n_timesteps if len(returns) == 10 else of.eval_freq * (len(returns) + 1)
    return Record(of, trained, [final - 1, final + 1] * 2, steps, returns, 3.0, 2.0, "Machine: a test  \nPython")


def comparison(
    finals: Callable[[str, str, int], float | None],
    algos: Sequence[str] = ("vpg", "a2c"),
    env_ids: Sequence[str] = ("CartPole-v1", "Acrobot-v1"),
    n_seeds: int = 6,
    failures: dict[str, str] | None = None,
) -> Comparison:
    """:param finals: score by algorithm, environment and seed; None for a run that is not there"""
    found = [
        (task(algo, env_id, seed), finals(algo, env_id, seed))
        for algo in algos
        for env_id in env_ids
        for seed in range(n_seeds)
    ]
    records = [record(of, final) for of, final in found if final is not None]
    return Comparison(algos, env_ids, range(n_seeds), records, dict.fromkeys(env_ids, REFERENCE), failures or {})


def drawn(seed: int = 0, better: float = 10.0) -> Callable[[str, str, int], float]:
    """:return: scores of which those of the first algorithm are the higher ones, on average"""
    rng = np.random.default_rng(seed)
    known = {
        (a, e, s): rng.normal(80 + better * (a == "vpg"), 15)
        for a in ("vpg", "a2c")
        for e in ("CartPole-v1", "Acrobot-v1")
        for s in range(50)
    }
    return lambda algo, env_id, number: float(known[algo, env_id, number])
