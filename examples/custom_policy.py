"""
Two ways to another network: settings of SB3's policy, and a features extractor of your own.

    python examples/custom_policy.py
"""

import gymnasium as gym
import torch as th
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

from sb3_vpg import VPG


class Polynomials(BaseFeaturesExtractor):
    """Adds the products of all pairs of numbers to an observation of d numbers."""

    def __init__(self, observation_space: gym.spaces.Box) -> None:
        d = observation_space.shape[0]
        super().__init__(observation_space, features_dim=d + d * (d + 1) // 2)
        self.rows, self.columns = th.triu_indices(d, d)

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return th.cat([observations, observations[:, self.rows] * observations[:, self.columns]], dim=1)


def main(total_timesteps: int = 20_000) -> None:
    # Policy and critic with layers of their own, and another activation
    layers = {"net_arch": {"pi": [32], "vf": [64, 64]}, "activation_fn": nn.ReLU}
    VPG("MlpPolicy", "CartPole-v1", policy_kwargs=layers, seed=0, verbose=1).learn(total_timesteps)

    extractor = {"features_extractor_class": Polynomials, "net_arch": []}
    model = VPG("MlpPolicy", "CartPole-v1", policy_kwargs=extractor, seed=0, verbose=1).learn(total_timesteps)
    print(model.policy)


if __name__ == "__main__":
    main()
