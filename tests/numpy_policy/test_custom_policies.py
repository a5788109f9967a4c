"""
VPG plays and trains a policy that overrides SB3's methods as A2C does, in every mode.

A2C uses some overrides in training and ignores others; VPG must do the same.
"""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from custom_policies import (
    IGNORED_BY_SB3,
    KINDS,
    Game,
    add_policy_hook,
    replace_distribution,
    set_instance_methods,
    set_instance_sample,
    set_layer_forward,
)
from gymnasium import spaces
from helpers import VECTOR, RandomEnv, differing, make_model, silence, weights
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
def test_a2c_plays_forbidden_moves_only_if_it_ignores_the_mask(kind: str) -> None:
    """A2C plays forbidden moves only with the policies in IGNORED_BY_SB3, which the other tests assume."""
    share = share_of_forbidden_moves(build(A2C, kind).learn(128))
    assert (share > 0.1) if kind in IGNORED_BY_SB3 else (share == 0.0)


# The layers that are replaced here are not those that load would build
@pytest.mark.filterwarnings("ignore:load.path. alone will not read this model:UserWarning")
@kinds
@modes
def test_vpg_plays_forbidden_moves_only_if_a2c_does(kind: str, options: dict[str, Any]) -> None:
    """VPG plays forbidden moves only with the policies with which A2C plays them."""
    share = share_of_forbidden_moves(build(VPG, kind, **options).learn(128))
    assert (share > 0.1) if kind in IGNORED_BY_SB3 else (share == 0.0)


@kinds
@modes
def test_policy_gradient_is_that_of_evaluate_actions(kind: str, options: dict[str, Any]) -> None:
    """The gradient of an update is that of the loss computed from ``evaluate_actions``, which SB3 calls."""
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


class ScaledValuesPolicy(ActorCriticPolicy):
    """Multiplies the values in ``forward`` and ``evaluate_actions``, not in ``predict_values``."""

    def forward(self, obs: Any, deterministic: bool = False) -> Any:
        actions, values, log_prob = super().forward(obs, deterministic)
        return actions, 3.0 * values, log_prob

    def evaluate_actions(self, obs: Any, actions: Any) -> Any:
        values, log_prob, entropy = super().evaluate_actions(obs, actions)
        return 3.0 * values, log_prob, entropy


class ScaledPredictionPolicy(ActorCriticPolicy):
    """Multiplies the values in ``predict_values`` only."""

    def predict_values(self, obs: Any) -> th.Tensor:
        return 5.0 * super().predict_values(obs)


@pytest.mark.parametrize("policy", [ScaledValuesPolicy, ScaledPredictionPolicy])
@pytest.mark.parametrize("options", [{}, {"n_episodes": 3}], ids=["steps", "episodes"])
def test_critic_gradient_is_that_of_evaluate_actions(policy: Any, options: dict[str, Any]) -> None:
    """The gradient of the critic's step is computed from the values of ``evaluate_actions``, as in A2C."""
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
def test_rollout_has_the_values_and_log_probabilities_of_forward(kind: str, options: dict[str, Any]) -> None:
    """For each row, ``forward`` is called until it draws the same action; its value and log-probability are in the buffer."""
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
            raise AssertionError("forward() never draws the action that was played")
        np.testing.assert_allclose(buffer.values[row], value.flatten(), rtol=1e-4, atol=1e-5)
        if kind != "add_policy_hook":  # this hook changes the action after its log-probability was computed
            np.testing.assert_allclose(buffer.log_probs[row], log_prob, rtol=1e-4, atol=1e-5)


