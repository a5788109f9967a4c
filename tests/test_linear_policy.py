"""``LinearPolicy`` has the score function of its formula, and can be saved and loaded."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from mdps import ScriptedEnv
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_vpg import VPG
from sb3_vpg.policies import LinearPolicy

OBSERVATIONS = spaces.Box(-2.0, 2.0, (4,), np.float32)
ACTIONS: dict[str, spaces.Space[Any]] = {"discrete": spaces.Discrete(3), "box": spaces.Box(-1.0, 1.0, (2,), np.float32)}
NET_ARCHS: dict[str, Any] = {"default": None, "chosen": {"pi": [], "vf": [8]}, "no_hidden_layer": {"pi": [], "vf": []}}


def make_policy(action_space: spaces.Space[Any], net_arch: Any = None) -> LinearPolicy:
    th.manual_seed(3)
    policy = LinearPolicy(OBSERVATIONS, action_space, lambda _: 1e-3, net_arch=net_arch)
    with th.no_grad():
        for parameter in policy.parameters():
            parameter.copy_(0.5 * th.randn(parameter.shape))
    return policy


def observe(count: int) -> th.Tensor:
    return th.as_tensor(np.random.default_rng(4).uniform(-2.0, 2.0, (count, 4)).astype(np.float32))


def autograd_score(policy: LinearPolicy, observation: th.Tensor, action: th.Tensor) -> dict[str, np.ndarray]:
    policy.zero_grad()
    policy.evaluate_actions(observation[None], action[None])[1].sum().backward()
    named = {"weight": policy.action_net.weight, "bias": policy.action_net.bias}
    if hasattr(policy, "log_std"):
        named["log_std"] = policy.log_std
    return {name: parameter.grad.numpy().copy() for name, parameter in named.items()}


@pytest.mark.parametrize("action", range(3))
@pytest.mark.parametrize("observation", list(observe(5)), ids=list("abcde"))
def test_softmax_score_is_the_feature_minus_its_mean(observation: th.Tensor, action: int) -> None:
    """The score is ``phi(s, a) - E_pi[phi(s, .)]``, where phi(s, a) has the observation and a 1 in block a."""
    policy = make_policy(ACTIONS["discrete"])
    weight, bias = (p.detach().numpy().astype(float) for p in (policy.action_net.weight, policy.action_net.bias))
    features = np.array([*observation.numpy().astype(float), 1.0])
    phi = np.array([np.outer(np.eye(3)[a], features) for a in range(3)])
    preferences = np.exp([weight[a] @ features[:-1] + bias[a] for a in range(3)])
    expected = phi[action] - np.tensordot(preferences / preferences.sum(), phi, axes=1)

    actual = autograd_score(policy, observation, th.tensor(action))
    np.testing.assert_allclose(actual["weight"], expected[:, :-1], atol=1e-6)
    np.testing.assert_allclose(actual["bias"], expected[:, -1], atol=1e-6)


@pytest.mark.parametrize("observation", list(observe(5)), ids=list("abcde"))
def test_gaussian_score_is_the_standardised_deviation_times_the_feature(observation: th.Tensor) -> None:
    """The score is ``(a - mu) / sigma^2`` times the observation, and for log sigma ``((a - mu) / sigma)^2 - 1``."""
    policy = make_policy(ACTIONS["box"])
    parts = (policy.action_net.weight, policy.action_net.bias, policy.log_std)
    weight, bias, log_std = (part.detach().numpy().astype(float) for part in parts)
    mean, sigma = weight @ observation.numpy() + bias, np.exp(log_std)
    action = (mean + sigma * np.array([0.7, -1.3])).astype(np.float32)
    slope = (action - mean) / sigma**2

    actual = autograd_score(policy, observation, th.as_tensor(action))
    np.testing.assert_allclose(actual["weight"], np.outer(slope, observation.numpy()), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(actual["bias"], slope, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(actual["log_std"], ((action - mean) / sigma) ** 2 - 1.0, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("net_arch", NET_ARCHS.values(), ids=NET_ARCHS.keys())
@pytest.mark.parametrize("action_space", ACTIONS.values(), ids=ACTIONS.keys())
def test_the_actor_is_affine(action_space: spaces.Space[Any], net_arch: Any) -> None:
    """The actor maps a mixture of observations to the mixture of its outputs, and has no further parameters."""
    policy = make_policy(action_space, net_arch)

    def preferences(observations: th.Tensor) -> th.Tensor:
        distribution = policy.get_distribution(observations).distribution
        if isinstance(action_space, spaces.Discrete):
            # Logarithms of probability ratios
            return (distribution.logits[:, 1:] - distribution.logits[:, :1]).detach()
        return distribution.mean.detach()

    first, second = observe(12).split(6)
    mixed = 0.25 * preferences(first) + 0.75 * preferences(second)
    th.testing.assert_close(preferences(0.25 * first + 0.75 * second), mixed, rtol=1e-5, atol=1e-5)

    outputs = 3 if isinstance(action_space, spaces.Discrete) else 2
    env = DummyVecEnv([lambda: ScriptedEnv([([1.0], False)], action_space)])
    model = VPG("LinearPolicy", env, policy_kwargs={"net_arch": net_arch}, device="cpu")
    sizes = sum(p.numel() for group in model.policy.optimizer.param_groups for p in group["params"])
    assert isinstance(model.policy, LinearPolicy)
    assert sizes == outputs * (2 + 1) + (0 if isinstance(action_space, spaces.Discrete) else outputs)


@pytest.mark.parametrize(
    ("net_arch", "widths"), list(zip(NET_ARCHS.values(), [[64, 64, 1], [8, 1], [1]], strict=True)), ids=NET_ARCHS.keys()
)
def test_net_arch_chooses_the_critic(net_arch: Any, widths: list[int]) -> None:
    policy = make_policy(ACTIONS["discrete"], net_arch)
    layers = [*policy.mlp_extractor.value_net, policy.value_net]
    assert [layer.out_features for layer in layers if isinstance(layer, th.nn.Linear)] == widths


@pytest.mark.parametrize("net_arch", NET_ARCHS.values(), ids=NET_ARCHS.keys())
@pytest.mark.parametrize("action_space", ACTIONS.values(), ids=ACTIONS.keys())
def test_policy_save_and_load(action_space: spaces.Space[Any], net_arch: Any, tmp_path: Path) -> None:
    policy = make_policy(action_space, net_arch)
    policy.save(tmp_path / "policy.pt")
    loaded = LinearPolicy.load(tmp_path / "policy.pt", device="cpu")
    observations = observe(20)
    for method in ("_predict", "predict_values"):
        kwargs = {"deterministic": True} if method == "_predict" else {}
        with th.no_grad():
            assert th.equal(getattr(loaded, method)(observations, **kwargs), getattr(policy, method)(observations, **kwargs))
    actions = th.as_tensor(np.stack([action_space.sample() for _ in range(20)]))
    for before, after in zip(
        policy.evaluate_actions(observations, actions), loaded.evaluate_actions(observations, actions), strict=True
    ):
        assert th.equal(before, after)


@pytest.mark.parametrize("net_arch", NET_ARCHS.values(), ids=NET_ARCHS.keys())
@pytest.mark.parametrize("action_space", ACTIONS.values(), ids=ACTIONS.keys())
def test_model_save_and_load(action_space: spaces.Space[Any], net_arch: Any, tmp_path: Path) -> None:
    env = DummyVecEnv([lambda: ScriptedEnv([([1.0, 0.0], False), ([2.0], True)], action_space)])
    model = VPG("LinearPolicy", env, n_steps=8, policy_kwargs={"net_arch": net_arch}, seed=1, device="cpu").learn(16)
    model.save(tmp_path / "model.zip")
    loaded = VPG.load(tmp_path / "model.zip", env=env, device="cpu")
    observations = np.random.default_rng(0).uniform(0.0, 3.0, (20, 2)).astype(np.float32)
    before, after = (one.predict(observations, deterministic=True)[0] for one in (model, loaded))
    np.testing.assert_array_equal(before, after)
    loaded.learn(16)
