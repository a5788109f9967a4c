"""What a comparison runs: one task for each algorithm, environment and seed, settled before the first of them begins."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import gymnasium as gym
import rl_zoo3
from huggingface_sb3 import EnvironmentName
from rl_zoo3 import ALGOS
from rl_zoo3.exp_manager import ExperimentManager

from sb3_vpg.zoo.algorithms import ALGORITHMS
from sb3_vpg.zoo.hyperparams import hyperparams_file
from sb3_vpg.zoo.registration import register
from sb3_vpg.zoo.safe_yaml import PythonTag, read_yaml

FINAL_SEED = 1_000_000
"""Of the environments that finished agents are scored in: those of no training, and the same for all."""


def run_name(algo: str, env_id: str, seed: int) -> str:
    """:return: what a run is called in files and messages"""
    return f"{algo}-{EnvironmentName(env_id)}-{seed}"


@dataclass(frozen=True)
class Task:
    """
    One run of the zoo.

    :param algo: name on the command line
    :param env_id: environment id
    :param seed: of the training
    :param n_timesteps: environment steps
    :param eval_freq: environment steps from one evaluation to the next
    :param eval_episodes: of each evaluation
    :param final_episodes: of the score of the finished agent
    :param entry: its hyperparameters, as the YAML file has them
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
        """:return: of the environment's constructor"""
        return dict(self.entry.get("env_kwargs") or {})

    @property
    def exp_id(self) -> int:
        """:return: the number of its run: settled beforehand, so that runs side by side cannot take the same"""
        return self.seed + 1

    @property
    def name(self) -> str:
        """:return: for files and messages"""
        return run_name(self.algo, self.env_id, self.seed)

    def run_folder(self, folder: Path) -> Path:
        """:return: where the zoo keeps it in a log folder"""
        return folder / self.algo / f"{EnvironmentName(self.env_id)}_{self.exp_id}"

    def as_json(self) -> dict[str, Any]:
        """:return: plain values"""
        return asdict(self)


@dataclass(frozen=True)
class Plan:
    """
    What is to be compared.

    :param algos: names on the command line
    :param env_ids: environments
    :param seeds: of the trainings
    :param n_timesteps: environment steps by environment, the same for all algorithms; where there are none, each algorithm has
        those that its own entry was tuned for
    :param n_evaluations: of each run, evenly spread
    :param eval_episodes: of each of these
    :param final_episodes: of the score of each finished agent
    :param gym_packages: modules to import, which register environments
    """

    algos: Sequence[str]
    env_ids: Sequence[str]
    seeds: Sequence[int]
    n_timesteps: Mapping[str, int]
    n_evaluations: int = 20
    eval_episodes: int = 5
    final_episodes: int = 50
    gym_packages: Sequence[str] = ()

    def tasks(self) -> list[Task]:
        """
        :return: seed by seed, so that what is finished first can be compared first
        :raises ValueError: for an algorithm or environment that is not there, and for one without an entry
        """
        register()
        for module in self.gym_packages:
            import_module(module)
        self._check()
        entries = {(algo, env_id): entry(algo, env_id) for algo in self.algos for env_id in self.env_ids}
        _check_same_environments(entries)
        tasks = []
        for seed in self.seeds:
            for env_id in self.env_ids:
                for algo in self.algos:
                    found = entries[algo, env_id]
                    steps = self.n_timesteps.get(env_id) or int(float(found["n_timesteps"]))
                    looks = (max(steps // self.n_evaluations, 1), self.eval_episodes, self.final_episodes)
                    tasks.append(Task(algo, env_id, seed, steps, *looks, found, list(self.gym_packages)))
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
        _check_named("algorithm", self.algos)
        # Runs are called by them
        _check_named("environment", [EnvironmentName(env_id) for env_id in self.env_ids])
        _check_named("seed", self.seeds)
        for seed in self.seeds:
            if not 0 <= seed < FINAL_SEED:
                raise ValueError(f"seeds must be from 0 to {FINAL_SEED - 1:,}, but one is {seed}")
        for env_id in set(self.n_timesteps) - set(self.env_ids):
            raise ValueError(f"steps are given for {env_id}, which is none of the environments")
        for name in ("n_evaluations", "eval_episodes", "final_episodes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, but is {getattr(self, name)}")


def _check_named(what: str, given: Sequence[object]) -> None:
    if not given:
        raise ValueError(f"there is no {what} to compare")
    if len(set(given)) != len(given):
        raise ValueError(f"{what} named twice: {', '.join(map(str, given))}")


def _check_same_environments(entries: Mapping[tuple[str, str], dict[str, Any]]) -> None:
    """:raises ValueError: if two entries make different environments of the same id"""
    for env_id in dict.fromkeys(env_id for _, env_id in entries):
        sides: dict[str, list[str]] = {}
        for (algo, other), found in entries.items():
            if other == env_id:
                sides.setdefault(str(found.get("env_kwargs") or "none"), []).append(algo)
        if len(sides) > 1:
            said = "; ".join(f"{', '.join(algos)}: {kwargs}" for kwargs, algos in sides.items())
            raise ValueError(
                f"of {env_id} the entries make different environments (env_kwargs of {said}); compare one side only"
            )


def entry(algo: str, env_id: str) -> dict[str, Any]:
    """
    :param algo: name on the command line
    :param env_id: environment id
    :return: the hyperparameters that ``train`` would take, as the YAML file has them
    :raises ValueError: if there are none
    """
    file, entries = _entries(algo)
    for name in [*_own_names(env_id), "default"]:
        if name in entries:
            return {key: str(value) if isinstance(value, PythonTag) else value for key, value in entries[name].items()}
    raise ValueError(f"{file} has no entry for {env_id}, so {algo} has no hyperparameters there; leave one of them out")


def without_entry(algo: str, env_ids: Sequence[str]) -> list[str]:
    """:return: the environments for which there are no hyperparameters but the default ones"""
    _, entries = _entries(algo)
    return [env_id for env_id in env_ids if entries.keys().isdisjoint(_own_names(env_id))]


def _own_names(env_id: str) -> list[str]:
    return [env_id, *(["atari"] if ExperimentManager.is_atari(env_id) else [])]


def _entries(algo: str) -> tuple[Path, dict[str, Any]]:
    zoos = Path(str(rl_zoo3.__file__)).parent / "hyperparams" / f"{algo}.yml"
    file = hyperparams_file(algo) if algo in ALGORITHMS else zoos
    return file, read_yaml(file)
