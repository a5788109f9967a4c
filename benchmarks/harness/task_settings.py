"""The tasks of real_tasks.py: the settings with which VPG, A2C and PPO train on them, and the environments."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import SubprocVecEnv, VecEnv, VecNormalize

from harness.hyperparameters import read_dict, scheduled, zoo_entry
from sb3_vpg import VPG
from sb3_vpg.vec_env import make_vec_env as make_gym_vec_env

Entry = dict[str, Any]
"""Hyperparameters of one task in the zoo's form."""
MakeEnvs = Callable[[str, int], VecEnv]
"""Takes an environment id and the number of environments."""

ALGORITHMS: dict[str, Any] = {"VPG": VPG, "A2C": A2C, "PPO": PPO}
N_ENVS = 8
# As in the zoo. SB3's make_vec_env sets "rgb_array", with which LunarLander simulates sparks in each step
NO_RENDERING = {"render_mode": None}
_MUJOCO = {
    "n_envs": N_ENVS,
    "normalize": True,
    "n_steps": 64,
    "gae_lambda": 0.95,
    "learning_rate": "lin_0.001",
    "vf_learning_rate": "lin_0.001",
    "n_critic_updates": 10,
    "normalize_advantage": True,
    "policy_kwargs": "dict(activation_fn=nn.ReLU, ortho_init=False, log_std_init=-1.0)",
}
VPG_ENTRIES: dict[str, Entry] = {
    "CartPole-v1": {
        "n_envs": N_ENVS,
        "normalize": True,
        "n_steps": 32,
        "gamma": 0.98,
        "learning_rate": "lin_0.0035",
        "vf_learning_rate": "lin_0.0022",
        "n_critic_updates": 24,
    },
    "Pendulum-v1": {
        "n_envs": N_ENVS,
        "normalize": True,
        "n_steps": 8,
        "gamma": 0.9,
        "gae_lambda": 0.9,
        "learning_rate": "lin_0.0015",
        "vf_learning_rate": "lin_0.003",
        "n_critic_updates": 8,
        "normalize_advantage": True,
        "policy_kwargs": "dict(log_std_init=-0.5, activation_fn=nn.ReLU)",
    },
    "Acrobot-v1": {
        "n_envs": N_ENVS,
        "normalize": True,
        "n_steps": 16,
        "learning_rate": "lin_0.003",
        "vf_learning_rate": "lin_0.003",
        "n_critic_updates": 8,
        "normalize_advantage": True,
    },
    "LunarLander-v3": {
        "n_envs": N_ENVS,
        "normalize": "dict(norm_obs=False)",
        "n_steps": 32,
        "gae_lambda": 0.98,
        "learning_rate": "lin_0.003",
        "vf_learning_rate": "lin_0.003",
        "n_critic_updates": 16,
        "normalize_advantage": True,
        "ent_coef": 0.01,
        "policy_kwargs": "dict(activation_fn=nn.ReLU)",
    },
    "HalfCheetah-v4": _MUJOCO,
    "Hopper-v4": _MUJOCO,
}
"""
Settings of VPG by environment id, written here so that measurements of different versions can be compared. The first four
follow hyperparams/vpg.yml, with 8 environments, the same number of steps per update, and VecNormalize on CartPole, too. The
settings for MuJoCo are others, with shorter rollouts.
"""


def entries(env_id: str) -> dict[str, tuple[str, Entry]]:
    """:return: by name in the report, algorithm and settings: VPG's, and rl-zoo3's for A2C and PPO"""
    result = {"VPG": ("VPG", VPG_ENTRIES[env_id])}
    for algorithm in ("A2C", "PPO"):
        entry = {"n_envs": 1, **zoo_entry(algorithm.lower(), env_id)}
        del entry["n_timesteps"]
        result[algorithm] = (algorithm, entry)
        if entry["n_envs"] == 1:
            # With one environment, every algorithm is slow
            result[f"{algorithm}, {N_ENVS} environments"] = (algorithm, {**entry, "n_envs": N_ENVS})
    return result


def normalized(env: VecEnv, entry: Entry) -> VecEnv:
    """:return: the environments with the ``VecNormalize`` that the entry asks for"""
    normalize = entry.get("normalize", False)
    if not normalize:
        return env
    arguments = read_dict(normalize) if isinstance(normalize, str) else {}
    return VecNormalize(env, gamma=entry.get("gamma", 0.99), **arguments)


def dummy(env_id: str, n_envs: int, seed: int = 0) -> VecEnv:
    """:return: SB3's ``DummyVecEnv``, with ``Monitor`` around each environment"""
    return make_vec_env(env_id, n_envs, seed=seed, env_kwargs=NO_RENDERING)


def subproc(env_id: str, n_envs: int) -> VecEnv:
    """:return: SB3's ``SubprocVecEnv``, which has a process for each environment"""
    return make_vec_env(env_id, n_envs, seed=0, env_kwargs=NO_RENDERING, vec_env_cls=SubprocVecEnv)


def envpool(n_threads: int) -> MakeEnvs:
    """:return: a function that makes EnvPool's environments, stepped by this number of threads"""

    def make(env_id: str, n_envs: int) -> VecEnv:
        kwargs = {"num_threads": n_threads}
        return make_gym_vec_env(env_id, n_envs, seed=0, env_kwargs=kwargs, vectorization_mode="envpool")

    return make


def random_actions(space: gym.Space[Any], n_steps: int) -> np.ndarray:
    """:return: actions for ``N_ENVS`` environments, shape (n_steps, N_ENVS, ...)"""
    space.seed(0)
    return np.array([[space.sample() for _ in range(N_ENVS)] for _ in range(n_steps)])


def bare_environments(env_id: str, n_steps: int) -> Callable[[], int]:
    """
    :return: a function that plays ``n_steps`` random actions, drawn in advance, in each of ``N_ENVS`` environments of
        gymnasium, and returns the number of steps
    """
    envs = [gym.make(env_id) for _ in range(N_ENVS)]
    actions_TN = random_actions(envs[0].action_space, n_steps)
    for seed, env in enumerate(envs):
        env.reset(seed=seed)

    def play() -> int:
        for actions_N in actions_TN:
            for env, action in zip(envs, actions_N, strict=True):
                _, _, terminated, truncated, _ = env.step(action)
                if terminated or truncated:
                    env.reset()
        return n_steps * N_ENVS

    return play


def new_model(env_id: str, algorithm: str, entry: Entry, seed: int = 0) -> BaseAlgorithm:
    """:return: a new model of the algorithm with the entry's settings, and its environments"""
    options = {key: value for key, value in scheduled(entry).items() if key not in ("n_envs", "normalize")}
    options["policy_kwargs"] = read_dict(options.get("policy_kwargs", "dict()"))
    env = normalized(dummy(env_id, entry["n_envs"], seed), entry)
    model: BaseAlgorithm = ALGORITHMS[algorithm]("MlpPolicy", env, seed=seed, device="cpu", **options)
    return model


def as_text(entry: Entry) -> str:
    return ", ".join(f"{key} {value}" for key, value in entry.items())
