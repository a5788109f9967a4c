"""
Observations that are images, and observations with several parts.

    python examples/images_and_dicts.py
"""

from typing import Any

import gymnasium as gym
import numpy as np

from sb3_vpg import VPG


class Target(gym.Env[Any, np.int64]):
    """
    A bright square is at the left or at the right of an image, and action 0 or 1 names the side.

    :param with_hint: add the side as a number, so that observations are dicts
    """

    def __init__(self, with_hint: bool = False) -> None:
        self.with_hint = with_hint
        image = gym.spaces.Box(0, 255, (36, 36, 1), np.uint8)
        hint = gym.spaces.Box(0.0, 1.0, (1,), np.float32)
        self.observation_space = gym.spaces.Dict({"image": image, "hint": hint}) if with_hint else image
        self.action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self._show(), {}

    def step(self, action: np.int64) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        reward = float(action == self.side)
        return self._show(), reward, bool(self.np_random.random() < 0.1), False, {}

    def _show(self) -> Any:
        self.side = int(self.np_random.integers(2))
        image = np.zeros((36, 36, 1), np.uint8)
        image[14:22, 4 + 20 * self.side : 12 + 20 * self.side] = 255
        return {"image": image, "hint": np.array([self.side], np.float32)} if self.with_hint else image


def main(total_timesteps: int = 2_000) -> None:
    # "CnnPolicy" is for images, "MultiInputPolicy" for dicts; both scale pixels to [0, 1]
    for policy, env in (("CnnPolicy", Target()), ("MultiInputPolicy", Target(with_hint=True))):
        # An action changes only the next reward, so gamma is 0
        model = VPG(policy, env, n_steps=64, gamma=0.0, learning_rate=1e-3, n_critic_updates=4, seed=0)
        model.learn(total_timesteps)
        recent = np.mean([episode["r"] / episode["l"] for episode in model.ep_info_buffer])
        print(f"{policy}: reward of a step in the last {len(model.ep_info_buffer)} episodes: {recent:.2f} (at random: 0.5)")


if __name__ == "__main__":
    main()
