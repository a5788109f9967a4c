"""
Train in an environment of your own: a walk on a line to its right end.

    python examples/custom_environment.py
"""

from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.env_checker import check_env

from sb3_vpg import VPG


class Walk(gym.Env[np.ndarray, np.int64]):
    """An episode starts anywhere. A step to the left (0) or right (1) costs 1. Both ends end it, and the right one pays 20."""

    def __init__(self, size: int = 11) -> None:
        self.size = size
        self.observation_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.position = int(self.np_random.integers(1, self.size - 1))
        return self._observation(), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.position += 1 if action == 1 else -1
        at_right_end = self.position == self.size - 1
        return self._observation(), 20.0 if at_right_end else -1.0, at_right_end or self.position == 0, False, {}

    def _observation(self) -> np.ndarray:
        return np.array([2 * self.position / (self.size - 1) - 1], np.float32)


def main(total_timesteps: int = 10_000) -> None:
    check_env(Walk())
    # A registered id also works on the command line: sb3-vpg train --env Walk-v0 --gym-packages your_module
    gym.register("Walk-v0", entry_point=Walk, max_episode_steps=50)
    model = VPG("MlpPolicy", gym.make("Walk-v0"), n_steps=64, seed=0).learn(total_timesteps)
    for position in (-0.8, 0.0, 0.8):
        action, _ = model.predict(np.array([position], np.float32), deterministic=True)
        print(f"At {position:+.1f}: {'right' if action == 1 else 'left'}")


if __name__ == "__main__":
    main()
