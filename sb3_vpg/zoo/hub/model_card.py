"""The page of an agent on the hub: its score, how that was measured, and how to use the agent."""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import yaml
from huggingface_hub import EvalResult, ModelCardData
from huggingface_sb3 import EnvironmentName, ModelName
from jinja2 import Environment, PackageLoader, StrictUndefined

from sb3_vpg.common.system_info import versions
from sb3_vpg.zoo.agents.evaluation import Evaluation
from sb3_vpg.zoo.algorithms import ALGORITHMS, DEFAULT_ALGORITHM
from sb3_vpg.zoo.hub.repository import Repository
from sb3_vpg.zoo.hub.usage_snippet import snippet

_EXTRAS = ("box2d", "mujoco")


@dataclass(frozen=True)
class CardSubject:
    """
    The agent that a page is about.

    :param algo: name on the command line
    :param env_id: environment id
    :param repo_id: organization and name of the repository
    :param model: which model of its run it is, in words
    :param repository: the files of the repository, as they are loaded
    :param hyperparams: the content of ``config.yml``
    """

    algo: str
    env_id: str
    repo_id: str
    model: str
    repository: Repository
    hyperparams: dict[str, Any]


def front_matter(subject: CardSubject, score: Evaluation) -> ModelCardData:
    """Return the metadata that the hub reads: tags, and the score as a ``model-index``."""
    algo, env_id, task = subject.algo, subject.env_id, "reinforcement-learning"
    result = EvalResult(
        task_type=task,
        task_name=task,
        dataset_type=env_id,
        dataset_name=env_id,
        metric_type="mean_reward",
        metric_name="mean_reward",
        metric_value=f"{score.mean:.2f} +/- {score.std:.2f}",
        verified=False,
    )
    return ModelCardData(
        library_name="stable-baselines3",
        tags=[env_id, "deep-reinforcement-learning", "reinforcement-learning", "stable-baselines3", "sb3-vpg", algo],
        # The zoo's list of agents derives the algorithm from this name, in lower case
        model_name=ALGORITHMS[algo] if ALGORITHMS[algo].lower() == algo else algo,
        eval_results=[result],
    )


def card(
    subject: CardSubject, score: Evaluation, install: str, gym_packages: Sequence[str] = (), onnx: str | None = None
) -> str:
    """
    :param subject: the agent
    :param score: of the agent, measured on the files of its repository
    :param install: what pip installs sb3-vpg from
    :param gym_packages: modules that register the environment
    :param onnx: name of the agent's ONNX file; None if there is none
    :return: the page, in Markdown
    """
    algo, env_id, args = subject.algo, subject.env_id, subject.repository.args
    agent_flags = [*([] if algo == DEFAULT_ALGORITHM else ["--algo", algo]), "--env", env_id]
    folder_flags = ["-f", "logs", *(["--gym-packages", *gym_packages] if gym_packages else [])]
    organization, _, name = subject.repo_id.partition("/")
    name_flags = [] if name == ModelName(algo, EnvironmentName(env_id)) else ["-name", name]
    loader = PackageLoader("sb3_vpg.zoo.hub")
    environment = Environment(loader=loader, undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True)
    return environment.get_template("model_card.md.j2").render(
        front_matter=front_matter(subject, score).to_yaml(),
        subject=subject,
        score=score,
        class_name=ALGORITHMS[algo],
        versions=", ".join(f"{library} {number}" for library, number in versions().items()),
        requirement=shlex.quote(_requirement(install, env_id)),
        load_flags=shlex.join([*agent_flags, "-orga", organization, *name_flags, *folder_flags]),
        play_flags=shlex.join([*agent_flags, *folder_flags]),
        train_flags=shlex.join([*agent_flags, *folder_flags, *(["--seed", str(args["seed"])] if "seed" in args else [])]),
        sampled="" if score.deterministic else " --stochastic",
        gym_packages=gym_packages,
        onnx=onnx,
        program=snippet(algo, env_id, subject.repo_id, subject.repository, score, gym_packages),
        hyperparams=yaml.safe_dump(subject.hyperparams, sort_keys=True).strip(),
    )


def _requirement(install: str, env_id: str) -> str:
    """Return what pip installs; a bare package name gets the extra of the environment's simulator."""
    entry_point = str(gym.spec(env_id).entry_point)
    extra = next((name for name in _EXTRAS if entry_point.startswith(f"gymnasium.envs.{name}")), None)
    return f"{install}[{extra}]" if extra is not None and re.fullmatch(r"[\w.-]+", install) else install
