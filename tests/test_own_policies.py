"""
A policy with a way of its own is played and trained as SB3's A2C plays and trains it, in every mode of VPG.

In the game, the third of three moves is forbidden. Each policy below keeps from it in another way that SB3 heeds, or in one
that SB3 does not heed: what A2C does is the oracle.
"""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from helpers import VECTOR, RandomEnv, make_model, silence
from stable_baselines3 import A2C
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.distributions import CategoricalDistribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import FlattenExtractor, MlpExtractor
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import nn

from sb3_vpg import VPG
from sb3_vpg.buffers import whole_batch

FORBIDDEN = th.tensor([0.0, 0.0, 1e9])
MODES: dict[str, dict[str, Any]] = {
    "steps": {},
    "steps_without_critic": {"baseline": "none"},
    "episodes": {"n_episodes": 3},
    "average": {"n_episodes": 3, "baseline": "average"},
    "leave_one_out": {"n_episodes": 3, "baseline": "leave_one_out"},
    "optimal": {"n_episodes": 3, "baseline": "optimal"},
}


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
kinds = pytest.mark.parametrize("kind", KINDS)
modes = pytest.mark.parametrize("options", MODES.values(), ids=MODES.keys())


def build(cls: Any, kind: str, **options: Any) -> Any:
    policy, change = KINDS[kind]
    arguments = {"policy_kwargs": {"net_arch": [8]}, "seed": 0, "device": "cpu", "n_steps": 32, **options}
    model = cls(policy, Game(), **arguments)
    change(model.policy)
    return model


def share_of_forbidden_moves(model: Any) -> float:
    moves = model.get_env().envs[0].unwrapped.moves
    return float(moves[2] / sum(moves))


@kinds
def test_a2c_is_the_oracle(kind: str) -> None:
    """What this file takes for granted of SB3."""
    share = share_of_forbidden_moves(build(A2C, kind).learn(128))
    assert (share > 0.1) if kind in IGNORED_BY_SB3 else (share == 0.0)


@kinds
@modes
def test_forbidden_moves_are_played_where_a2c_plays_them_and_nowhere_else(kind: str, options: dict[str, Any]) -> None:
    share = share_of_forbidden_moves(build(VPG, kind, **options).learn(128))
    assert (share > 0.1) if kind in IGNORED_BY_SB3 else (share == 0.0)


@kinds
@modes
def test_the_log_probability_that_is_differentiated_is_evaluate_actions(kind: str, options: dict[str, Any]) -> None:
    """The gradient of one update, recomputed by autograd from what SB3 calls."""
    model = build(VPG, kind, max_grad_norm=float("inf"), ent_coef=0.1, **options)
    silence(model)
    _, callback = model._setup_learn(32)
    assert model.collect_rollouts(model.env, callback, model.rollout_buffer, model.n_steps)
    batch, policy = whole_batch(model.rollout_buffer), model.policy
    policy.set_training_mode(True)
    _, log_prob, entropy = policy.evaluate_actions(batch.observations, batch.actions.long().flatten())
    n_terms = options.get("n_episodes", len(batch.advantages))
    loss = -(batch.advantages * log_prob).sum() / n_terms - 0.1 * entropy.sum() / n_terms
    parameters = [parameter for group in policy.optimizer.param_groups for parameter in group["params"]]
    expected = th.autograd.grad(loss, parameters, allow_unused=True)
    model.train()
    for parameter, gradient in zip(parameters, expected, strict=True):
        if gradient is not None:
            th.testing.assert_close(parameter.grad, gradient)
    assert any(gradient is not None and gradient.abs().max() > 1e-6 for gradient in expected)


class OwnValues(ActorCriticPolicy):
    """Learns and plays by other values than those that it predicts."""

    def forward(self, obs: Any, deterministic: bool = False) -> Any:
        actions, values, log_prob = super().forward(obs, deterministic)
        return actions, 3.0 * values, log_prob

    def evaluate_actions(self, obs: Any, actions: Any) -> Any:
        values, log_prob, entropy = super().evaluate_actions(obs, actions)
        return 3.0 * values, log_prob, entropy


class OwnPrediction(ActorCriticPolicy):
    """Predicts other values than those that it learns and plays by."""

    def predict_values(self, obs: Any) -> th.Tensor:
        return 5.0 * super().predict_values(obs)


@pytest.mark.parametrize("policy", [OwnValues, OwnPrediction])
@pytest.mark.parametrize("options", [{}, {"n_episodes": 3}], ids=["steps", "episodes"])
def test_the_values_that_are_fitted_are_those_of_evaluate_actions(policy: Any, options: dict[str, Any]) -> None:
    """As in A2C: the gradient of the critic's only step, recomputed by autograd; and the rollout has the values of forward."""
    model = make_model(policy, Game(), max_grad_norm=float("inf"), n_critic_updates=1, **options)
    silence(model)
    _, callback = model._setup_learn(32)
    assert model.collect_rollouts(model.env, callback, model.rollout_buffer, model.n_steps)
    batch = whole_batch(model.rollout_buffer)
    values, _, _ = model.policy.evaluate_actions(batch.observations, batch.actions.long().flatten())
    th.testing.assert_close(batch.old_values, values.detach().flatten())
    critic = [parameter for group in model.critic_optimizer.param_groups for parameter in group["params"]]
    expected = th.autograd.grad(nn.functional.mse_loss(batch.returns, values.flatten()), critic)
    model.train()
    for parameter, gradient in zip(critic, expected, strict=True):
        th.testing.assert_close(parameter.grad, gradient)


