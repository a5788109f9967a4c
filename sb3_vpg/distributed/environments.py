"""The environments of this process."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
from stable_baselines3.common import env_util
from stable_baselines3.common.vec_env import VecEnv

from sb3_vpg.common import torchrun
from sb3_vpg.common.arguments import whole_number


def make_vec_env(
    env_id: str | Callable[..., gym.Env[Any, Any]], n_envs: int = 1, seed: int | None = None, **kwargs: Any
) -> VecEnv:
    """
    Build this process's share of the environments, with SB3's ``make_vec_env``. Each environment has the seed and the
    ``Monitor`` file that it has in a single process. Without torchrun, all of them are built.

    :param env_id: an id registered in Gymnasium, or a class or function that returns an environment
    :param n_envs: number of environments of all processes
    :param seed: of the first environment of all; the next has the next seed
    :param kwargs: other arguments of SB3's ``make_vec_env``
    :return: with ``n_envs`` divided by the number of processes
    :raises ValueError: if ``n_envs`` cannot be divided by the number of processes
    """
    own, first = torchrun.shard(whole_number("n_envs", n_envs, at_least=1))
    env = env_util.make_vec_env(env_id, own, seed, start_index=first, **kwargs)
    if seed is not None:
        # SB3 counts the seeds of the environments from 0
        env.seed(seed + first)
    return env
