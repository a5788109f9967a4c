"""NumPy's sampled actions have torch's distribution: chi-square and Kolmogorov-Smirnov tests with fixed seeds."""

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from helpers import RandomEnv, make_model
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sb3_loop import RolloutRecorder, model_for, play
from scipy import stats

from sb3_vpg.numpy_policy.distributions import NumpyDistribution, numpy_distribution

INF = float("inf")
N = 200_000
SIGNIFICANCE = 1e-3
"""A test fails if the p-value is below this; with fixed seeds, it fails always or never."""


def sampler_for(space, log_std=None):
    """:return: the sampler of a policy for this space, and the policy"""
    policy = make_model(env=RandomEnv(action_space=space)).policy
    if log_std is not None:
        with th.no_grad():
            policy.log_std.copy_(th.tensor(log_std))
    return numpy_distribution(policy), policy


def torch_distribution(policy, outputs):
    """:return: SB3's distribution for these outputs of the action network"""
    log_std = [policy.log_std] if hasattr(policy, "log_std") else []
    return policy.action_dist.proba_distribution(th.as_tensor(outputs, dtype=th.float32), *log_std)


def draw(sampler: NumpyDistribution, outputs: list[float], n: int = N) -> np.ndarray:
    """:return: n samples for one vector of outputs, drawn in blocks as a rollout draws them"""
    outputs_NK = np.tile(np.array(outputs, np.float32), (1000, 1))
    noise = sampler.noise(np.random.default_rng(7), (n // 1000, *outputs_NK.shape))
    return np.concatenate([sampler.sample(sampler.dist_params(outputs_NK), block) for block in noise])


def p_value(actions: np.ndarray, probabilities: np.ndarray) -> float:
    """
    Chi-square test of the frequencies.

    Impossible actions must not occur. Actions that are expected fewer than five times are only checked in sum.
    """
    counts = np.bincount(actions.astype(int), minlength=len(probabilities))
    assert not counts[probabilities == 0].any()
    expected = probabilities * len(actions)
    rare = expected < 5
    assert counts[rare].sum() <= expected[rare].sum() + 10
    if (~rare).sum() == 1:
        return 1.0
    observed, expected = counts[~rare], expected[~rare]
    return float(stats.chisquare(observed, expected * observed.sum() / expected.sum()).pvalue)


LOGITS = {
    "equal": [0.0, 0.0, 0.0],
    "usual": [0.3, -1.2, 2.0, 0.1],
    "two": [0.2, -0.2],
    "one": [3.0],
    "far_from_zero": [1000.0, 1001.0, 1002.5],
    "far_below_zero": [-5000.0, -5001.0],
    "rare_actions": [0.0, -8.0, -9.0],
    "certain": [0.0, 100.0, -1000.0],
    "one_masked": [0.5, -INF, 0.0],
    "all_but_one_masked": [-INF, -INF, -3.0],
    "many": [*np.linspace(-4, 4, 40)],
}


@pytest.mark.parametrize("logits", LOGITS.values(), ids=LOGITS.keys())
def test_discrete_actions_have_the_softmax_distribution(logits):
    """Discrete actions have torch's softmax distribution, also with huge logits; a logit of minus infinity is never drawn."""
    sampler, policy = sampler_for(spaces.Discrete(len(logits)))
    exact = torch_distribution(policy, [logits]).distribution.probs[0].double().numpy()
    assert p_value(draw(sampler, logits), exact / exact.sum()) > SIGNIFICANCE


@pytest.mark.parametrize("outputs", [[0.0, 1.0, -1.0, 0.5, 2.0], [50.0, 0.0, -INF, 0.0, 0.3]], ids=["usual", "extreme"])
def test_multi_discrete_actions_are_independent_softmaxes(outputs):
    """The frequency of each pair of entries is the product of torch's probabilities."""
    sampler, policy = sampler_for(spaces.MultiDiscrete([2, 3]))
    first, second = (part.probs[0].double().numpy() for part in torch_distribution(policy, [outputs]).distribution)
    actions = draw(sampler, outputs)
    joint = np.outer(first, second).flatten()
    assert p_value(actions[:, 0] * 3 + actions[:, 1], joint / joint.sum()) > SIGNIFICANCE


@pytest.mark.parametrize("outputs", [[0.0, 1.5, -2.0], [6.0, -7.0, 0.1], [200.0, -200.0, -0.3]], ids=str)
def test_multi_binary_actions_are_independent_bernoulli_variables(outputs):
    """The frequency of each of the eight combinations is the product of torch's probabilities."""
    sampler, policy = sampler_for(spaces.MultiBinary(3))
    p_one = torch_distribution(policy, [outputs]).distribution.probs[0].double().numpy()
    joint = [np.prod(np.where(bits, p_one, 1 - p_one)) for bits in np.ndindex(2, 2, 2)]
    actions = draw(sampler, outputs)
    assert set(np.unique(actions)) <= {0.0, 1.0}
    assert p_value(actions @ [4, 2, 1], np.array(joint) / np.sum(joint)) > SIGNIFICANCE


def test_box_actions_are_independent_gaussians():
    """Each entry is Gaussian with torch's mean and standard deviation, and the entries are uncorrelated."""
    sampler, policy = sampler_for(spaces.Box(-1.0, 1.0, (3,), np.float32), log_std=[0.0, -3.0, 1.5])
    outputs = [0.5, -4.0, 30.0]
    distribution = torch_distribution(policy, [outputs]).distribution
    actions = draw(sampler, outputs)
    for entry, mean, deviation in zip(actions.T, distribution.mean[0], distribution.stddev[0], strict=True):
        assert stats.kstest(entry, stats.norm(mean.item(), deviation.item()).cdf).pvalue > SIGNIFICANCE
    for first, second in [(0, 1), (0, 2), (1, 2)]:
        assert stats.pearsonr(actions[:, first], actions[:, second]).pvalue > SIGNIFICANCE


@pytest.mark.parametrize("n_envs", [1, 3])
def test_actions_of_a_rollout_have_the_policys_distribution(n_envs):
    """The actions of a long rollout have the policy's distribution, independently for each step and environment."""
    model = model_for("box", "discrete", "no_layers", n_envs, n_steps=6000 // n_envs)
    with th.no_grad():
        model.policy.action_net.weight.zero_()
        model.policy.action_net.bias.copy_(th.tensor([0.0, 1.0, -1.0]))
    play(model, RolloutRecorder(), rollouts=2)
    actions = model.rollout_buffer.actions[..., 0]
    exact = np.exp([0.0, 1.0, -1.0]) / np.exp([0.0, 1.0, -1.0]).sum()
    assert p_value(actions.flatten(), exact) > SIGNIFICANCE
    following = 3 * actions[:-1] + actions[1:]
    assert p_value(following.flatten(), np.outer(exact, exact).flatten()) > SIGNIFICANCE
    if n_envs > 1:
        assert p_value(3 * actions[:, 0] + actions[:, 1], np.outer(exact, exact).flatten()) > SIGNIFICANCE


SPACES = {
    "discrete": spaces.Discrete(6),
    "multi_discrete": spaces.MultiDiscrete([1, 2, 3]),
    "multi_binary": spaces.MultiBinary(6),
    "box": spaces.Box(-1.0, 1.0, (6,), np.float32),
}
SAMPLERS = {name: sampler_for(space) for name, space in SPACES.items()}


@pytest.mark.parametrize("kind", SPACES)
@settings(max_examples=60)
@given(data=st.data())
def test_log_probabilities_and_modes_are_those_of_torch(kind, data):
    """For random outputs and standard deviations, log-probabilities and modes agree with torch's."""
    sampler, policy = SAMPLERS[kind]
    numbers = st.floats(-80, 80, width=32)
    outputs = data.draw(arrays(np.float32, (4, 6), elements=numbers))
    if kind == "box":
        with th.no_grad():
            policy.log_std.copy_(th.as_tensor(data.draw(arrays(np.float32, 6, elements=st.floats(-4, 4, width=32)))))
    distribution = torch_distribution(policy, outputs)
    actions = sampler.sample(sampler.dist_params(outputs), sampler.noise(np.random.default_rng(0), outputs.shape))
    with th.no_grad():
        expected = distribution.log_prob(th.as_tensor(actions)).numpy()
        mode = distribution.mode()
    log_probs = sampler.log_prob(sampler.dist_params(outputs), actions.reshape(4, -1))
    assert actions.dtype == distribution.sample().detach().numpy().dtype
    assert log_probs.shape == expected.shape
    np.testing.assert_allclose(log_probs, expected, rtol=1e-4, atol=1e-4)
    # If two outputs are nearly equal, either may be the mode
    best = sampler.mode(outputs)
    assert best.shape == mode.shape
    with th.no_grad():
        np.testing.assert_allclose(distribution.log_prob(th.as_tensor(best)), distribution.log_prob(mode), atol=1e-4)


@pytest.mark.parametrize("logits", [[0.0, -INF, 1.0], [-INF, -200.0, 0.0]], ids=str)
def test_log_probabilities_with_masked_actions(logits):
    """An action whose logit is minus infinity has log-probability minus infinity; those of the others agree with torch's."""
    sampler, policy = sampler_for(spaces.Discrete(3))
    outputs = np.tile(np.array(logits, np.float32), (3, 1))
    expected = torch_distribution(policy, outputs).log_prob(th.arange(3)).numpy()
    log_probs = sampler.log_prob(sampler.dist_params(outputs), np.arange(3)[:, None])
    np.testing.assert_allclose(np.maximum(log_probs, -1e30), np.maximum(expected, -1e30), rtol=1e-5)
    assert (log_probs[np.isneginf(outputs[0])] < -1e30).all()


INVALID_OUTPUTS = {
    "discrete": [[np.nan, 0.0], [INF, 0.0], [-INF, -INF]],
    "multi_discrete": [[0.0, 0.0, np.nan, 0.0], [0.0, INF, 0.0, 0.0], [-INF, -INF, 0.0, 0.0]],
    "multi_binary": [[np.nan, 0.0], [INF, 0.0]],
    "box": [[np.nan, 0.0], [INF, 0.0], [0.0, -INF]],
}
SMALL_SPACES = {
    "discrete": spaces.Discrete(2),
    "multi_discrete": spaces.MultiDiscrete([2, 2]),
    "multi_binary": spaces.MultiBinary(2),
    "box": spaces.Box(-1.0, 1.0, (2,), np.float32),
}


@pytest.mark.parametrize(
    ("kind", "outputs"), [(kind, outputs) for kind, cases in INVALID_OUTPUTS.items() for outputs in cases], ids=str
)
def test_invalid_outputs_are_refused(kind, outputs):
    """Deterministic prediction, sampling and learning raise ValueError if the outputs define no distribution."""
    model = make_model(env=RandomEnv(action_space=SMALL_SPACES[kind]))
    model.predict(np.zeros(3, np.float32))
    with th.no_grad():
        model.policy.action_net.weight.zero_()
        model.policy.action_net.bias.copy_(th.tensor(outputs))
    for deterministic in (False, True):
        with pytest.raises(ValueError, match="NaN or infinite"):
            model.predict(np.zeros(3, np.float32), deterministic=deterministic)
    with pytest.raises(ValueError, match="NaN or infinite"):
        model.learn(16)


@pytest.mark.parametrize("log_std", [np.nan, INF, -INF, 1000.0, -1000.0], ids=str)
def test_invalid_standard_deviation_is_refused(log_std):
    """Prediction and learning raise ValueError if a standard deviation is NaN, zero or infinite and the means are valid."""
    model = make_model(env=RandomEnv(action_space=SMALL_SPACES["box"]))
    model.predict(np.zeros(3, np.float32))
    with th.no_grad():
        model.policy.log_std[1] = log_std
    for deterministic in (False, True):
        with pytest.raises(ValueError, match="NaN or infinite"):
            model.predict(np.zeros(3, np.float32), deterministic=deterministic)
    with pytest.raises(ValueError, match="NaN or infinite"):
        model.learn(16)
