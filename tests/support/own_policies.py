"""A game in which the third of three moves is forbidden, and policies that keep from it, each in another way."""

from collections.abc import Callable
from typing import Any

import torch as th
from gymnasium import spaces
from helpers import VECTOR, RandomEnv
from stable_baselines3.common.distributions import CategoricalDistribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import FlattenExtractor, MlpExtractor
from torch import nn

FORBIDDEN = th.tensor([0.0, 0.0, 1e9])


class Game(RandomEnv):
    """Counts the moves."""

    def __init__(self) -> None:
        super().__init__(VECTOR, spaces.Discrete(3))
        self.moves = [0, 0, 0]

    def step(self, action: Any) -> Any:
        self.moves[int(action)] += 1
        return super().step(action)


class Masked(ActorCriticPolicy):
    """Masks in the methods that SB3 trains with; the other ones know nothing of it."""

    def _both(self, obs: th.Tensor) -> Any:
        body = self.mlp_extractor
        distribution = self.action_dist.proba_distribution(self.action_net(body.forward_actor(obs)) - FORBIDDEN)
        return distribution, self.value_net(body.forward_critic(obs))

    def forward(self, obs: th.Tensor, deterministic: bool = False) -> Any:
        distribution, values = self._both(obs)
        actions = distribution.get_actions(deterministic)
        return actions, values, distribution.log_prob(actions)

    def evaluate_actions(self, obs: th.Tensor, actions: th.Tensor) -> Any:
        distribution, values = self._both(obs)
        return values, distribution.log_prob(actions), distribution.entropy()


class MaskedForward(Masked):
    """Samples with the mask and learns without it."""

    evaluate_actions = ActorCriticPolicy.evaluate_actions


class MaskedEvaluation(Masked):
    """Samples without the mask and learns with it: A2C plays forbidden moves."""

    forward = ActorCriticPolicy.forward


class MaskedDistribution(ActorCriticPolicy):
    """Masks where only predictions look: A2C plays forbidden moves in training."""

    def get_distribution(self, obs: Any) -> Any:
        distribution = super().get_distribution(obs)
        return distribution.proba_distribution(distribution.distribution.logits - FORBIDDEN)


class MaskedLatent(ActorCriticPolicy):
    def _get_action_dist_from_latent(self, latent_pi: th.Tensor) -> Any:
        return self.action_dist.proba_distribution(self.action_net(latent_pi) - FORBIDDEN)


class Body(MlpExtractor):
    """As a whole, it does something else than its halves."""

    def forward(self, features: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        latent_pi, latent_vf = super().forward(features)
        return th.cat([th.ones_like(latent_pi[:, :1]), latent_pi[:, 1:]], dim=1), latent_vf

    def forward_actor(self, features: th.Tensor) -> th.Tensor:
        latent_pi = super().forward_actor(features)
        return th.cat([th.zeros_like(latent_pi[:, :1]), latent_pi[:, 1:]], dim=1)


class OwnBody(ActorCriticPolicy):
    def _build_mlp_extractor(self) -> None:
        self.mlp_extractor = Body(self.features_dim, self.net_arch, self.activation_fn, self.device)

    def _build(self, lr_schedule: Any) -> None:
        super()._build(lr_schedule)
        with th.no_grad():
            self.action_net.weight[2, 0] = -1e9


class MaskedCategorical(CategoricalDistribution):
    def proba_distribution(self, action_logits: th.Tensor) -> Any:
        return super().proba_distribution(action_logits - FORBIDDEN)


class MaskedLayer(nn.Linear):
    def forward(self, x: th.Tensor) -> th.Tensor:
        return super().forward(x) - FORBIDDEN


def methods_of_the_object(policy: Any) -> None:
    policy.forward = Masked.forward.__get__(policy)
    policy.evaluate_actions = Masked.evaluate_actions.__get__(policy)
    policy._both = Masked._both.__get__(policy)


def sample_of_the_object(policy: Any) -> None:
    distribution = policy.action_dist
    distribution.sample = lambda: th.randint(0, 2, distribution.distribution.logits.shape[:1])


def another_distribution(policy: Any) -> None:
    policy.action_dist = MaskedCategorical(3)


def parameters_of_the_distribution(policy: Any) -> None:
    distribution = policy.action_dist
    make = distribution.proba_distribution
    distribution.proba_distribution = lambda action_logits: make(action_logits - FORBIDDEN)


def another_layer(policy: Any) -> None:
    layer = MaskedLayer(8, 3)
    layer.load_state_dict(policy.action_net.state_dict())
    policy.action_net = layer


def forward_of_the_layer(policy: Any) -> None:
    forward = policy.action_net.forward
    policy.action_net.forward = lambda x: forward(x) - FORBIDDEN


def hook_of_the_layer(policy: Any) -> None:
    policy.action_net.register_forward_hook(lambda _, __, output: output - FORBIDDEN)


def hook_of_the_policy(policy: Any) -> None:
    policy.register_forward_hook(lambda _, __, output: (output[0].clamp(max=1), *output[1:]))


def hook_of_the_body(policy: Any) -> None:
    """The halves of the body have no hooks."""
    with th.no_grad():
        policy.action_net.weight[2, 0] = -1e9
    first = th.zeros(8)
    first[0] = 1.0
    policy.mlp_extractor.register_forward_hook(lambda _, __, output: (output[0] * 0.0 + first, output[1]))
    policy.mlp_extractor.policy_net.register_forward_hook(lambda _, __, output: output * (1.0 - first))


class Constant(FlattenExtractor):
    def forward(self, observations: th.Tensor) -> th.Tensor:
        return th.full_like(observations, 1e3)


def first_name_of_the_extractor(policy: Any) -> None:
    """SB3 acts by ``features_extractor``, and predicts by ``pi_features_extractor``."""
    policy.features_extractor = Constant(policy.observation_space)
    with th.no_grad():
        for layer in (policy.mlp_extractor.policy_net[0], policy.action_net):
            layer.weight.fill_(1.0)
            layer.bias.zero_()
        policy.action_net.weight[2] = -1e3


Kind = tuple[type[ActorCriticPolicy], Callable[[Any], None]]
KINDS: dict[str, Kind] = {
    "forward_and_evaluate_actions": (Masked, lambda _: None),
    "forward": (MaskedForward, lambda _: None),
    "evaluate_actions": (MaskedEvaluation, lambda _: None),
    "get_distribution": (MaskedDistribution, lambda _: None),
    "distribution_of_the_latent": (MaskedLatent, lambda _: None),
    "body": (OwnBody, lambda _: None),
    **{
        change.__name__: (ActorCriticPolicy, change)
        for change in (
            methods_of_the_object,
            sample_of_the_object,
            another_distribution,
            parameters_of_the_distribution,
            another_layer,
            forward_of_the_layer,
            hook_of_the_layer,
            hook_of_the_policy,
            hook_of_the_body,
            first_name_of_the_extractor,
        )
    },
}
IGNORED_BY_SB3 = {"evaluate_actions", "get_distribution"}
