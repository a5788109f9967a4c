"""Environments, policies and comparisons for several test modules."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import nn

from sb3_vpg import VPG, RecurrentVPG

MAY_STAND_STILL = pytest.mark.filterwarnings("ignore:(vf_)?learning_rate=.* was 0 at each update:UserWarning")
"""For tests with a single rollout and a schedule that ends at 0, in which the weights do not matter."""
VECTOR = spaces.Box(-1.0, 1.0, (3,), np.float32)
IMAGE = spaces.Box(0, 255, (36, 36, 3), np.uint8)
DICT = spaces.Dict({"vector": VECTOR, "flag": spaces.Discrete(3), "image": IMAGE})
DISCRETE = spaces.Discrete(3)
CONTINUOUS = spaces.Box(-1.0, 1.0, (2,), np.float32)


class RandomEnv(gym.Env[Any, Any]):
    """
    Random observations; episodes of six steps, which alternately terminate and are truncated.

    :param rewards: the reward of the n-th step since construction, counted from 1; None: normally distributed
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any] = VECTOR,
        action_space: spaces.Space[Any] = DISCRETE,
        rewards: Callable[[int], float] | None = None,
    ) -> None:
        self.observation_space = deepcopy(observation_space)
        self.action_space = deepcopy(action_space)
        self.rewards = rewards
        self.steps = self.episodes = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
            self.episodes = 0
        self.age = 0
        self.episodes += 1
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), f"{action!r} is no action of {self.action_space}"
        self.steps += 1
        self.age += 1
        over, even = self.age == 6, self.episodes % 2 == 0
        reward = self.np_random.normal() if self.rewards is None else self.rewards(self.steps)
        return self.observation_space.sample(), float(reward), over and even, over and not even, {}


class LinearExtractor(BaseFeaturesExtractor):
    """A features extractor with weights, for vectors."""

    def __init__(self, observation_space: spaces.Box, features_dim: int = 5) -> None:
        super().__init__(observation_space, features_dim)
        self.layer = nn.Linear(observation_space.shape[0], features_dim)

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return th.tanh(self.layer(observations))


class OddlyNamedNetwork(nn.Module):
    """The policy's layer is called ``value_thing`` and the critic's ``actor_like``."""

    latent_dim_pi = latent_dim_vf = 8

    def __init__(self, features_dim: int) -> None:
        super().__init__()
        self.value_thing = nn.Linear(features_dim, 8)
        self.actor_like = nn.Linear(features_dim, 8)

    def forward(self, features: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        return self.forward_actor(features), self.forward_critic(features)

    def forward_actor(self, features: th.Tensor) -> th.Tensor:
        return th.tanh(self.value_thing(features))

    def forward_critic(self, features: th.Tensor) -> th.Tensor:
        return th.tanh(self.actor_like(features))


class OddlyNamedPolicy(ActorCriticPolicy):
    """A user's policy with misleading names, built as in SB3's guide to custom policies."""

    def _build_mlp_extractor(self) -> None:
        self.mlp_extractor = OddlyNamedNetwork(self.features_dim)


class UsersBuffer(RolloutBuffer):
    """A user's rollout buffer, which SB3's own loop fills."""


class PartlyFrozenPolicy(ActorCriticPolicy):
    """The hidden layers of actor and critic are frozen, as after pre-training."""

    def _build(self, lr_schedule: Any) -> None:
        super()._build(lr_schedule)
        self.mlp_extractor.requires_grad_(False)


class GroupedPolicy(ActorCriticPolicy):
    """Weights, biases and log_std are in separate groups of the optimiser, with other weight decay and betas."""

    def _build(self, lr_schedule: Any) -> None:
        super()._build(lr_schedule)
        named = list(self.named_parameters())
        groups = [
            {"params": [p for n, p in named if n.endswith("weight")], "weight_decay": 0.25},
            {"params": [p for n, p in named if n.endswith("bias")], "weight_decay": 0.0},
            {"params": [p for n, p in named if n == "log_std"], "betas": (0.5, 0.75)},
        ]
        self.optimizer = th.optim.Adam(groups, lr=lr_schedule(1))


def make_model(policy: Any = "MlpPolicy", env: Any = None, **kwargs: Any) -> VPG:
    """:return: a small VPG, by default with a hidden layer of 8 units and a large learning rate"""
    policy_kwargs = {"net_arch": [8], **kwargs.pop("policy_kwargs", {})}
    defaults = {"n_steps": 16, "n_critic_updates": 2, "learning_rate": 0.01, "seed": 0, "device": "cpu"}
    return VPG(policy, RandomEnv() if env is None else env, **{**defaults, **kwargs}, policy_kwargs=policy_kwargs)


def vector_env(n_envs: int, **kwargs: Any) -> DummyVecEnv:
    return DummyVecEnv([lambda: RandomEnv(**kwargs)] * n_envs)


def silence(model: BaseAlgorithm) -> None:
    """Set a logger without outputs, for a model that is trained without ``learn()``."""
    model.set_logger(Logger(folder=None, output_formats=[]))


def weights(model: BaseAlgorithm) -> dict[str, th.Tensor]:
    return {name: value.clone() for name, value in model.policy.state_dict().items()}


def differing(first: dict[str, th.Tensor], second: dict[str, th.Tensor]) -> set[str]:
    """:return: the names of the tensors that are not equal to the last bit"""
    assert first.keys() == second.keys()
    return {name for name in first if not th.equal(first[name], second[name])}


def sample_observations(model: BaseAlgorithm, count: int = 7) -> Any:
    """:return: random observations of the model's space, as tensors"""
    space = deepcopy(model.observation_space)
    space.seed(1)
    samples = [space.sample() for _ in range(count)]
    if isinstance(space, spaces.Dict):
        samples = {key: np.stack([sample[key] for sample in samples]) for key in samples[0]}
    else:
        samples = np.stack(samples)
    return model.policy.obs_to_tensor(samples)[0]


def action_parameters(policy: ActorCriticPolicy, observations: Any) -> list[th.Tensor]:
    """:return: the parameters of the distribution of actions: logits, or means and standard deviations"""
    policy.set_training_mode(False)
    with th.no_grad():
        distribution = policy.get_distribution(observations).distribution
    parts = distribution if isinstance(distribution, list) else [distribution]
    return [getattr(part, name) for part in parts for name in ("logits", "loc", "scale") if hasattr(part, name)]


def values(policy: ActorCriticPolicy, observations: Any) -> th.Tensor:
    policy.set_training_mode(False)
    with th.no_grad():
        return policy.predict_values(observations)


def same(first: list[th.Tensor], second: list[th.Tensor]) -> bool:
    return all(th.equal(tensor, expected) for tensor, expected in zip(first, second, strict=True))


def make_recurrent_model(policy: Any = "MlpLstmPolicy", env: Any = None, **kwargs: Any) -> RecurrentVPG:
    """:return: a small RecurrentVPG, by default with an LSTM of 5 units and a large learning rate"""
    policy_kwargs = {"lstm_hidden_size": 5, "net_arch": [8], **(kwargs.pop("policy_kwargs", None) or {})}
    defaults = {"n_steps": 16, "n_critic_updates": 2, "learning_rate": 0.01, "seed": 0, "device": "cpu"}
    return RecurrentVPG(policy, RandomEnv() if env is None else env, **{**defaults, **kwargs}, policy_kwargs=policy_kwargs)