@kinds
def test_predictions_are_those_of_the_policy(kind: str) -> None:
    """Deterministic predictions equal those of ``policy.predict``, and sampled actions have the same frequencies."""
    model = build(VPG, kind)
    observations = np.random.default_rng(0).normal(size=(2000, 3)).astype(np.float32)
    for _ in range(2):
        likeliest, _ = model.predict(observations, deterministic=True)
        np.testing.assert_array_equal(likeliest, model.policy.predict(observations, deterministic=True)[0])
        ours, theirs = (np.bincount(each.predict(observations)[0], minlength=3) for each in (model, model.policy))
        assert np.abs(ours - theirs).max() < 200
        assert (ours > 0).tolist() == (theirs > 0).tolist()


def test_predict_uses_methods_that_are_set_later() -> None:
    """If ``mode`` of the distribution or ``_predict`` of the policy is replaced after a prediction, the next one uses it."""
    model = make_model(env=Game())
    model.predict(np.zeros(3, np.float32))
    model.policy.action_dist.mode = lambda: th.full((1,), 2)
    assert model.predict(np.zeros(3, np.float32), deterministic=True)[0] == 2
    del model.policy.action_dist.mode
    model.policy._predict = lambda observation, deterministic: th.ones(1)
    assert model.predict(np.zeros(3, np.float32))[0] == 1


class ChangePolicy(BaseCallback):
    """Changes the policy at one step."""

    def __init__(self, change: Callable[[Any], None], at: int) -> None:
        super().__init__()
        self.change, self.at = change, at

    def _on_step(self) -> bool:
        if self.n_calls == self.at:
            self.change(self.model.policy)
        return True


@pytest.mark.parametrize(
    "change", [set_instance_methods, set_instance_sample, replace_distribution, set_layer_forward, add_policy_hook]
)
@modes
def test_override_within_a_rollout_is_refused(change: Any, options: dict[str, Any]) -> None:
    """If a callback overrides a method within a rollout, VPG refuses it and learns nothing; the next ``learn()`` works."""
    model = make_model(ActorCriticPolicy, Game(), **options)
    before = model.policy.action_net.weight.clone()
    with pytest.raises(ValueError, match=r"policy was changed in the middle of a rollout: do that .* in _on_rollout_end\(\)"):
        model.learn(64, ChangePolicy(change, 5))
    assert th.equal(model.policy.action_net.weight, before)
    model.learn(64)
    if change is not add_policy_hook:
        assert model.policy.action_net.weight.isfinite().all()


BOX = spaces.Box(-1.0, 1.0, (2,), np.float32)


class NonNegativePolicy(ActorCriticPolicy):
    """Returns the absolute value of the action that SB3 draws."""

    def forward(self, obs: Any, deterministic: bool = False) -> Any:
        actions, values, log_prob = super().forward(obs, deterministic)
        return actions.abs(), values, log_prob


@modes
def test_gsde_plays_the_actions_of_forward(options: dict[str, Any]) -> None:
    """With gSDE, the actions of the policy's own ``forward`` are played, which are never negative."""
    if options.get("baseline") in ("leave_one_out", "optimal"):
        pytest.skip("VPG refuses this baseline with use_sde")
    played: list[float] = []

    class RecordingEnv(RandomEnv):
        def step(self, action: Any) -> Any:
            played.extend(action)
            return super().step(action)

    env: gym.Env[Any, Any] = RecordingEnv(VECTOR, BOX)
    model = make_model(NonNegativePolicy, DummyVecEnv([lambda: env]), use_sde=True, sde_sample_freq=2, **options).learn(64)
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
    """Log-probabilities with shape (n, 1) give the same weights as with shape (n,): no broadcast to shape (n, n)."""
    row, column = (make_model(policy, Game(), ent_coef=0.1).learn(64) for policy in (OwnEvaluation, ColumnPolicy))
    assert not differing(weights(row), weights(column))


def test_several_log_probabilities_for_one_action_are_refused() -> None:
    """Log-probabilities with shape (n, 2) are refused: their product with the advantages is no policy gradient."""
    model = make_model(UnsummedPolicy, Game())
    with pytest.raises(ValueError, match=r"UnsummedPolicy returned the log-probability with shape \(\d+, 2\) for \d+ actions"):
        model.learn(64)
