"""Environments in processes of their own, which leave Ctrl-C to the process that trains."""

from collections.abc import Callable

import gymnasium as gym
from stable_baselines3.common.vec_env import SubprocVecEnv

from sb3_vpg.zoo.signals import held_back_from_workers


class QuietSubprocVecEnv(SubprocVecEnv):
    """Its parent, whose workers would end at a Ctrl-C in the middle of a rollout. Parameters: see ``SubprocVecEnv``."""

    def __init__(self, env_fns: list[Callable[[], gym.Env]], start_method: str | None = None) -> None:
        with held_back_from_workers():
            super().__init__(env_fns, start_method)
