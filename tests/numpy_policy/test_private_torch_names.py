"""A torch that keeps its hooks, layers or parameters elsewhere: nothing breaks, and torch does the work."""

import subprocess
import sys

import pytest
import torch as th
from helpers import RandomEnv, make_model, weights
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from sb3_vpg.numpy_policy import eligibility
from sb3_vpg.numpy_policy.networks import numpy_network
from sb3_vpg.optimization.critic import NumpyCriticFit, TorchCriticFit, critic_fit

NAMES = ["_FORWARD", "_GLOBAL_FORWARD", "_BACKWARD", "_GLOBAL_BACKWARD", "_OF_TENSORS", "_STEP", "_GLOBAL_STEP"]
SINGLE = ["_CHILDREN", "_PARAMETERS"]
OF_FORWARD = ["_FORWARD", "_GLOBAL_FORWARD"]
FOR_THE_FIT_ALONE = {"_BACKWARD", "_GLOBAL_BACKWARD", "_OF_TENSORS", "_STEP", "_GLOBAL_STEP"}


def renamed(monkeypatch, name):
    """Torch has another name for what is looked for."""
    old = getattr(eligibility, name)
    monkeypatch.setattr(eligibility, name, f"{old}_2" if isinstance(old, str) else (old[0], f"{old[1]}_2"))


def trained():
    return make_model().learn(96)


@pytest.mark.parametrize("name", [*NAMES, *SINGLE])
def test_a_name_that_is_missing_leaves_the_work_to_torch(name, monkeypatch):
    """The fit runs in torch; so do the networks, where the name was theirs."""
    model = make_model()
    assert type(critic_fit(model.policy, model.critic_optimizer, 0.5)) is NumpyCriticFit
    renamed(monkeypatch, name)
    assert type(critic_fit(model.policy, model.critic_optimizer, 0.5)) is TorchCriticFit
    assert (numpy_network(model.policy, "action_net") is not None) == (name in FOR_THE_FIT_ALONE)


def test_the_weights_are_the_same_where_every_name_is_missing(monkeypatch):
    """NumPy's fit against torch's; actions are drawn from the same outputs with the same noise, whoever computes them."""
    fast = trained()
    for name in {*NAMES, *SINGLE} - {*OF_FORWARD}:
        renamed(monkeypatch, name)
    slow = trained()
    th.testing.assert_close(weights(slow), weights(fast), rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("name", OF_FORWARD)
def test_without_hooks_that_can_be_seen_the_loop_is_sb3s(name, monkeypatch):
    """The policy itself may be watched then, so that it is asked as a whole, and its actions come from torch's stream."""
    renamed(monkeypatch, name)
    called = []
    loop = OnPolicyAlgorithm.collect_rollouts
    monkeypatch.setattr(OnPolicyAlgorithm, "collect_rollouts", lambda *a, **k: called.append(1) or loop(*a, **k))
    before = weights(make_model())
    assert not th.equal(weights(trained())["action_net.weight"], before["action_net.weight"])
    assert len(called) == 96 // 16


def test_prediction_is_the_same_where_names_are_missing(monkeypatch):
    model, env = trained(), RandomEnv()
    observation, _ = env.reset(seed=0)
    expected, _ = model.predict(observation, deterministic=True)
    for name in SINGLE:
        renamed(monkeypatch, name)
    other = trained_anew(model)
    assert other.predict(observation, deterministic=True)[0] == expected


def trained_anew(model):
    other = make_model()
    other.set_parameters(model.get_parameters())
    return other


PROGRAM = """
import sys
import torch
from torch.nn.modules import module

class Without:
    '''The module as it is, without the private names that it has today.'''
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
    """They decide whether a faster way is taken, not whether there is one."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "trained", done.stderr
