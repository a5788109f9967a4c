"""Returns, advantages and baselines equal those of Python loops over episodes, with random rewards, ends and masks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from hypothesis import given, settings
from hypothesis import strategies as st
from mdps import CHAIN, ScriptedEnv, episodes, fill, make_model, parameters, play, scores
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_vpg import VPG
from sb3_vpg.estimation.baselines import leave_one_out, optimal_constant
from sb3_vpg.estimation.estimator import Estimator
from sb3_vpg.estimation.returns import Episodes, gae, returns_to_go, total_returns
from sb3_vpg.estimation.score_function import score_products

# Sums of a few numbers of this size, in float32
CLOSE = {"rtol": 1e-4, "atol": 1e-3}
numbers = st.floats(-8.0, 8.0, width=32)
fractions = st.sampled_from([0.0, 0.3, 0.9, 1.0])
scripts = st.lists(st.tuples(st.lists(numbers, min_size=1, max_size=5), st.booleans()), min_size=3, max_size=3)
repeatable = settings(derandomize=True, deadline=None, max_examples=40)


def scripted_model(all_scripts: list[Any], **options: Any) -> VPG:
    env = DummyVecEnv([lambda script=script: ScriptedEnv(script) for script in all_scripts])
    arguments = {"n_critic_updates": 1, "seed": 0, "device": "cpu", **options}
    model = VPG("MlpPolicy", env, policy_kwargs={"net_arch": [8]}, **arguments)
    model.set_logger(Logger(folder=None, output_formats=[]))
    return model


@st.composite
def layouts(draw: Any) -> list[list[list[int]]]:
    """For each environment, the lengths of the episodes that count and of those that do not."""
    lengths = st.lists(st.integers(1, 4), min_size=1, max_size=4)
    return [[draw(lengths), draw(st.lists(st.integers(1, 4), max_size=2))] for _ in range(draw(st.integers(1, 3)))]


@repeatable
@given(layout=layouts(), seed=st.integers(0, 99))
def test_gather_and_scatter_episodes(layout: list[list[list[int]]], seed: int) -> None:
    n_rows = max(sum(counted) + sum(idle) for counted, idle in layout)
    shape = (n_rows, len(layout))
    starts, counts, cut = np.zeros(shape), np.zeros(shape, dtype=bool), []
    x = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    for env, (counted, idle) in enumerate(layout):
        ends = np.cumsum([*counted, *idle])
        starts[[0, *ends[ends < n_rows]], env] = 1.0
        counts[: sum(counted), env] = True
        cut += [x[end - length : end, env] for length, end in zip(counted, np.cumsum(counted), strict=True)]
    actual = Episodes.of(starts, counts)

    assert actual.lengths_E.tolist() == [len(part) for part in cut]
    rows = actual.gather(x)
    for row, alive, part in zip(rows, actual.alive_EM, cut, strict=True):
        np.testing.assert_array_equal(row[alive], part)
        np.testing.assert_array_equal(alive, np.arange(len(row)) < len(part))
        assert not row[~alive].any()
    np.testing.assert_array_equal(actual.scatter(rows, shape), np.where(counts, x, 0.0))
    assert starts.any(), "the array that was given is not changed"


@repeatable
@given(layout=layouts())
def test_a_part_of_an_episode_in_the_rollout_counts_as_an_episode(layout: list[list[list[int]]]) -> None:
    """In every environment an episode begins at the first row and one ends at the last row of the rollout."""
    n_rows = min(sum(counted) for counted, _ in layout)
    starts = np.zeros((n_rows, len(layout)))
    expected = []
    for env, (counted, _) in enumerate(layout):
        begins = [0, *(end for end in np.cumsum(counted) if end < n_rows)]
        starts[begins[1:], env] = 1.0
        expected += [end - begin for begin, end in zip(begins, [*begins[1:], n_rows], strict=True)]
    assert Episodes.of(starts, np.ones_like(starts, dtype=bool)).lengths_E.tolist() == expected


@repeatable
@given(rewards=st.lists(st.lists(numbers, min_size=1, max_size=5), min_size=1, max_size=5), gamma=fractions)
def test_returns_and_leave_one_out(rewards: list[list[float]], gamma: float) -> None:
    longest = max(map(len, rewards))
    rewards_EM = np.array([[*row, *[0.0] * (longest - len(row))] for row in rewards])
    alive_EM = np.array([[t < len(row) for t in range(longest)] for row in rewards])
    slow = [[sum(gamma ** (k - t) * row[k] for k in range(t, len(row))) for t in range(len(row))] for row in rewards]
    returns_EM, totals_EM = returns_to_go(rewards_EM, gamma), total_returns(rewards_EM, gamma)
    baseline_EM = leave_one_out(returns_EM, alive_EM)
    totals_baseline_EM = leave_one_out(totals_EM, np.ones_like(alive_EM))
    for e, row in enumerate(slow):
        for t, expected in enumerate(row):
            others = [other[t] for f, other in enumerate(slow) if f != e and t < len(other)]
            all_others = [other[0] for f, other in enumerate(slow) if f != e]
            assert returns_EM[e, t] == pytest.approx(expected)
            assert totals_EM[e, t] == pytest.approx(row[0])
            assert baseline_EM[e, t] == pytest.approx(np.mean(others) if others else 0.0)
            assert totals_baseline_EM[e, t] == pytest.approx(np.mean(all_others) if all_others else 0.0)


@repeatable
@given(pairs=st.lists(st.tuples(numbers, st.floats(0.0, 8.0, width=32)), min_size=1, max_size=6))
def test_optimal_constant_leaves_its_own_episode_out(pairs: list[tuple[float, float]]) -> None:
    actual = optimal_constant(*np.array(pairs, dtype=float).T)
    for e, constant in enumerate(actual):
        above, below = (sum(pair[i] for f, pair in enumerate(pairs) if f != e) for i in (0, 1))
        # If the others are all zero, the difference of two sums may leave a rounding error
        if below > 1e-6:
            assert constant == pytest.approx(above / below, abs=1e-6)
    if len(pairs) == 1:
        assert actual.tolist() == [0.0]


EM, TN = np.zeros((3, 4)), np.zeros((5, 2))
MISSHAPEN: dict[str, tuple[Callable[[], Any], str]] = {
    "returns_to_go": (lambda: returns_to_go(EM[0], 0.9), r"rewards_EM must have the shape \(E, M\), but has \(4,\)"),
    "total_returns": (lambda: total_returns(EM[..., None], 0.9), r"rewards_EM must have .*, but has \(3, 4, 1\)"),
    "leave_one_out": (lambda: leave_one_out(EM, EM[:, :1] > 0), r"alive_EM must have M=4, but has the shape \(3, 1\)"),
    "optimal_constant": (lambda: optimal_constant(EM[0], EM[:1, 0]), r"squares_E must have E=4, but has the shape \(1,\)"),
    "gae_values": (lambda: gae(TN, TN[..., None], TN, TN[0], 1, 1), r"values_TN must have .*, but has \(5, 2, 1\)"),
    "gae_last_values": (lambda: gae(TN, TN, TN, TN[:, 0], 1, 1), r"last_values_N must have N=2, but has the shape \(5,\)"),
    "episodes": (lambda: Episodes.of(TN, TN[:, :1] > 0), r"counted_TN must have N=2, but has the shape \(5, 1\)"),
    "monte_carlo": (
        lambda: Estimator("none", 1, True, False, 0.9, 2).monte_carlo(
            Episodes.of(TN, TN == 0.0), EM, 0.0, lambda *_: (EM, EM)
        ),
        r"rewards_EM must have E=2, but has the shape \(3, 4\)",
    ),
}


@pytest.mark.parametrize(("call", "message"), MISSHAPEN.values(), ids=MISSHAPEN.keys())
def test_an_array_of_another_shape_is_refused_with_its_shape(call: Callable[[], Any], message: str) -> None:
    """NumPy would broadcast most of them, and the numbers would be wrong."""
    with pytest.raises(ValueError, match=f"^{message}$"):
        call()


@repeatable
@given(chosen=st.lists(st.sampled_from(list(episodes(CHAIN))), min_size=2, max_size=4), discount=st.booleans())
def test_optimal_takes_the_scores_of_whole_episodes(chosen: list[Any], discount: bool) -> None:
    """``A · S`` and ``S · S`` by autograd equal those of the score ``phi - E[phi]``, and so do the advantages."""
    model = make_model(CHAIN, n_episodes=len(chosen), baseline="optimal", discount_steps=discount)
    fill(model, [chosen], np.zeros(3))
    buffer, theta = model.rollout_buffer, parameters(model)
    where = Episodes.of(buffer.episode_starts, buffer.counted)
    states, actions = (th.as_tensor(array[:, 0, 0]) for array in (buffer.observations, buffer.actions))
    log_prob = model.policy.get_distribution(states).log_prob(actions)
    weights_M = (CHAIN.gamma if discount else 1.0) ** np.arange(where.lengths_E.max())
    returns_EM = returns_to_go(where.gather(buffer.rewards), CHAIN.gamma)
    actual = score_products(log_prob, list(model.policy.action_net.parameters()), where, weights_M, returns_EM)

    factors = [weights_M[: len(episode)] for episode in chosen]
    returns = [np.array(episode.returns(CHAIN.gamma)) for episode in chosen]
    sums = [w @ scores(CHAIN, theta, episode) for w, episode in zip(factors, chosen, strict=True)]
    with_returns = [(w * g) @ scores(CHAIN, theta, e) for w, g, e in zip(factors, returns, chosen, strict=True)]
    above, below = np.sum(np.multiply(with_returns, sums), axis=1), np.sum(np.square(sums), axis=1)
    np.testing.assert_allclose(actual, [above, below], **CLOSE)

    model._compute_advantages(buffer)
    constants = (above.sum() - above) / (below.sum() - below)
    expected = [w * (g - constant) for w, g, constant in zip(factors, returns, constants, strict=True)]
    np.testing.assert_allclose(buffer.advantages[:, 0], np.concatenate(expected), **CLOSE)


def value(model: VPG, number: int, age: int) -> float:
    with th.no_grad():
        return float(model.policy.predict_values(th.tensor([[float(number), float(age)]])))


def slow_gae(rewards: list[float], values: list[float], gamma: float, gae_lambda: float) -> list[float]:
    """:param values: of each step and of the observation after the last one"""
    deltas = [r + gamma * after - before for r, before, after in zip(rewards, values, values[1:], strict=False)]
    return [sum((gamma * gae_lambda) ** (k - t) * deltas[k] for k in range(t, len(deltas))) for t in range(len(deltas))]


@repeatable
@given(all_scripts=st.lists(scripts, min_size=1, max_size=3), gamma=fractions, gae_lambda=fractions, discount=st.booleans())
def test_gae_of_whole_episodes(all_scripts: list[Any], gamma: float, gae_lambda: float, discount: bool) -> None:
    """A time-out adds the value of the last observation, an end adds 0, in two collected episodes per environment."""
    model = scripted_model(all_scripts, n_episodes=2, gamma=gamma, gae_lambda=gae_lambda, discount_steps=discount)
    play(model)
    buffer = model.rollout_buffer
    for env, script in enumerate(all_scripts):
        row = 0
        for number, (rewards, timed_out) in enumerate(script[:2]):
            values = [value(model, number, age) for age in range(len(rewards) + 1)]
            values[-1] = values[-1] if timed_out else 0.0
            for age, advantage in enumerate(slow_gae(rewards, values, gamma, gae_lambda)):
                factor = gamma**age if discount else 1.0
                assert buffer.counted[row, env]
                assert buffer.advantages[row, env] == pytest.approx(factor * advantage, rel=1e-4, abs=1e-3)
                assert buffer.returns[row, env] == pytest.approx(advantage + values[age], rel=1e-4, abs=1e-3)
                row += 1
        assert not buffer.counted[row:, env].any()
        assert not buffer.advantages[row:, env].any()


@repeatable
@given(all_scripts=st.lists(scripts, min_size=1, max_size=3), gamma=fractions, gae_lambda=fractions, n_steps=st.integers(1, 9))
@pytest.mark.parametrize("baseline", ["value", "none"])
def test_rollouts_of_fixed_length(all_scripts: Any, baseline: Any, gamma: float, gae_lambda: float, n_steps: int) -> None:
    """At a time-out and at the end of the rollout, the critic's value of the next observation is used; without a critic, 0."""
    model = scripted_model(all_scripts, n_steps=n_steps, baseline=baseline, gamma=gamma, gae_lambda=gae_lambda)
    play(model)
    value_at = (lambda *where: value(model, *where)) if baseline == "value" else (lambda *where: 0.0)
    for env, script in enumerate(all_scripts):
        row = number = 0
        while row < n_steps:
            rewards, timed_out = script[number % len(script)]
            seen = rewards[: n_steps - row]
            values = [value_at(number, age) for age in range(len(seen) + 1)]
            if len(seen) == len(rewards) and not timed_out:
                values[-1] = 0.0
            expected = slow_gae(seen, values, gamma, gae_lambda if baseline == "value" else 1.0)
            rows = slice(row, row + len(seen))
            np.testing.assert_allclose(model.rollout_buffer.advantages[rows, env], expected, **CLOSE)
            np.testing.assert_allclose(model.rollout_buffer.returns[rows, env], np.add(expected, values[:-1]), **CLOSE)
            row, number = row + len(seen), number + 1


