"""Policies and callbacks that do more than SB3's defaults, where the faster way would do something else than SB3's."""

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


class Blind(ActorCriticPolicy):
    """Sees nothing: its features are multiplied by 0."""

    def extract_features(self, obs: Any, features_extractor: Any = None) -> Any:
        return super().extract_features(obs, features_extractor) * 0.0


def test_a_policy_learns_through_the_features_that_it_played_with() -> None:
    """The first layer of a policy that sees nothing has no gradient; it would have one without the override."""
    model = make_model(Blind)
    before = weights(model)
    model.learn(64)
    assert "mlp_extractor.policy_net.0.weight" not in differing(before, weights(model))
    assert "action_net.bias" in differing(before, weights(model))


class Residual(nn.Sequential):
    """Adds its input to what the layers make of it."""

    def forward(self, x: th.Tensor) -> th.Tensor:
        return x + super().forward(x)


class Opaque(nn.Module):
    """Cannot be taken apart."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: th.Tensor) -> th.Tensor:
        return self.inner(x)


CONTAINERS: dict[str, Callable[[], nn.Module]] = {
    "residual": lambda: Residual(nn.Linear(3, 3), nn.Tanh()),
    "opaque": lambda: Opaque(nn.Sequential(nn.Linear(3, 3), nn.Tanh())),
}


# The layers that are replaced here are not those that load would build
@pytest.mark.filterwarnings("ignore:load.path. alone will not read this model:UserWarning")
@pytest.mark.parametrize("make", CONTAINERS.values(), ids=CONTAINERS.keys())
def test_networks_of_the_users_own_are_computed_as_they_say(make: Callable[[], nn.Module]) -> None:
    model = make_model(policy_kwargs={"net_arch": [3]})
    model.policy.mlp_extractor.policy_net, model.policy.mlp_extractor.value_net = make(), make()
    observations = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    expected, _ = model.policy.predict(observations, deterministic=True)
    np.testing.assert_array_equal(model.predict(observations, deterministic=True)[0], expected)
    same_names = isinstance(model.policy.mlp_extractor.policy_net, nn.Sequential)
    # A file of other names cannot be loaded by its settings alone
    with nullcontext() if same_names else pytest.warns(UserWarning, match="other parameters than policy_class"):
        model.learn(32)
    buffer = model.rollout_buffer
    tensors = th.as_tensor(buffer.observations.reshape(-1, 3))
    assert len(tensors) == 16
    assert numpy_network(model.policy, "action_net") is numpy_network(model.policy, "value_net") is None


class Reads(BaseCallback):
    """Looks at the rollout in the way that SB3 offers, which lays the buffer out anew."""

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        for _ in self.locals["rollout_buffer"].get(5):
            pass


@pytest.mark.parametrize("n_envs", [1, 3])
def test_a_callback_may_read_the_buffer_before_the_update(n_envs: int) -> None:
    """And the update is the same but for the order of its sums."""
    both = []
    for callback in (None, Reads()):
        env = [lambda: RandomEnv()] * n_envs
        model = make_model(env=DummyVecEnv(env), n_critic_updates=1)
        both.append(weights(model.learn(16 * n_envs, callback)))
    th.testing.assert_close(both[0], both[1], rtol=1e-4, atol=1e-5)


def test_a_large_discrete_space_needs_no_table_of_its_square() -> None:
    """A hundred thousand states would be 40 GB of ones and zeros."""
    model = make_model(env=RandomEnv(spaces.Discrete(100_000)), n_steps=4)
    model.learn(4)
    assert numpy_network(model.policy, "action_net") is None


def test_parameters_that_have_taken_fewer_steps_are_fitted_by_torch() -> None:
    """Adam corrects its first steps, so those that were frozen before need a count of their own."""
    model = make_model()
    model.policy.value_net.requires_grad_(False)
    model.learn(32)
    model.policy.value_net.requires_grad_(True)
    assert type(critic_fit(model.policy, model.critic_optimizer, 0.5)) is TorchCriticFit


def test_an_interrupted_fit_leaves_the_moments_of_the_steps_that_were_taken() -> None:
    """So that whoever saves the model after Ctrl-C saves weights and moments that belong together."""
    model = make_model()

    def batches() -> Any:
        for _ in range(3):
            yield th.zeros(4, 3), th.ones(4)
        raise KeyboardInterrupt

    fit = critic_fit(model.policy, model.critic_optimizer, 0.5)
    assert type(fit) is NumpyCriticFit
    with pytest.raises(KeyboardInterrupt):
        fit.run(batches())
    assert {float(state["step"]) for state in model.critic_optimizer.state.values()} == {3.0}


@pytest.mark.parametrize("shift", [0.0, 1e6, -1e8], ids=str)
@pytest.mark.parametrize("space", [spaces.Discrete(2), spaces.MultiDiscrete([2, 2])], ids=["one", "several"])
def test_what_all_logits_share_does_not_choose(space: spaces.Space[Any], shift: float) -> None:
    """Equal logits are equal chances, however large they are."""
    model: VPG = make_model(env=RandomEnv(action_space=space))
    with th.no_grad():
        model.policy.action_net.weight.zero_()
        model.policy.action_net.bias.fill_(shift)
    actions, _ = model.predict(np.zeros((4000, 3), np.float32), deterministic=False)
    assert numpy_distribution(model.policy) is not None
    assert abs(actions.mean() - 0.5) < 0.04
