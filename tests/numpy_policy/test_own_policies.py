"""
A policy with a way of its own is played and trained as SB3's A2C plays and trains it, in every mode of VPG.

Some of their ways SB3 heeds, and some it does not: what A2C does is the oracle.
"""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from helpers import VECTOR, RandomEnv, differing, make_model, silence, weights
from own_policies import (
    IGNORED_BY_SB3,
    KINDS,
    Game,
    another_distribution,
    forward_of_the_layer,
    hook_of_the_policy,
    methods_of_the_object,
    sample_of_the_object,
)
from stable_baselines3 import A2C
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import nn

from sb3_vpg import VPG
from sb3_vpg.collection.buffers import full_batch

MODES: dict[str, dict[str, Any]] = {
    "steps": {},
    "steps_without_critic": {"baseline": "none"},
    "episodes": {"n_episodes": 3},
    "average": {"n_episodes": 3, "baseline": "average"},
    "leave_one_out": {"n_episodes": 3, "baseline": "leave_one_out"},
    "optimal": {"n_episodes": 3, "baseline": "optimal"},
}


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


# The layers that are replaced here are not those that load would build
@pytest.mark.filterwarnings("ignore:load.path. alone will not read this model:UserWarning")
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
    batch, policy = full_batch(model.rollout_buffer), model.policy
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
    batch = full_batch(model.rollout_buffer)
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
    with pytest.raises(ValueError, match=r"policy was changed in the middle of a rollout: do that .* in _on_rollout_end\(\)"):
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


class OwnEvaluation(ActorCriticPolicy):
    """Overrides ``evaluate_actions`` without changing its results."""

    def evaluate_actions(self, obs: Any, actions: Any) -> Any:
        return super().evaluate_actions(obs, actions)


class ColumnPolicy(ActorCriticPolicy):
    """Returns log-probability and entropy with shape (n, 1)."""

    def evaluate_actions(self, obs: Any, actions: Any) -> Any:
        values, log_prob, entropy = super().evaluate_actions(obs, actions)
        return values, log_prob[:, None], entropy[:, None]


class UnsummedPolicy(ActorCriticPolicy):
    """Returns one log-probability for each dimension of an action."""

    def evaluate_actions(self, obs: Any, actions: Any) -> Any:
        values, log_prob, entropy = super().evaluate_actions(obs, actions)
        return values, th.stack([log_prob, log_prob], dim=1), entropy


def test_log_probabilities_in_a_column_train_as_in_a_row() -> None:
    """They must not be broadcast with the advantages to shape (n, n)."""
    row, column = (make_model(policy, Game(), ent_coef=0.1).learn(64) for policy in (OwnEvaluation, ColumnPolicy))
    assert not differing(weights(row), weights(column))


def test_several_log_probabilities_for_one_action_are_refused() -> None:
    """Their product with the advantages is no policy gradient."""
    model = make_model(UnsummedPolicy, Game())
    with pytest.raises(ValueError, match=r"UnsummedPolicy returned the log-probability with shape \(\d+, 2\) for \d+ actions"):
        model.learn(64)