@pytest.mark.parametrize("reward_to_go", [True, False])
def test_the_average_follows_the_returns_of_earlier_updates(reward_to_go: bool, tmp_path: Path) -> None:
    """The average is 0, then the first mean, and then moves a tenth towards each later mean. A saved model keeps it."""
    script = [([1.0, 2.0, 3.0], False), ([5.0], True), ([-4.0, 0.5], False)]
    gamma, average = 0.5, 0.0
    model = scripted_model([script, script[::-1]], n_episodes=1, baseline="average", reward_to_go=reward_to_go, gamma=gamma)
    for update in range(5):
        play(model)
        seen, buffer = [], model.rollout_buffer
        for env in range(2):
            rewards = buffer.rewards[buffer.counted[:, env], env].tolist()
            returns = [sum(gamma ** (k - t) * rewards[k] for k in range(t, len(rewards))) for t in range(len(rewards))]
            expected = np.array(returns if reward_to_go else [returns[0]] * len(returns)) - average
            np.testing.assert_allclose(buffer.advantages[buffer.counted[:, env], env], expected, rtol=1e-5)
            seen += returns if reward_to_go else returns[:1]
        average = np.mean(seen) if update == 0 else average + 0.1 * (np.mean(seen) - average)
        model.train()
        if update == 2:
            model.save(tmp_path / "model.zip")
            model = VPG.load(tmp_path / "model.zip", env=model.get_env())
            model.set_logger(Logger(folder=None, output_formats=[]))