@kinds
@pytest.mark.parametrize("options", [{}, {"n_episodes": 3}], ids=["steps", "episodes"])
def test_values_and_log_probabilities_of_the_rollout_are_those_of_forward(kind: str, options: dict[str, Any]) -> None:
    """Asked again for each row; the actions are made the same ones by seeding torch, where forward draws them."""
    model = build(VPG, kind, **options)
    silence(model)
    _, callback = model._setup_learn(32)
    assert model.collect_rollouts(model.env, callback, model.rollout_buffer, model.n_steps)
    buffer, policy = model.rollout_buffer, model.policy
    for row in range(10):
        observation = th.as_tensor(buffer.observations[row])
        for _ in range(200):
            with th.no_grad():
                action, value, log_prob = policy(observation)
            if int(action) == int(buffer.actions[row, 0, 0]):
                break
        else:
            raise AssertionError("forward() never draws what was played")
        np.testing.assert_allclose(buffer.values[row], value.flatten(), rtol=1e-4, atol=1e-5)
        if kind != "hook_of_the_policy":  # two moves have become one
            np.testing.assert_allclose(buffer.log_probs[row], log_prob, rtol=1e-4, atol=1e-5)


@kinds
def test_predictions_are_those_of_the_policy(kind: str) -> None:
    """Also sampled ones: their frequencies are those of ``policy.predict``."""
    model = build(VPG, kind)
    observations = np.random.default_rng(0).normal(size=(2000, 3)).astype(np.float32)
    for _ in range(2):
        likeliest, _ = model.predict(observations, deterministic=True)
        np.testing.assert_array_equal(likeliest, model.policy.predict(observations, deterministic=True)[0])
        ours, theirs = (np.bincount(one.predict(observations)[0], minlength=3) for one in (model, model.policy))
        assert np.abs(ours - theirs).max() < 200
        assert (ours > 0).tolist() == (theirs > 0).tolist()


def test_a_mode_of_the_distributions_object_is_predicted() -> None:
    """Given after the model has predicted."""
    model = make_model(env=Game())
    model.predict(np.zeros(3, np.float32))
    model.policy.action_dist.mode = lambda: th.full((1,), 2)
    assert model.predict(np.zeros(3, np.float32), deterministic=True)[0] == 2
    del model.policy.action_dist.mode
    model.policy._predict = lambda observation, deterministic: th.ones(1)
    assert model.predict(np.zeros(3, np.float32))[0] == 1


class Gives(BaseCallback):
    """Changes the policy after so many steps."""

    def __init__(self, change: Callable[[Any], None], at: int) -> None:
        super().__init__()
        self.change, self.at = change, at

    def _on_step(self) -> bool:
        if self.n_calls == self.at:
            self.change(self.model.policy)
        return True


@pytest.mark.parametrize(
    "change", [methods_of_the_object, sample_of_the_object, another_distribution, forward_of_the_layer, hook_of_the_policy]
)
@modes
def test_a_way_of_its_own_that_is_given_in_the_middle_of_a_rollout_is_refused(change: Any, options: dict[str, Any]) -> None:
    """A2C would go on with it at once: nothing is learned from such a rollout."""
    model = make_model(ActorCriticPolicy, Game(), **options)
    before = model.policy.action_net.weight.clone()
    with pytest.raises(ValueError, match=r"of its own in the middle of a rollout: do that .* in _on_rollout_end\(\)"):
        model.learn(64, Gives(change, 5))
    assert th.equal(model.policy.action_net.weight, before)
    model.learn(64)
    if change is not hook_of_the_policy:
        assert model.policy.action_net.weight.isfinite().all()


BOX = spaces.Box(-1.0, 1.0, (2,), np.float32)


class Bounded(ActorCriticPolicy):
    """Acts by half of what SB3 draws."""

    def forward(self, obs: Any, deterministic: bool = False) -> Any:
        actions, values, log_prob = super().forward(obs, deterministic)
        return actions.abs(), values, log_prob


@modes
def test_a_policys_own_way_with_gsde(options: dict[str, Any]) -> None:
    """Only actions that are not negative are played."""
    if options.get("baseline") in ("leave_one_out", "optimal"):
        pytest.skip("refused with use_sde")
    played: list[float] = []

    class Watched(RandomEnv):
        def step(self, action: Any) -> Any:
            played.extend(action)
            return super().step(action)

    env: gym.Env[Any, Any] = Watched(VECTOR, BOX)
    model = make_model(Bounded, DummyVecEnv([lambda: env]), use_sde=True, sde_sample_freq=2, **options).learn(64)
    assert len(played) >= 128
    assert min(played) >= 0.0
    assert model.rollout_buffer.log_probs.any()
