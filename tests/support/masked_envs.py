"""Environments with action masks for the tests."""

from typing import Any

import numpy as np
from gymnasium import spaces
from helpers import DISCRETE, VECTOR, RandomEnv
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_vpg import MaskableVPG
from sb3_vpg.vec_env.action_masks import mask_sizes

ACTION_SPACES = {
    "discrete": spaces.Discrete(5),
    "multi_discrete": spaces.MultiDiscrete([3, 2, 4]),
    "binary": spaces.MultiBinary(3),
}


class MaskedEnv(RandomEnv):
    """
    A ``RandomEnv`` with a random mask at each step. An action that the mask does not allow fails.

    :param allows_all: the masks allow everything
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any] = VECTOR,
        action_space: spaces.Space[Any] = DISCRETE,
        allows_all: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(observation_space, action_space, **kwargs)
        self.allows_all = allows_all
        self.mask = np.ones(sum(mask_sizes(action_space)), dtype=bool)

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        result = super().reset(**kwargs)
        self._draw_mask()
        return result

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        parts = np.split(self.mask, np.cumsum(mask_sizes(self.action_space))[:-1])
        assert all(part[int(choice)] for part, choice in zip(parts, np.ravel(action), strict=True)), (action, self.mask)
        result = super().step(action)
        self._draw_mask()
        return result

    def _draw_mask(self) -> None:
        if self.allows_all:
            return
        parts = []
        for size in mask_sizes(self.action_space):
            part = self.np_random.random(size) < 0.5
            part[self.np_random.integers(size)] = True
            parts.append(part)
        self.mask = np.concatenate(parts)

    def action_masks(self) -> np.ndarray:
        return self.mask


def masked_envs(n_envs: int = 2, seed: int = 5, **kwargs: Any) -> DummyVecEnv:
    env = DummyVecEnv([lambda: MaskedEnv(**kwargs)] * n_envs)
    env.seed(seed)
    return env


def make_maskable(policy: Any = "MlpPolicy", env: Any = None, **kwargs: Any) -> MaskableVPG:
    """:return: a small MaskableVPG, with the arguments of ``helpers.make_model``"""
    policy_kwargs = {"net_arch": [8], **kwargs.pop("policy_kwargs", {})}
    defaults = {"n_steps": 16, "n_critic_updates": 2, "learning_rate": 0.01, "seed": 0, "device": "cpu"}
    return MaskableVPG(policy, masked_envs() if env is None else env, **{**defaults, **kwargs}, policy_kwargs=policy_kwargs)
