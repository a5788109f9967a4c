"""
The mean of an update equals the policy gradient: every possible update goes through ``VPG``, weighted by its probability.
For options that are biased by design, the same sum shows the bias.
"""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from mdps import (
    BANDIT,
    CHAIN,
    FIXED,
    MASKED,
    MDP,
    TIMED,
    UNDISCOUNTED,
    Episode,
    episodes,
    exact_gradient,
    expectation,
    fill,
    logits,
    make_model,
    objective,
    parameters,
    play,
    policy_step,
    scores,
)

from sb3_vpg import VPG

MDPS = {"bandit": BANDIT, "chain": CHAIN, "undiscounted": UNDISCOUNTED, "time_limit": TIMED, "masked": MASKED}
LAYOUTS = {"two_envs": (2, 1), "one_env": (1, 2)}
CRITIC_FREE = ["none", "average", "leave_one_out", "optimal"]
UNBIASED = [(baseline, *options) for baseline in CRITIC_FREE for options in ((True, True), (False, False))]
# The package computes in float32, this test in float64
ROUNDING = 1e-5
# The sums are exact, so a difference above this is a bias
BIAS = 1e-2
WRONG_CRITIC = np.array([3.0, -2.0, 1.5])


def mean_step(model: VPG, mdp: MDP, values_S: np.ndarray = WRONG_CRITIC) -> np.ndarray:
    """:return: the mean change of the parameters by an update with two episodes"""

    def step(together: tuple[Episode, ...]) -> np.ndarray:
        fill(model, [together] if model.n_envs == 1 else [(episode,) for episode in together], values_S)
        average = model._average_return
        model._compute_advantages(model.rollout_buffer)
        model._average_return = average
        return policy_step(model)

    return expectation(mdp, parameters(model), 2, step)


def mean_of_formula(mdp: MDP, formula: Callable[[list[np.ndarray], list[np.ndarray]], list[np.ndarray]]) -> np.ndarray:
    """
    :param formula: takes the scores and the returns-to-go of each episode, and returns its advantages
    :return: the mean of ``sum_t A_t grad log pi_t`` per episode over updates of two episodes, computed in NumPy
    """
    theta = parameters(make_model(mdp))

    def step(together: tuple[Episode, ...]) -> np.ndarray:
        all_scores = [scores(mdp, theta, episode) for episode in together]
        advantages = formula(all_scores, [np.array(episode.returns(mdp.gamma)) for episode in together])
        return sum(a @ s for a, s in zip(advantages, all_scores, strict=True)) / len(together)

    return expectation(mdp, theta, 2, step)


def off_direction(vector: np.ndarray, gradient: np.ndarray) -> float:
    """:return: the norm of the component orthogonal to the gradient, relative to the norm of the vector"""
    along = (vector @ gradient) / (gradient @ gradient) * gradient
    return float(np.linalg.norm(vector - along) / np.linalg.norm(vector))


@pytest.mark.parametrize("mdp", [*MDPS.values(), FIXED], ids=[*MDPS, "fixed_length"])
def test_the_exact_gradient_equals_the_likelihood_ratio(mdp: MDP) -> None:
    """Central differences of the objective equal the sum of probability times score times return."""
    theta = parameters(make_model(mdp))
    total = np.zeros_like(theta)
    for episode in episodes(mdp):
        weight = episode.probability(logits(mdp, theta)) * episode.returns(mdp.gamma)[0]
        total += weight * scores(mdp, theta, episode).sum(axis=0)
    np.testing.assert_allclose(total, exact_gradient(mdp, theta), atol=1e-8)
    assert np.linalg.norm(total) > 0.1
    assert objective(mdp, theta + 1e-3 * total) > objective(mdp, theta)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
@pytest.mark.parametrize("mdp", MDPS.values(), ids=MDPS.keys())
@pytest.mark.parametrize(("baseline", "reward_to_go", "discount_steps"), UNBIASED)
def test_the_mean_update_is_the_gradient(
    mdp: MDP, layout: tuple[int, int], baseline: Any, reward_to_go: bool, discount_steps: bool
) -> None:
    options: dict[str, Any] = {"reward_to_go": reward_to_go, "discount_steps": discount_steps}
    model = make_model(mdp, layout[0], n_episodes=layout[1], baseline=baseline, **options)
    # Any average from earlier updates
    model._average_return = 2.5
    np.testing.assert_allclose(mean_step(model, mdp), exact_gradient(mdp, parameters(model)), atol=ROUNDING)


@pytest.mark.parametrize("baseline", CRITIC_FREE)
def test_without_discounting_the_plain_reward_to_go_is_unbiased(baseline: Any) -> None:
    """With gamma=1 the mean update equals the gradient without discount_steps."""
    model = make_model(UNDISCOUNTED, 2, n_episodes=1, baseline=baseline)
    model._average_return = 2.5
    np.testing.assert_allclose(mean_step(model, UNDISCOUNTED), exact_gradient(UNDISCOUNTED, parameters(model)), atol=ROUNDING)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
