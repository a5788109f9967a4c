"""Environments with many infos and episodes of different length, and gymnasium's vector environments of them."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from helpers import RandomEnv

SAME_STEP, DISABLED, NEXT_STEP = AutoresetMode.SAME_STEP, AutoresetMode.DISABLED, AutoresetMode.NEXT_STEP


class TalkativeEnv(RandomEnv):
    """Has infos in some steps and at resets, rewards with fractions, and reuses the memory of its observations."""

    render_mode = None
    mood = "good"

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        observation, _ = super().reset(**kwargs)
        self.memory = observation
        return observation, {"start": self.episodes}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, _ = super().step(action)
        if isinstance(self.memory, np.ndarray):
            self.memory[...] = observation
            observation = self.memory
        info: dict[str, Any] = {"where": np.full(2, reward)} if self.steps % 3 == 0 else {}
        if self.steps % 4 == 0:
            info["nested"] = {"deep": {"age": self.age}, "name": f"step {self.steps}"}
        if terminated or truncated:
            info["is_success"] = bool(reward > 0)
        return observation, reward, terminated, truncated, info

    def mood_of(self, name: str, loud: bool = False) -> str:
        return f"{name} is {self.mood}{'!' if loud else ''}"


def scripted(length: int) -> Callable[[], TalkativeEnv]:
    """:return: a function that makes an environment whose infos come in other steps, for each ``length``"""

    def make(**spaces_: Any) -> TalkativeEnv:
        env = TalkativeEnv(**spaces_)
        env.steps = length
        return env

    return make


def talkative(count: int = 3, **spaces_: Any) -> list[Callable[[], gym.Env]]:
    return [lambda length=length: gym.wrappers.TimeLimit(scripted(length)(**spaces_), 4 + length) for length in range(count)]


def sync(mode: AutoresetMode = SAME_STEP, **spaces_: Any) -> SyncVectorEnv:
    return SyncVectorEnv(talkative(2, **spaces_), autoreset_mode=mode)
