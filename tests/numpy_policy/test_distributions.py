"""Sampled actions have the distribution that torch says they have: chi-square and Kolmogorov-Smirnov, at fixed seeds."""

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
ENOUGH = 1e-3
"""A p-value below this is a failure; the seeds are fixed, so that it is one always or never."""


def sampler_for(space, log_std=None):
    """:return: the sampler of a policy for this space, and the policy"""
    policy = make_model(env=RandomEnv(action_space=space)).policy
    if log_std is not None:
        with th.no_grad():
            policy.log_std.copy_(th.tensor(log_std))
    return numpy_distribution(policy), policy


def torch_distribution(policy, outputs):
    """SB3's distribution for these outputs of the action network."""
    more = [policy.log_std] if hasattr(policy, "log_std") else []
    return policy.action_dist.proba_distribution(th.as_tensor(outputs, dtype=th.float32), *more)


def draw(sampler: NumpyDistribution, outputs: list[float], n: int = N) -> np.ndarray:
    """Many samples for one vector of outputs, drawn in blocks as a rollout draws them."""
    outputs_NK = np.tile(np.array(outputs, np.float32), (1000, 1))
    noise = sampler.noise(np.random.default_rng(7), (n // 1000, *outputs_NK.shape))
    return np.concatenate([sampler.sample(outputs_NK, one) for one in noise])


def p_value(actions: np.ndarray, probabilities: np.ndarray) -> float:
    """Chi-square; what is expected fewer than five times is taken together, and must not occur if it is impossible."""
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
    "a_rare_one": [0.0, -8.0, -9.0],
    "hopeless": [0.0, 100.0, -1000.0],
    "ruled_out": [0.5, -INF, 0.0],
    "all_but_one_ruled_out": [-INF, -INF, -3.0],
    "many": [*np.linspace(-4, 4, 40)],
}


@pytest.mark.parametrize("logits", LOGITS.values(), ids=LOGITS.keys())
def test_discrete_actions_have_the_softmax_distribution(logits):
    """Also where logits are huge, and where an action is ruled out by minus infinity: it never occurs."""
    sampler, policy = sampler_for(spaces.Discrete(len(logits)))
    exact = torch_distribution(policy, [logits]).distribution.probs[0].double().numpy()
    assert p_value(draw(sampler, logits), exact / exact.sum()) > ENOUGH


@pytest.mark.parametrize("outputs", [[0.0, 1.0, -1.0, 0.5, 2.0], [50.0, 0.0, -INF, 0.0, 0.3]], ids=["usual", "extreme"])
def test_multi_discrete_actions_are_independent_softmaxes(outputs):
    """Each pair of entries occurs as often as the product of their probabilities says."""
    sampler, policy = sampler_for(spaces.MultiDiscrete([2, 3]))
    first, second = (part.probs[0].double().numpy() for part in torch_distribution(policy, [outputs]).distribution)
    actions = draw(sampler, outputs)
    joint = np.outer(first, second).flatten()
    assert p_value(actions[:, 0] * 3 + actions[:, 1], joint / joint.sum()) > ENOUGH


@pytest.mark.parametrize("outputs", [[0.0, 1.5, -2.0], [6.0, -7.0, 0.1], [200.0, -200.0, -0.3]], ids=str)
def test_multi_binary_actions_are_independent_coins(outputs):
    """All eight combinations occur as often as the product of their probabilities says."""
    sampler, policy = sampler_for(spaces.MultiBinary(3))
    ones = torch_distribution(policy, [outputs]).distribution.probs[0].double().numpy()
    joint = [np.prod(np.where(bits, ones, 1 - ones)) for bits in np.ndindex(2, 2, 2)]
    actions = draw(sampler, outputs)
    assert set(np.unique(actions)) <= {0.0, 1.0}
    assert p_value(actions @ [4, 2, 1], np.array(joint) / np.sum(joint)) > ENOUGH


def test_box_actions_are_independent_gaussians():
    """Mean and deviation of each entry are the policy's, the shape is a Gaussian's, and entries do not go together."""
    sampler, policy = sampler_for(spaces.Box(-1.0, 1.0, (3,), np.float32), log_std=[0.0, -3.0, 1.5])
    outputs = [0.5, -4.0, 30.0]
    distribution = torch_distribution(policy, [outputs]).distribution
    actions = draw(sampler, outputs)
    for entry, mean, deviation in zip(actions.T, distribution.mean[0], distribution.stddev[0], strict=True):
        assert stats.kstest(entry, stats.norm(mean.item(), deviation.item()).cdf).pvalue > ENOUGH
    for one, other in [(0, 1), (0, 2), (1, 2)]:
        assert stats.pearsonr(actions[:, one], actions[:, other]).pvalue > ENOUGH


@pytest.mark.parametrize("n_envs", [1, 3])
def test_what_a_rollout_plays_has_the_policys_distribution(n_envs):
    """From step to step and from environment to environment, over the blocks in which the noise is drawn."""
    model = model_for("box", "discrete", "no_layers", n_envs, n_steps=6000 // n_envs)
    with th.no_grad():
        model.policy.action_net.weight.zero_()
        model.policy.action_net.bias.copy_(th.tensor([0.0, 1.0, -1.0]))
    play(model, RolloutRecorder(), rollouts=2)
    actions = model.rollout_buffer.actions[..., 0]
    exact = np.exp([0.0, 1.0, -1.0]) / np.exp([0.0, 1.0, -1.0]).sum()
    assert p_value(actions.flatten(), exact) > ENOUGH
    following = 3 * actions[:-1] + actions[1:]
    assert p_value(following.flatten(), np.outer(exact, exact).flatten()) > ENOUGH
    if n_envs > 1:
        assert p_value(3 * actions[:, 0] + actions[:, 1], np.outer(exact, exact).flatten()) > ENOUGH


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
def test_log_probabilities_and_likeliest_actions_are_those_of_torch(kind, data):
    """For whatever outputs, near to zero and far from it, and any deviations."""
    sampler, policy = SAMPLERS[kind]
    numbers = st.floats(-80, 80, width=32)
    outputs = data.draw(arrays(np.float32, (4, 6), elements=numbers))
    if kind == "box":
        with th.no_grad():
            policy.log_std.copy_(th.as_tensor(data.draw(arrays(np.float32, 6, elements=st.floats(-4, 4, width=32)))))
    distribution = torch_distribution(policy, outputs)
    actions = sampler.sample(outputs, sampler.noise(np.random.default_rng(0), outputs.shape))
    with th.no_grad():
        expected = distribution.log_prob(th.as_tensor(actions)).numpy()
        mode = distribution.mode()
    found = sampler.log_prob(sampler.remembered(outputs), actions.reshape(4, -1))
    assert actions.dtype == distribution.sample().detach().numpy().dtype
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    # Where two outputs are nearly as good, either may be called the likeliest
    best = sampler.mode(outputs)
    assert best.shape == mode.shape
    with th.no_grad():
        np.testing.assert_allclose(distribution.log_prob(th.as_tensor(best)), distribution.log_prob(mode), atol=1e-4)


@pytest.mark.parametrize("logits", [[0.0, -INF, 1.0], [-INF, -200.0, 0.0]], ids=str)
def test_log_probability_is_finite_where_other_actions_are_ruled_out(logits):
    """A ruled out one has minus infinity, as with torch."""
    sampler, policy = sampler_for(spaces.Discrete(3))
    outputs = np.tile(np.array(logits, np.float32), (3, 1))
    expected = torch_distribution(policy, outputs).log_prob(th.arange(3)).numpy()
    found = sampler.log_prob(sampler.remembered(outputs), np.arange(3)[:, None])
    np.testing.assert_allclose(np.maximum(found, -1e30), np.maximum(expected, -1e30), rtol=1e-5)
    assert (found[np.isneginf(outputs[0])] < -1e30).all()


UNSOUND = {
    "discrete": [[np.nan, 0.0], [INF, 0.0], [-INF, -INF]],
    "multi_discrete": [[0.0, 0.0, np.nan, 0.0], [0.0, INF, 0.0, 0.0], [-INF, -INF, 0.0, 0.0]],
    "multi_binary": [[np.nan, 0.0], [INF, 0.0]],
    "box": [[np.nan, 0.0], [INF, 0.0], [0.0, -INF]],
}
SMALL = {
    "discrete": spaces.Discrete(2),
    "multi_discrete": spaces.MultiDiscrete([2, 2]),
    "multi_binary": spaces.MultiBinary(2),
    "box": spaces.Box(-1.0, 1.0, (2,), np.float32),
}


@pytest.mark.parametrize(("kind", "outputs"), [(kind, one) for kind, many in UNSOUND.items() for one in many], ids=str)
def test_what_defines_no_distribution_is_refused(kind, outputs):
    """Not only by the sampler: prediction, likeliest or sampled, and learning raise ValueError."""
    model = make_model(env=RandomEnv(action_space=SMALL[kind]))
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
def test_a_deviation_that_is_none_is_refused(log_std):
    """NaN, zero or infinite, with sound means: neither sampled, nor learned from, nor passed over in silence."""
    model = make_model(env=RandomEnv(action_space=SMALL["box"]))
    model.predict(np.zeros(3, np.float32))
    with th.no_grad():
        model.policy.log_std[1] = log_std
    for deterministic in (False, True):
        with pytest.raises(ValueError, match="NaN or infinite"):
            model.predict(np.zeros(3, np.float32), deterministic=deterministic)
    with pytest.raises(ValueError, match="NaN or infinite"):
        model.learn(16)