@pytest.mark.parametrize("values_S", [WRONG_CRITIC, np.zeros(3)], ids=["wrong", "zero"])
@pytest.mark.parametrize("mdp", [BANDIT, CHAIN, UNDISCOUNTED, MASKED], ids=["bandit", "chain", "undiscounted", "masked"])
def test_a_wrong_critic_adds_no_bias(mdp: MDP, values_S: np.ndarray, layout: tuple[int, int]) -> None:
    """With gae_lambda=1 and no time limit, the critic is only subtracted, so a wrong critic adds no bias."""
    model = make_model(mdp, layout[0], n_episodes=layout[1], baseline="value", gae_lambda=1.0, discount_steps=True)
    np.testing.assert_allclose(mean_step(model, mdp, values_S), exact_gradient(mdp, parameters(model)), atol=ROUNDING)


def test_gae_lambda_below_one_with_a_wrong_critic_is_biased() -> None:
    model = make_model(CHAIN, 2, n_episodes=1, baseline="value", gae_lambda=0.5, discount_steps=True)
    exact = exact_gradient(CHAIN, parameters(model))
    assert np.abs(mean_step(model, CHAIN) - exact).max() > BIAS


@pytest.mark.parametrize("baseline", [*CRITIC_FREE, "value"])
def test_without_discount_steps_the_direction_differs(baseline: Any) -> None:
    model = make_model(CHAIN, 2, n_episodes=1, baseline=baseline, gae_lambda=1.0, discount_steps=False)
    exact, mean = exact_gradient(CHAIN, parameters(model)), mean_step(model, CHAIN)
    assert np.abs(mean - exact).max() > BIAS
    assert off_direction(mean, exact) > BIAS
    # All baselines estimate the same: the mean of the sum of G_t grad log pi_t
    np.testing.assert_allclose(mean, mean_of_formula(CHAIN, lambda _, returns: returns), atol=ROUNDING)


def test_normalized_advantages_change_the_direction() -> None:
    model = make_model(CHAIN, 2, n_episodes=1, baseline="none", discount_steps=True, normalize_advantage=True)
    assert off_direction(mean_step(model, CHAIN), exact_gradient(CHAIN, parameters(model))) > BIAS


def test_a_mean_over_steps_changes_the_direction() -> None:
    """A mean over steps gives long episodes less weight, which changes the direction of the mean update."""
    model = make_model(UNDISCOUNTED, 2, n_episodes=1, baseline="none")
    theta, exact = parameters(model), exact_gradient(UNDISCOUNTED, parameters(model))

    def step(together: tuple[Episode, ...], per_step: bool) -> np.ndarray:
        fill(model, [(episode,) for episode in together], WRONG_CRITIC)
        model._compute_advantages(model.rollout_buffer)
        return policy_step(model) * (len(together) / sum(map(len, together)) if per_step else 1.0)

    over_steps = expectation(UNDISCOUNTED, theta, 2, lambda together: step(together, per_step=True))
    over_episodes = expectation(UNDISCOUNTED, theta, 2, lambda together: step(together, per_step=False))
    assert off_direction(over_steps, exact) > BIAS
    np.testing.assert_allclose(over_episodes, exact, atol=ROUNDING)


def test_a_baseline_of_all_other_steps_is_biased() -> None:
    """If only the step is left out and not its episode, the baseline depends on the action through later steps."""

    def all_other_steps(_: list[np.ndarray], returns: list[np.ndarray]) -> list[np.ndarray]:
        total, count = sum(r.sum() for r in returns), sum(map(len, returns))
        return [r - (total - r) / (count - 1) if count > 1 else r for r in returns]

    exact = exact_gradient(UNDISCOUNTED, parameters(make_model(UNDISCOUNTED)))
    assert np.abs(mean_of_formula(UNDISCOUNTED, all_other_steps) - exact).max() > BIAS


def test_an_optimal_constant_of_all_other_steps_is_biased() -> None:
    """A ratio of sums over all other steps of the update, including those of the same episode, is biased."""

    def all_other_steps(all_scores: list[np.ndarray], returns: list[np.ndarray]) -> list[np.ndarray]:
        squares = [(s**2).sum(axis=1) for s in all_scores]
        above = sum(q @ r for q, r in zip(squares, returns, strict=True))
        below = sum(q.sum() for q in squares)
        return [r - (above - q * r) / np.maximum(below - q, 1e-9) for q, r in zip(squares, returns, strict=True)]

    exact = exact_gradient(UNDISCOUNTED, parameters(make_model(UNDISCOUNTED)))
    assert np.abs(mean_of_formula(UNDISCOUNTED, all_other_steps) - exact).max() > BIAS


