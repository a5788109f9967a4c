"""
The gradient of a policy with memory: the mean update of ``RecurrentVPG`` equals the exact gradient over all histories, and
each update equals a loop through time in torch.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch as th
from mdps import Episode, fill, play
from recurrent_mdps import (
    ALIASED,
    exact_history_gradient,
    make_recurrent,
    probability,
    recurrent_step,
    seen_episodes,
    tensors,
    theta_of,
)
from sb3_contrib.common.recurrent.type_aliases import RNNStates

from sb3_vpg import RecurrentVPG
from sb3_vpg.collection.buffers import EpisodeBuffer

ROUNDING = 2e-5
RECURRENT = slice(48, 84)
"""Where the weights from the last hidden state are among the parameters."""
WRONG_CRITIC = np.array([3.0, -2.0, 1.5, 0.5])
CASES: dict[str, tuple[tuple[int, int], dict[str, Any]]] = {
    "none": ((2, 1), {"baseline": "none", "discount_steps": True}),
    "total_return": ((1, 2), {"baseline": "none", "reward_to_go": False}),
    "average": ((1, 2), {"baseline": "average", "discount_steps": True}),
    "leave_one_out": ((2, 1), {"baseline": "leave_one_out", "discount_steps": True}),
    "optimal": ((2, 1), {"baseline": "optimal", "discount_steps": True}),
    "value": ((2, 1), {"baseline": "value", "gae_lambda": 1.0, "discount_steps": True}),
}


def put(model: RecurrentVPG, plays: list[tuple[Episode, ...]]) -> None:
    """Put episodes into the model's buffer, as collection leaves them, and compute the advantages."""
    fill(model, plays, WRONG_CRITIC)
    model._keep_first_states()
    average = model._average_return
    model._compute_advantages(model.rollout_buffer)
    model._average_return = average


@pytest.mark.parametrize(("layout", "options"), CASES.values(), ids=CASES.keys())
def test_the_mean_update_is_the_gradient_over_histories(layout: tuple[int, int], options: dict[str, Any]) -> None:
    """Over all pairs of episodes of a task in which two states look the same."""
    model = make_recurrent(layout[0], n_episodes=layout[1], **options)
    model._average_return = 2.5
    theta, mean, mass = theta_of(model), 0.0, 0.0
    possible = [(one, probability(theta, one)) for one in seen_episodes()]
    for first, chance in possible:
        for second, other in possible:
            put(model, [(first, second)] if layout[0] == 1 else [(first,), (second,)])
            mean += chance * other * recurrent_step(model)
            mass += chance * other
    assert mass == pytest.approx(1.0, abs=1e-12)
    exact = exact_history_gradient(theta)
    np.testing.assert_allclose(mean, exact, atol=ROUNDING)
    assert np.linalg.norm(exact) > 0.1
    # A gradient that is cut between steps has zeros here
    assert np.linalg.norm(exact[RECURRENT]) > 0.03


def test_what_was_seen_before_the_aliased_states_matters() -> None:
    """The policy's probabilities in the two states that look the same differ by what came before."""
    theta = theta_of(make_recurrent())
    ends = [one for one in seen_episodes() if len(one) == 3 and one.actions == (0, 0, 0)]
    before = [probability(theta, replace(one, chance=1.0)) for one in ends]
    prefix = [probability(theta, replace(one, states=one.states[:2], actions=one.actions[:2], chance=1.0)) for one in ends]
    conditional = np.array(before) / np.array(prefix)
    assert len(conditional) == 2
    assert abs(conditional[0] - conditional[1]) > 0.05


def looped(model: RecurrentVPG, states: RNNStates, rows: Any, env: int) -> th.Tensor:
    """:return: the log-probabilities of an environment's steps, by a loop over them, each a call of the LSTM"""
    buffer, policy, (hidden, cell) = model.rollout_buffer, model.policy, [one[:, env : env + 1] for one in states.pi]
    chosen = []
    for row in rows:
        if buffer.episode_starts[row, env]:
            hidden, cell = th.zeros_like(hidden), th.zeros_like(cell)
        observation = th.zeros(1, 1, 4)
        observation[0, 0, int(buffer.observations[row, env].item())] = 1.0
        output, (hidden, cell) = policy.lstm_actor(observation, (hidden, cell))
        logits = policy.action_net(output[0, 0])
        chosen.append(th.log_softmax(logits, dim=0)[int(buffer.actions[row, env].item())])
    return th.stack(chosen)


@pytest.mark.parametrize("options", [{"n_steps": 9}, {"n_episodes": 3}], ids=["n_steps", "n_episodes"])
@pytest.mark.parametrize("n_layers", [1, 2])
def test_an_update_equals_a_loop_through_time(options: dict[str, int], n_layers: int) -> None:
    """Over three rollouts, whose first sequences begin with the states that the rollout before left."""
    model = make_recurrent(3, baseline="none", policy_kwargs={"n_lstm_layers": n_layers}, **options)
    for _ in range(3):
        states = model._last_lstm_states
        play(model)
        buffer = model.rollout_buffer
        counted = buffer.counted if isinstance(buffer, EpisodeBuffer) else np.ones_like(buffer.rewards, dtype=bool)
        begun = RNNStates(*(tuple(th.as_tensor(one) for one in pair) for pair in states))
        loss = th.zeros(())
        for env in range(3):
            rows = np.flatnonzero(counted[:, env])
            loss = loss + (looped(model, begun, rows, env) * th.as_tensor(buffer.advantages[rows, env])).sum()
        n_terms = 9 if "n_episodes" in options else counted.sum()
        gradient = th.autograd.grad(loss / n_terms, tensors(model))
        expected = np.concatenate([part.numpy().flatten() for part in gradient])
        np.testing.assert_allclose(recurrent_step(model), expected, atol=1e-6)
        assert np.linalg.norm(expected) > 0.01


def test_padding_changes_nothing() -> None:
    """The update of four episodes of one to three steps is the mean of the updates of each alone."""
    chosen = sorted(seen_episodes(), key=len)
    chosen = [chosen[0], chosen[1], chosen[-1], chosen[-2]]
    assert {len(one) for one in chosen} == {1, 2, 3}
    options = {"baseline": "none", "discount_steps": True}
    together, alone = make_recurrent(2, n_episodes=2, **options), make_recurrent(1, n_episodes=1, **options)
    put(together, [tuple(chosen[:2]), tuple(chosen[2:])])
    steps = []
    for one in chosen:
        put(alone, [(one,)])
        steps.append(recurrent_step(alone))
    np.testing.assert_allclose(recurrent_step(together), np.mean(steps, axis=0), atol=1e-6)


def test_the_objective_of_the_oracle_is_that_of_the_environment() -> None:
    """The mean return of collected episodes is within 5 standard errors of the enumerated one."""
    model = make_recurrent(8, n_episodes=100, baseline="none", reward_to_go=False)
    play(model)
    theta = theta_of(model)
    exact = sum(probability(theta, one) * one.returns(ALIASED.gamma)[0] for one in seen_episodes())
    buffer = model.rollout_buffer
    starts = buffer.counted & buffer.episode_starts.astype(bool)
    returns = buffer.returns[starts]
    assert len(returns) == 800
    assert abs(returns.mean() - exact) < 5 * returns.std() / len(returns) ** 0.5
