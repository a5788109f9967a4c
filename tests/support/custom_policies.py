"""A game in which the third of three moves is forbidden, and policies that mask this move, each by another override."""

from collections.abc import Callable
from typing import Any

import torch as th
from gymnasium import spaces
from helpers import VECTOR, RandomEnv
from stable_baselines3.common.distributions import CategoricalDistribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import FlattenExtractor, MlpExtractor
from torch import nn

PENALTY = th.tensor([0.0, 0.0, 1e9])
"""Subtracted from the logits, it rules out the third move."""


class Game(RandomEnv):
    """Counts how often each of the three moves is played; it accepts the forbidden one."""

    def __init__(self) -> None:
        super().__init__(VECTOR, spaces.Discrete(3))
        self.moves = [0, 0, 0]

    def step(self, action: Any) -> Any:
        self.moves[int(action)] += 1
        return super().step(action)


class Masked(ActorCriticPolicy):
    """Masks in ``forward`` and ``evaluate_actions``, with which SB3 trains, and not in ``get_distribution``."""

    def _distribution_and_values(self, obs: th.Tensor) -> Any:
        body = self.mlp_extractor
        distribution = self.action_dist.proba_distribution(self.action_net(body.forward_actor(obs)) - PENALTY)
        return distribution, self.value_net(body.forward_critic(obs))

    def forward(self, obs: th.Tensor, deterministic: bool = False) -> Any:
        distribution, values = self._distribution_and_values(obs)
        actions = distribution.get_actions(deterministic)
        return actions, values, distribution.log_prob(actions)

    def evaluate_actions(self, obs: th.Tensor, actions: th.Tensor) -> Any:
        distribution, values = self._distribution_and_values(obs)
        return values, distribution.log_prob(actions), distribution.entropy()


class MaskedForward(Masked):
    """Masks in ``forward`` only."""

    evaluate_actions = ActorCriticPolicy.evaluate_actions


class MaskedEvaluation(Masked):
    """Masks in ``evaluate_actions`` only: A2C plays forbidden moves."""

    forward = ActorCriticPolicy.forward


class MaskedDistribution(ActorCriticPolicy):
    """Masks in ``get_distribution``, which only predictions use: A2C plays forbidden moves in training."""

    def get_distribution(self, obs: Any) -> Any:
        distribution = super().get_distribution(obs)
        return distribution.proba_distribution(distribution.distribution.logits - PENALTY)


class MaskedLatent(ActorCriticPolicy):
    """Masks where SB3 makes the distribution from the features."""

    def _get_action_dist_from_latent(self, latent_pi: th.Tensor) -> Any:
        return self.action_dist.proba_distribution(self.action_net(latent_pi) - PENALTY)


class InconsistentBody(MlpExtractor):
    """``forward`` sets the first feature of the actor to one, ``forward_actor`` sets it to zero."""

    def forward(self, features: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        latent_pi, latent_vf = super().forward(features)
        return th.cat([th.ones_like(latent_pi[:, :1]), latent_pi[:, 1:]], dim=1), latent_vf

    def forward_actor(self, features: th.Tensor) -> th.Tensor:
        latent_pi = super().forward_actor(features)
        return th.cat([th.zeros_like(latent_pi[:, :1]), latent_pi[:, 1:]], dim=1)


class OwnBody(ActorCriticPolicy):
    """Rules out the third move only if the first feature is one."""

    def _build_mlp_extractor(self) -> None:
        self.mlp_extractor = InconsistentBody(self.features_dim, self.net_arch, self.activation_fn, self.device)

    def _build(self, lr_schedule: Any) -> None:
        super()._build(lr_schedule)
        with th.no_grad():
            self.action_net.weight[2, 0] = -1e9


class MaskedCategorical(CategoricalDistribution):
    def proba_distribution(self, action_logits: th.Tensor) -> Any:
        return super().proba_distribution(action_logits - PENALTY)


class MaskedLayer(nn.Linear):
    def forward(self, x: th.Tensor) -> th.Tensor:
        return super().forward(x) - PENALTY


def set_instance_methods(policy: Any) -> None:
    policy.forward = Masked.forward.__get__(policy)
    policy.evaluate_actions = Masked.evaluate_actions.__get__(policy)
    policy._distribution_and_values = Masked._distribution_and_values.__get__(policy)


def set_instance_sample(policy: Any) -> None:
    distribution = policy.action_dist
    distribution.sample = lambda: th.randint(0, 2, distribution.distribution.logits.shape[:1])


def replace_distribution(policy: Any) -> None:
    policy.action_dist = MaskedCategorical(3)


def set_proba_distribution(policy: Any) -> None:
    distribution = policy.action_dist
    make = distribution.proba_distribution
    distribution.proba_distribution = lambda action_logits: make(action_logits - PENALTY)


def replace_layer(policy: Any) -> None:
    layer = MaskedLayer(8, 3)
    layer.load_state_dict(policy.action_net.state_dict())
    policy.action_net = layer


def set_layer_forward(policy: Any) -> None:
    forward = policy.action_net.forward
    policy.action_net.forward = lambda x: forward(x) - PENALTY


def add_layer_hook(policy: Any) -> None:
    policy.action_net.register_forward_hook(lambda _, __, output: output - PENALTY)


def add_policy_hook(policy: Any) -> None:
    policy.register_forward_hook(lambda _, __, output: (output[0].clamp(max=1), *output[1:]))


def add_body_hooks(policy: Any) -> None:
    """Add hooks that rule out the third move only if SB3 calls the body as a whole, not ``forward_actor``."""
    with th.no_grad():
        policy.action_net.weight[2, 0] = -1e9
    first = th.zeros(8)
    first[0] = 1.0
    policy.mlp_extractor.register_forward_hook(lambda _, __, output: (output[0] * 0.0 + first, output[1]))
    policy.mlp_extractor.policy_net.register_forward_hook(lambda _, __, output: output * (1.0 - first))


class ConstantExtractor(FlattenExtractor):
    def forward(self, observations: th.Tensor) -> th.Tensor:
        return th.full_like(observations, 1e3)


def replace_features_extractor(policy: Any) -> None:
    """Replace ``features_extractor``, which SB3 acts by; it predicts by ``pi_features_extractor``."""
    policy.features_extractor = ConstantExtractor(policy.observation_space)
    with th.no_grad():
        for layer in (policy.mlp_extractor.policy_net[0], policy.action_net):
            layer.weight.fill_(1.0)
            layer.bias.zero_()
        policy.action_net.weight[2] = -1e3


Kind = tuple[type[ActorCriticPolicy], Callable[[Any], None]]
"""The class of a policy, and a change of its object."""
KINDS: dict[str, Kind] = {
    "forward_and_evaluate_actions": (Masked, lambda _: None),
    "forward": (MaskedForward, lambda _: None),
    "evaluate_actions": (MaskedEvaluation, lambda _: None),
    "get_distribution": (MaskedDistribution, lambda _: None),
    "_get_action_dist_from_latent": (MaskedLatent, lambda _: None),
    "body": (OwnBody, lambda _: None),
    **{
        change.__name__: (ActorCriticPolicy, change)
        for change in (
            set_instance_methods,
            set_instance_sample,
            replace_distribution,
            set_proba_distribution,
            replace_layer,
            set_layer_forward,
            add_layer_hook,
            add_policy_hook,
            add_body_hooks,
            replace_features_extractor,
        )
    },
}
IGNORED_BY_SB3 = {"evaluate_actions", "get_distribution"}
"""The kinds whose mask A2C does not use when it plays."""
