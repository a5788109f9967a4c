"""The results of a comparison as arrays: what the statistics and the pictures are made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sb3_vpg.compare.execution import Record
from sb3_vpg.compare.references import Reference
from sb3_vpg.compare.tasks import run_name

N_POINTS = 20


@dataclass(frozen=True)
class Comparison:
    """
    The results of a comparison.

    :param algos: names on the command line; the first is the one that the report is about
    :param env_ids: environments
    :param seeds: that were asked for
    :param records: of the finished runs
    :param references: by environment
    :param failures: what is to be said of runs that failed, by their name
    """

    algos: Sequence[str]
    env_ids: Sequence[str]
    seeds: Sequence[int]
    records: Sequence[Record]
    references: Mapping[str, Reference]
    failures: Mapping[str, str]

    def of(self, algo: str, env_id: str) -> list[Record]:
        """:return: the runs of an algorithm on an environment, by seed"""
        found = [record for record in self.records if (record.task.algo, record.task.env_id) == (algo, env_id)]
        return sorted(found, key=lambda record: record.task.seed)

    def missing(self) -> list[str]:
        """:return: names of runs that were asked for and are neither finished nor failed"""
        known = {*self.failures, *(record.task.name for record in self.records)}
        names = [run_name(algo, env_id, seed) for algo in self.algos for env_id in self.env_ids for seed in self.seeds]
        return [name for name in names if name not in known]

    def complete_seeds(self, algo: str) -> list[int]:
        """:return: those of which an algorithm has a run on every environment: what can be aggregated over environments"""
        seeds = [{record.task.seed for record in self.of(algo, env_id)} for env_id in self.env_ids]
        return sorted(set.intersection(*seeds))

    def final(self, algo: str) -> np.ndarray:
        """:return: normalised scores of the finished agents, shape (n_seeds, n_envs), over its complete seeds"""
        return np.array([[self.score(record) for record in row] for row in self._rows(algo)]).reshape(-1, len(self.env_ids))

    def curves(self, algo: str) -> np.ndarray:
        """:return: normalised curves, shape (n_seeds, n_envs, N_POINTS), over its complete seeds"""
        curves = [[self.curve(record) for record in row] for row in self._rows(algo)]
        return np.array(curves).reshape(-1, len(self.env_ids), N_POINTS)

    def _rows(self, algo: str) -> list[list[Record]]:
        seeds = self.complete_seeds(algo)
        columns = [[one for one in self.of(algo, env_id) if one.task.seed in seeds] for env_id in self.env_ids]
        return [list(row) for row in zip(*columns, strict=True)]

    def score(self, record: Record) -> float:
        """:return: normalised mean return of the finished agent"""
        return float(self.references[record.task.env_id].normalize(np.array(final_return(record))))

    def curve(self, record: Record) -> np.ndarray:
        """:return: normalised curve of a run, shape (N_POINTS,); see ``curve``"""
        return self.references[record.task.env_id].normalize(curve(record))


def final_return(record: Record) -> float:
    """:return: mean return of the finished agent"""
    return float(np.mean(record.final_returns))


def points(n_timesteps: int) -> np.ndarray:
    """:return: the steps at which curves are read, evenly spread and the last at the end, shape (N_POINTS,)"""
    return n_timesteps * np.arange(1, N_POINTS + 1) / N_POINTS


def curve(record: Record) -> np.ndarray:
    """
    The mean returns of a run's evaluations, read at evenly spread steps.

    An agent that was finished early (a search that has found) stays what it is, so the score of the finished agent continues
    the curve.

    :param record: of a run
    :return: linear between evaluations, shape (N_POINTS,)
    """
    task, steps, returns = record.task, list(record.timesteps), list(record.mean_returns)
    next_one = (steps[-1] if steps else 0) + task.eval_freq
    if not steps or next_one + task.eval_freq / 2 < task.n_timesteps:
        steps, returns = [*steps, next_one], [*returns, final_return(record)]
    read: np.ndarray = np.interp(points(task.n_timesteps), steps, returns)
    return read


def area(record: Record) -> float:
    """:return: mean return over the curve: the area under it, divided by the steps"""
    return float(curve(record).mean())
