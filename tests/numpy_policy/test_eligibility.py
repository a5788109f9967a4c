"""Policies, layers and callbacks for which NumPy would not give SB3's results: torch computes them."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from helpers import RandomEnv, differing, make_model, weights
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import nn

from sb3_vpg import VPG
from sb3_vpg.numpy_policy.distributions import numpy_distribution
from sb3_vpg.numpy_policy.networks import numpy_network
from sb3_vpg.optimization.critic import NumpyCriticFit, TorchCriticFit, critic_fit
from sb3_vpg.optimization.steps import Steps
from sb3_vpg.optimization.updates import rollback_unless_finite


class BlindPolicy(ActorCriticPolicy):
    """Multiplies its features by 0."""

    def extract_features(self, obs: Any, features_extractor: Any = None) -> Any:
        return super().extract_features(obs, features_extractor) * 0.0


def test_update_uses_the_policys_extract_features() -> None:
    """If ``extract_features`` returns zeros, the first layer has no gradient; without the override it would have one."""
    model = make_model(BlindPolicy)
    before = weights(model)
    model.learn(64)
    assert "mlp_extractor.policy_net.0.weight" not in differing(before, weights(model))
    assert "action_net.bias" in differing(before, weights(model))


class Residual(nn.Sequential):
    """Adds its input to the output of its layers."""

    def forward(self, x: th.Tensor) -> th.Tensor:
        return x + super().forward(x)


class Wrapped(nn.Module):
    """Calls another module, without being a ``Sequential``."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: th.Tensor) -> th.Tensor:
        return self.inner(x)


CONTAINERS: dict[str, Callable[[], nn.Module]] = {
    "residual": lambda: Residual(nn.Linear(3, 3), nn.Tanh()),
    "wrapped": lambda: Wrapped(nn.Sequential(nn.Linear(3, 3), nn.Tanh())),
}


# The layers that are replaced here are not those that load would build
@pytest.mark.filterwarnings("ignore:load.path. alone will not read this model:UserWarning")
@pytest.mark.parametrize("make", CONTAINERS.values(), ids=CONTAINERS.keys())
def test_users_networks_are_computed_by_torch(make: Callable[[], nn.Module]) -> None:
    """If the policy's networks are the user's classes, torch computes them, predicts the same and trains."""
    model = make_model(policy_kwargs={"net_arch": [3]})
    model.policy.mlp_extractor.policy_net, model.policy.mlp_extractor.value_net = make(), make()
    observations = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    expected, _ = model.policy.predict(observations, deterministic=True)
    np.testing.assert_array_equal(model.predict(observations, deterministic=True)[0], expected)
    same_names = isinstance(model.policy.mlp_extractor.policy_net, nn.Sequential)
    # Parameters with other names than policy_class makes cannot be loaded from its settings
    with nullcontext() if same_names else pytest.warns(UserWarning, match="other parameters than policy_class"):
        model.learn(32)
    buffer = model.rollout_buffer
    tensors = th.as_tensor(buffer.observations.reshape(-1, 3))
    assert len(tensors) == 16
    assert numpy_network(model.policy, "action_net") is numpy_network(model.policy, "value_net") is None


class ReadBuffer(BaseCallback):
    """Reads the minibatches of the rollout, which changes the layout of SB3's buffer."""

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        for _ in self.locals["rollout_buffer"].get(5):
            pass


@pytest.mark.parametrize("n_envs", [1, 3])
def test_callback_may_read_the_buffer_before_the_update(n_envs: int) -> None:
    """If a callback reads the buffer before the update, the weights are the same up to rounding."""
    results = []
    for callback in (None, ReadBuffer()):
        env = [lambda: RandomEnv()] * n_envs
        model = make_model(env=DummyVecEnv(env), n_critic_updates=1)
        results.append(weights(model.learn(16 * n_envs, callback)))
    th.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-5)


def test_large_discrete_space_is_computed_by_torch() -> None:
    """For 100,000 states, torch computes the policy: NumPy's one-hot table would have 100,000² entries, 40 GB."""
    model = make_model(env=RandomEnv(spaces.Discrete(100_000)), n_steps=4)
    model.learn(4)
    assert numpy_network(model.policy, "action_net") is None


def test_parameters_with_different_step_counts_are_fitted_by_torch() -> None:
    """If some of the critic's parameters were frozen before, torch fits it: Adam's bias correction differs between them."""
    model = make_model()
    model.policy.value_net.requires_grad_(False)
    model.learn(32)
    model.policy.value_net.requires_grad_(True)
    assert type(critic_fit(model.policy, model.critic_optimizer, 0.5)) is TorchCriticFit


def test_interrupted_fit_is_undone() -> None:
    """After Ctrl-C in NumPy's fit, weights and optimiser are those from before, so that a saved model is consistent."""
    model = make_model().learn(32)
    before, n_steps = weights(model), {float(state["step"]) for state in model.critic_optimizer.state.values()}

    def batches() -> Any:
        for _ in range(3):
            yield Steps(th.zeros(4, 3), th.zeros(4, 1)), th.ones(4)
        raise KeyboardInterrupt

    fit = critic_fit(model.policy, model.critic_optimizer, 0.5)
    assert type(fit) is NumpyCriticFit
    with pytest.raises(KeyboardInterrupt), rollback_unless_finite([model.critic_optimizer]):
        fit.run(batches())
    assert not differing(before, weights(model))
    assert {float(state["step"]) for state in model.critic_optimizer.state.values()} == n_steps


@pytest.mark.parametrize("shift", [0.0, 1e6, -1e8], ids=str)
@pytest.mark.parametrize("space", [spaces.Discrete(2), spaces.MultiDiscrete([2, 2])], ids=["one", "several"])
def test_constant_added_to_all_logits_has_no_effect(space: spaces.Space[Any], shift: float) -> None:
    """Equal logits give equal frequencies, however large they are."""
    model: VPG = make_model(env=RandomEnv(action_space=space))
    with th.no_grad():
        model.policy.action_net.weight.zero_()
        model.policy.action_net.bias.fill_(shift)
    actions, _ = model.predict(np.zeros((4000, 3), np.float32), deterministic=False)
    assert numpy_distribution(model.policy) is not None
    assert abs(actions.mean() - 0.5) < 0.04
