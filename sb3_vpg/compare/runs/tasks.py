"""Tasks of a comparison: one for each algorithm, environment and seed."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Any

import gymnasium as gym
import rl_zoo3
from huggingface_sb3 import EnvironmentName
from rl_zoo3 import ALGOS
from rl_zoo3.exp_manager import ExperimentManager

from sb3_vpg.zoo.hyperparams import own_file
from sb3_vpg.zoo.registration import register
from sb3_vpg.zoo.safe_yaml import PythonTag, read_yaml

FINAL_SEED = 1_000_000
"""Seed of the environments in which finished agents are evaluated: the same for all, and used by no training."""


def run_name(algo: str, env_id: str, seed: int) -> str:
    """:return: the name of a run in files and messages"""
    return f"{algo}-{EnvironmentName(env_id)}-{seed}"


@dataclass(frozen=True)
class Task:
    """
    One training run of the zoo.

    :param algo: name of the algorithm on the command line
    :param env_id: environment id
    :param seed: seed of the training
    :param n_timesteps: environment steps
    :param eval_freq: environment steps between evaluations
    :param eval_episodes: episodes of each evaluation
    :param final_episodes: episodes to evaluate the finished agent with
    :param entry: hyperparameters, as the YAML file has them
    :param gym_packages: modules to import, which register environments
    """

    algo: str
    env_id: str
    seed: int
    n_timesteps: int
    eval_freq: int
    eval_episodes: int
    final_episodes: int
    entry: dict[str, Any] = field(hash=False)
    gym_packages: list[str] = field(default_factory=list, hash=False)

    @property
    def env_kwargs(self) -> dict[str, Any]:
        """:return: keyword arguments of the environment"""
        return dict(self.entry.get("env_kwargs") or {})

    @property
    def exp_id(self) -> int:
        """:return: the number of its run, fixed here so that parallel runs cannot take the same one"""
        return self.seed + 1

    @property
    def name(self) -> str:
        """:return: see ``run_name``"""
        return run_name(self.algo, self.env_id, self.seed)

    def run_folder(self, folder: Path) -> Path:
        """:return: the folder of its run in a log folder of the zoo"""
        return folder / self.algo / f"{EnvironmentName(self.env_id)}_{self.exp_id}"

    def as_json(self) -> dict[str, Any]:
        """:return: values that ``json`` can write"""
        return asdict(self)


@dataclass(frozen=True)
class Plan:
    """
    The settings of a comparison. For the parameters see ``compare``.

    :param seeds: seeds of the trainings
    :param n_timesteps: environment steps by environment; for other environments, those of each algorithm's entry
    """

    algos: Sequence[str]
    env_ids: Sequence[str]
    seeds: Sequence[int]
    n_timesteps: Mapping[str, int]
    n_evaluations: int
    eval_episodes: int
    final_episodes: int
    gym_packages: Sequence[str]

    def tasks(self) -> list[Task]:
        """
        Make the tasks.

        :return: ordered by seed, so that an unfinished comparison has all algorithms with the first seeds
        :raises ValueError: if a setting is not valid, or if an algorithm has no hyperparameters for an environment
        """
        register()
        for module in self.gym_packages:
            import_module(module)
        self._check()
        entries = {(algo, env_id): entry(algo, env_id) for algo in self.algos for env_id in self.env_ids}
        _check_same_environments(entries)
        tasks = []
        for seed, env_id, algo in product(self.seeds, self.env_ids, self.algos):
            hyperparams = entries[algo, env_id]
            steps = self.n_timesteps.get(env_id) or int(float(hyperparams["n_timesteps"]))
            eval_freq = max(steps // self.n_evaluations, 1)
            episodes = (self.eval_episodes, self.final_episodes)
            tasks.append(Task(algo, env_id, seed, steps, eval_freq, *episodes, hyperparams, list(self.gym_packages)))
        return tasks

    def _check(self) -> None:
        for algo in self.algos:
            if algo not in ALGOS:
                raise ValueError(f"there is no algorithm {algo!r}; the zoo has {', '.join(ALGOS)}")
        for env_id in self.env_ids:
            try:
                gym.spec(env_id)
            except gym.error.Error as error:
                raise ValueError(f"there is no environment {env_id!r}: {error}") from error
        _check_distinct("algorithm", self.algos)
        # Two ids may have the same name, and so the same run folder
        _check_distinct("environment", [EnvironmentName(env_id) for env_id in self.env_ids])
        _check_distinct("seed", self.seeds)
        for seed in self.seeds:
            if not 0 <= seed < FINAL_SEED:
                raise ValueError(f"seeds must be from 0 to {FINAL_SEED - 1:,}, but one is {seed}")
        for env_id in set(self.n_timesteps) - set(self.env_ids):
            raise ValueError(f"n_timesteps has {env_id}, which is not one of the environments")
        counts = {f"n_timesteps of {env_id}": steps for env_id, steps in self.n_timesteps.items()}
        counts |= {name: getattr(self, name) for name in ("n_evaluations", "eval_episodes", "final_episodes")}
        for name, number in counts.items():
            if number < 1:
                raise ValueError(f"{name} must be at least 1, but is {number}")


def _check_distinct(what: str, given: Sequence[object]) -> None:
    if not given:
        raise ValueError(f"there is no {what} to compare")
    if len(set(given)) != len(given):
        raise ValueError(f"{what} named twice: {', '.join(map(str, given))}")


def _check_same_environments(entries: Mapping[tuple[str, str], dict[str, Any]]) -> None:
    """Raise ValueError if two entries have different ``env_kwargs`` for the same environment."""
    for env_id in dict.fromkeys(env_id for _, env_id in entries):
        algos_by_kwargs: dict[str, list[str]] = {}
        for (algo, other), hyperparams in entries.items():
            if other == env_id:
                algos_by_kwargs.setdefault(str(hyperparams.get("env_kwargs") or "none"), []).append(algo)
        if len(algos_by_kwargs) > 1:
            kwargs = "; ".join(f"{', '.join(algos)}: {text}" for text, algos in algos_by_kwargs.items())
            raise ValueError(
                f"the hyperparameter files make different environments of {env_id} (env_kwargs of {kwargs}); "
                "compare only algorithms with the same env_kwargs"
            )


def entry(algo: str, env_id: str) -> dict[str, Any]:
    """
    Read the hyperparameters that ``train`` would use.

    :param algo: name of the algorithm on the command line
    :param env_id: environment id
    :return: the hyperparameters, as the YAML file has them
    :raises ValueError: if there are none
    """
    file, entries = _entries(algo, env_id)
    for name in [*_entry_names(env_id), "default"]:
        if name in entries:
            return {key: str(value) if isinstance(value, PythonTag) else value for key, value in entries[name].items()}
    raise ValueError(f"{file} has no hyperparameters for {env_id}, so {algo} cannot be trained on it; leave one of them out")


def without_entry(algo: str, env_ids: Sequence[str]) -> list[str]:
    """:return: the environments for which an algorithm has only default hyperparameters"""
    return [env_id for env_id in env_ids if _entries(algo, env_id)[1].keys().isdisjoint(_entry_names(env_id))]


def _entry_names(env_id: str) -> list[str]:
    return [env_id, *(["atari"] if ExperimentManager.is_atari(env_id) else [])]


def _entries(algo: str, env_id: str) -> tuple[Path, dict[str, Any]]:
    file = own_file(algo, env_id) or Path(str(rl_zoo3.__file__)).parent / "hyperparams" / f"{algo}.yml"
    return file, read_yaml(file)
