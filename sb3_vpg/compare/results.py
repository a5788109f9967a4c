"""The results of a comparison as arrays, for statistics and figures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sb3_vpg.compare.runs.records import Record
from sb3_vpg.compare.runs.tasks import run_name
from sb3_vpg.compare.score_normalization import Reference

N_POINTS = 21
"""Number of points at which learning curves are read."""

_CLASS_NAMES = {
    "random_search": "RandomSearch",
    "maskable_vpg": "MaskableVPG",
    "vpg_lstm": "RecurrentVPG",
    "ppo_mask": "MaskablePPO",
    "ppo_lstm": "RecurrentPPO",
}


def label(algo: str) -> str:
    """:return: the name of an algorithm in figures and tables"""
    return _CLASS_NAMES.get(algo, algo.upper())


@dataclass(frozen=True)
class Comparison:
    """
    The results of a comparison.

    :param algos: names of algorithms on the command line; the report compares the first with the others
    :param env_ids: environment ids
    :param seeds: seeds of the comparison
    :param records: records of the finished runs
    :param references: scale of the normalised scores, by environment id
    :param failures: why runs failed, by name of the run
    """

    algos: Sequence[str]
    env_ids: Sequence[str]
    seeds: Sequence[int]
    records: Sequence[Record]
    references: Mapping[str, Reference]
    failures: Mapping[str, str]

    def of(self, algo: str, env_id: str) -> list[Record]:
        """:return: the runs of an algorithm on an environment, by seed"""
        runs = [record for record in self.records if (record.task.algo, record.task.env_id) == (algo, env_id)]
        return sorted(runs, key=lambda record: record.task.seed)

    def budgets(self, env_id: str) -> set[int]:
        """:return: the different numbers of environment steps that runs on an environment were given"""
        return {record.task.n_timesteps for record in self.records if record.task.env_id == env_id}

    @property
    def machines(self) -> list[str]:
        """:return: the different machines of the runs; seconds on different machines cannot be compared"""
        return sorted({machine(record) for record in self.records})

    def missing(self) -> list[str]:
        """:return: the names of the runs that have neither finished nor failed"""
        known = {*self.failures, *(record.task.name for record in self.records)}
        names = [run_name(algo, env_id, seed) for algo in self.algos for env_id in self.env_ids for seed in self.seeds]
        return [name for name in names if name not in known]

    def complete_seeds(self, algo: str) -> list[int]:
        """:return: the seeds with a finished run on every environment: only these are aggregated over environments"""
        seeds = [{record.task.seed for record in self.of(algo, env_id)} for env_id in self.env_ids]
        return sorted(set.intersection(*seeds))

    def final(self, algo: str) -> np.ndarray:
        """:return: normalised scores of the finished agents, shape (n_seeds, n_envs), over its complete seeds"""
        return self._normalized(algo, final_return).reshape(-1, len(self.env_ids))

    def curves(self, algo: str) -> np.ndarray:
        """:return: normalised learning curves, shape (n_seeds, n_envs, N_POINTS), over its complete seeds"""
        return self._normalized(algo, self.curve).reshape(-1, len(self.env_ids), N_POINTS)

    def _normalized(self, algo: str, measure: Callable[[Record], float | np.ndarray]) -> np.ndarray:
        """:return: a normalised measure of every run of the complete seeds, shape (n_seeds, n_envs, ...)"""
        seeds = self.complete_seeds(algo)
        columns = [[run for run in self.of(algo, env_id) if run.task.seed in seeds] for env_id in self.env_ids]
        rows = zip(*columns, strict=True)
        return np.array([[self.references[run.task.env_id].normalize(measure(run)) for run in row] for row in rows])

    def curve(self, record: Record) -> np.ndarray:
        """
        The mean returns of a run's evaluations, read at evenly spread steps.

        The curve begins with the return of random actions. An algorithm that stopped early keeps its final return to the end.

        :param record: a run
        :return: linear interpolation between the evaluations, shape (N_POINTS,)
        """
        steps, returns = [0, *record.timesteps], [self.references[record.task.env_id].random, *record.mean_returns]
        if steps[-1] < record.num_timesteps < record.task.n_timesteps:
            steps, returns = [*steps, record.num_timesteps], [*returns, final_return(record)]
        read: np.ndarray = np.interp(points(record.task.n_timesteps), steps, returns)
        return read


def final_return(record: Record) -> float:
    """:return: mean return of the finished agent"""
    return float(np.mean(record.final_returns))


def points(n_timesteps: int) -> np.ndarray:
    """:return: the steps at which learning curves are read, evenly spread from 0 to ``n_timesteps``, shape (N_POINTS,)"""
    return np.linspace(0, n_timesteps, N_POINTS)


def area(curves: np.ndarray) -> np.ndarray:
    """
    Mean height of learning curves: the area under each by the trapezoidal rule, divided by the number of steps.

    :param curves: shape (..., n_points)
    :return: shape (...)
    """
    heights: np.ndarray = ((curves[..., 1:] + curves[..., :-1]) / 2).mean(axis=-1)
    return heights


def machine(record: Record) -> str:
    """:return: processor, cores and system of a run, from the first line of ``where``"""
    return record.where.partition("\n")[0].strip().removeprefix("Machine: ").rstrip(".")
