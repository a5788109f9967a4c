"""Registers StrictMasks-v0 (--gym-packages strict_masks), which fails at an action that its mask does not allow."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class StrictMasks(gym.Env[np.ndarray, int]):
    """Three of five actions are allowed at a step; the last allowed one earns 1. An episode has 20 steps."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012  # as gymnasium's environments have it
    observation_space = spaces.Box(0.0, 1.0, (5,), np.float32)
    action_space = spaces.Discrete(5)

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.age = 0
        return self._observed(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        assert self.mask[action], f"action {action} is not allowed by {self.mask}"
        reward = float(action == np.flatnonzero(self.mask)[-1])
        self.age += 1
        return self._observed(), reward, self.age == 20, False, {}

    def action_masks(self) -> np.ndarray:
        return self.mask

    def render(self) -> np.ndarray:
        return np.zeros((32, 32, 3), np.uint8)

    def _observed(self) -> np.ndarray:
        self.mask = np.zeros(5, dtype=bool)
        self.mask[self.np_random.choice(5, 3, replace=False)] = True
        # The agent does not see the mask
        return self.np_random.random(5).astype(np.float32)


if "StrictMasks-v0" not in gym.registry:
    gym.register("StrictMasks-v0", entry_point=StrictMasks)