@pytest.mark.parametrize("n_steps", [2, 3, 4])
def test_a_rollout_that_cuts_episodes_is_biased_without_a_critic(n_steps: int) -> None:
    """Episodes have three steps. Rollouts of three rows are unbiased; those of two or four rows lose rewards after the cut."""
    model = make_model(FIXED, 1, n_steps=n_steps, baseline="none")
    theta = parameters(model)
    exact, mean = exact_gradient(FIXED, theta), np.zeros_like(theta)
    parts = [list(episodes(FIXED, min(3, n_steps - begun))) for begun in range(0, n_steps, 3)]
    for chosen in itertools.product(*parts):
        fill(model, [chosen], np.zeros(2))
        model._compute_advantages(model.rollout_buffer)
        probability = np.prod([episode.probability(logits(FIXED, theta)) for episode in chosen])
        mean += probability * policy_step(model)
    if n_steps == 3:
        np.testing.assert_allclose(n_steps * mean, exact, atol=ROUNDING)
    else:
        assert off_direction(mean, exact) > BIAS


def in_standard_errors(samples: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """:return: the distance of the mean of the rows from a vector, in standard errors of that mean, per component"""
    return np.abs(samples.mean(axis=0) - exact) / (samples.std(axis=0, ddof=1) / len(samples) ** 0.5)


SAMPLED: dict[str, tuple[MDP, dict[str, Any]]] = {
    "none": (CHAIN, {"baseline": "none", "n_episodes": 1, "discount_steps": True}),
    "total_return": (CHAIN, {"baseline": "none", "n_episodes": 2, "reward_to_go": False}),
    "average": (CHAIN, {"baseline": "average", "n_episodes": 2, "discount_steps": True}),
    "leave_one_out": (CHAIN, {"baseline": "leave_one_out", "n_episodes": 3, "discount_steps": True}),
    "optimal": (CHAIN, {"baseline": "optimal", "n_episodes": 2, "discount_steps": True}),
    "value": (CHAIN, {"baseline": "value", "n_episodes": 2, "gae_lambda": 1.0, "discount_steps": True}),
    "time_limit": (TIMED, {"baseline": "leave_one_out", "n_episodes": 2, "discount_steps": True}),
}


@pytest.mark.parametrize(("mdp", "options"), SAMPLED.values(), ids=SAMPLED.keys())
def test_collected_updates_average_to_the_gradient(mdp: MDP, options: dict[str, Any]) -> None:
    """The mean of 200 collected updates is within 5 standard errors of the exact gradient."""
    model = make_model(mdp, 6, **options)
    exact = exact_gradient(mdp, parameters(model))
    steps = np.array([(play(model), policy_step(model))[1] for _ in range(200)])
    assert in_standard_errors(steps, exact).max() < 5.0
    # The standard errors are small enough to distinguish the gradient from zero
    assert in_standard_errors(steps, np.zeros_like(exact)).max() > 5.0


def first_to_finish(model: VPG, count: int) -> list[Episode]:
    """:return: the episodes of the rollout that ended first, in any environment"""
    buffer, finished = model.rollout_buffer, []
    for env in range(model.n_envs):
        rows = np.flatnonzero(buffer.counted[:, env])
        starts = [row for row in rows if buffer.episode_starts[row, env]]
        for start, end in zip(starts, [*starts[1:], rows[-1] + 1], strict=True):
            part = (slice(start, end), env)
            states, actions = (array[part].astype(int).flatten() for array in (buffer.observations, buffer.actions))
            finished.append((end, env, Episode(tuple(states), tuple(actions), tuple(buffer.rewards[part]))))
    return [episode for _, _, episode in sorted(finished, key=lambda entry: entry[:2])[:count]]


def test_the_episodes_that_end_first_would_be_biased() -> None:
    """
    Two episodes of each of two environments give an unbiased mean. Only the two that end first, of the same rollouts, do not,
    since short episodes end first. Programs that collect until they have enough episodes make this error.
    """
    model = make_model(CHAIN, 2, n_episodes=2, baseline="none", reward_to_go=False)
    theta = parameters(model)
    exact, ours, first = exact_gradient(CHAIN, theta), [], []
    for _ in range(700):
        play(model)
        chosen = first_to_finish(model, 2)
        weighted = [episode.returns(CHAIN.gamma)[0] * scores(CHAIN, theta, episode).sum(axis=0) for episode in chosen]
        first.append(np.mean(weighted, axis=0))
        ours.append(policy_step(model))
    assert in_standard_errors(np.array(ours), exact).max() < 5.0
    assert in_standard_errors(np.array(first), exact).max() > 5.0
