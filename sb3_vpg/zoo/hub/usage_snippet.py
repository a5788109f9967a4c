"""The Python program on an agent's page: download the agent and score it in the environment that it was trained in."""

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
from huggingface_sb3 import EnvironmentName, ModelName

from sb3_vpg.envs import ENV_IDS
from sb3_vpg.zoo.agents.evaluation import Evaluation
from sb3_vpg.zoo.algorithms import ALGORITHMS
from sb3_vpg.zoo.hub.repository import Repository
from sb3_vpg.zoo.hub.safe_settings import wrapper_and_kwargs


def snippet(
    algo: str, env_id: str, repo_id: str, repository: Repository, score: Evaluation, gym_packages: Sequence[str] = ()
) -> str:
    """
    :param algo: name on the command line
    :param env_id: environment id
    :param repo_id: organization and name of the repository
    :param repository: its files
    :param score: the score that the program is to print
    :param gym_packages: modules that register the environment
    :return: a program
    """
    cls, config = ALGORITHMS[algo], repository.config
    wrappers = list(map(wrapper_and_kwargs, config.get("env_wrapper") or ()))
    vec_wrappers = list(map(wrapper_and_kwargs, config.get("vec_env_wrapper") or ()))
    frames = config.get("frame_stack", 0)
    names = [name for name, _ in (*wrappers, *vec_wrappers)]
    imports = {"huggingface_hub.hf_hub_download", f"sb3_vpg.{cls}", *names}
    evaluation = "sb3_contrib.common.maskable.evaluation" if algo == "maskable_vpg" else "stable_baselines3.common.evaluation"
    imports |= {"stable_baselines3.common.env_util.make_vec_env", f"{evaluation}.evaluate_policy"}
    imports |= {"sb3_vpg.normalization.load_vec_normalize"} if config.get("normalize") else set()
    imports |= {"stable_baselines3.common.vec_env.VecFrameStack"} if frames else set()
    arguments = [repr(env_id), f"n_envs={score.n_envs}", f"seed={score.seed}"]
    arguments += [f"env_kwargs={repository.env_kwargs!r}"] if repository.env_kwargs else []
    arguments += [f"wrapper_class=lambda env: {_wrapped('env', wrappers)}"] if wrappers else []
    packages = dict.fromkeys([*gym_packages, *_registering_module(env_id)])
    lines = [*(f"import {package}" for package in packages), *map(_import, sorted(imports)), ""]
    file: str = ModelName(algo, EnvironmentName(env_id)).filename
    lines += [f"file = hf_hub_download({repo_id!r}, {file!r})", f"model = {cls}.load(file)"]
    lines += [f"env = make_vec_env({', '.join(arguments)})"]
    lines += [f"env = {_wrapped('env', vec_wrappers)}"] if vec_wrappers else []
    if config.get("normalize"):
        lines += ["env = load_vec_normalize(file, env)", "env.training = env.norm_reward = False"]
    lines += [f"env = VecFrameStack(env, {frames})"] if frames else []
    lines += [f"print(evaluate_policy(model, env, n_eval_episodes={len(score.returns)}, deterministic={score.deterministic}))"]
    return "\n".join(lines)


def _registering_module(env_id: str) -> list[str]:
    """Return the module to import for an environment that rl_zoo3 or this package registers; none for others."""
    if env_id in ENV_IDS:
        return ["sb3_vpg.envs"]
    entry_point = gym.spec(env_id).entry_point
    module = entry_point.partition(":")[0] if isinstance(entry_point, str) else getattr(entry_point, "__module__", "")
    return [module] if module.startswith("rl_zoo3.") else []


def _import(name: str) -> str:
    module, _, what = name.rpartition(".")
    return f"from {module} import {what}"


def _wrapped(env: str, wrappers: Sequence[tuple[str, dict[str, Any]]]) -> str:
    """Return the expression for an environment in its wrappers, of which the first is the innermost, as in the zoo."""
    for name, kwargs in wrappers:
        env = f"{name.rpartition('.')[2]}({', '.join([env, *(f'{key}={value!r}' for key, value in kwargs.items())])})"
    return env
