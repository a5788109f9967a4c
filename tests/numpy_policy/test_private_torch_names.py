"""If torch renames a private attribute that NumPy's fast path reads, nothing fails, and torch computes the policy."""

import subprocess
import sys
from unittest import mock

import pytest
import torch as th
from helpers import RandomEnv, make_model, weights
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from sb3_vpg.numpy_policy import eligibility
from sb3_vpg.numpy_policy.networks import numpy_network
from sb3_vpg.optimization.critic import NumpyCriticFit, TorchCriticFit, critic_fit

HOOK_NAMES = ["_FORWARD", "_GLOBAL_FORWARD", "_BACKWARD", "_GLOBAL_BACKWARD", "_OF_TENSORS", "_STEP", "_GLOBAL_STEP"]
MODULE_NAMES = ["_CHILDREN", "_PARAMETERS"]
FORWARD_HOOK_NAMES = ["_FORWARD", "_GLOBAL_FORWARD"]
NAMES_OF_THE_FIT_ONLY = {"_BACKWARD", "_GLOBAL_BACKWARD", "_OF_TENSORS", "_STEP", "_GLOBAL_STEP"}


def rename(monkeypatch, name):
    """Look for an attribute that torch does not have, as if torch had renamed it."""
    old = getattr(eligibility, name)
    monkeypatch.setattr(eligibility, name, f"{old}_2" if isinstance(old, str) else (old[0], f"{old[1]}_2"))


def trained_model():
    return make_model().learn(96)


@pytest.mark.parametrize("name", [*HOOK_NAMES, *MODULE_NAMES])
def test_torch_computes_if_a_name_is_missing(name, monkeypatch):
    """If the name is missing, torch fits the critic; if the networks need the name, torch computes these too."""
    model = make_model()
    assert type(critic_fit(model.policy, model.critic_optimizer, 0.5)) is NumpyCriticFit
    rename(monkeypatch, name)
    assert type(critic_fit(model.policy, model.critic_optimizer, 0.5)) is TorchCriticFit
    assert (numpy_network(model.policy, "action_net") is not None) == (name in NAMES_OF_THE_FIT_ONLY)


def test_weights_are_the_same_if_names_are_missing(monkeypatch):
    """Training gives the same weights in torch as in NumPy, as both draw actions with the same noise."""
    fast = trained_model()
    for name in {*HOOK_NAMES, *MODULE_NAMES} - {*FORWARD_HOOK_NAMES}:
        rename(monkeypatch, name)
    slow = trained_model()
    th.testing.assert_close(weights(slow), weights(fast), rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("name", FORWARD_HOOK_NAMES)
def test_sb3s_loop_runs_if_forward_hooks_cannot_be_read(name, monkeypatch):
    """If VPG cannot tell whether the policy has forward hooks, SB3's loop runs, which calls the policy at each step."""
    rename(monkeypatch, name)
    loop = mock.Mock(side_effect=OnPolicyAlgorithm.collect_rollouts)
    monkeypatch.setattr(OnPolicyAlgorithm, "collect_rollouts", lambda *args, **kwargs: loop(*args, **kwargs))
    before = weights(make_model())
    assert not th.equal(weights(trained_model())["action_net.weight"], before["action_net.weight"])
    assert loop.call_count == 96 // 16


def test_predictions_are_the_same_if_names_are_missing(monkeypatch):
    """A model with the same weights predicts the same if torch computes the policy."""
    model, env = trained_model(), RandomEnv()
    observation, _ = env.reset(seed=0)
    expected, _ = model.predict(observation, deterministic=True)
    for name in MODULE_NAMES:
        rename(monkeypatch, name)
    other = make_model()
    other.set_parameters(model.get_parameters())
    assert other.predict(observation, deterministic=True)[0] == expected


PROGRAM = """
import sys
import torch
from torch.nn.modules import module

class Without:
    '''The module without its private names for global hooks.'''
    def __getattr__(self, name):
        if name.startswith("_global"):
            raise AttributeError(name)
        return getattr(module, name)

sys.modules["torch.nn.modules.module"] = torch.nn.modules.module = Without()
from sb3_vpg import VPG
from sb3_vpg.numpy_policy.networks import numpy_network
model = VPG("MlpPolicy", "CartPole-v1", n_steps=16, device="cpu").learn(32)
assert numpy_network(model.policy, "action_net") is None
print("trained")
"""


def test_the_package_is_imported_and_trains_without_torchs_global_hooks():
    """Without torch's private names for global hooks, ``import sb3_vpg`` and training work, with the policy in torch."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "trained", done.stderr
