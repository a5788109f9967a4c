"""The diagnostics of an update: when they are computed, and that their values are right."""

import math
from typing import Any

import numpy as np
import pytest
import torch as th
from mdps import CHAIN, Recorder, make_model, play
from stable_baselines3.common.logger import Logger

import sb3_vpg.vpg
from sb3_vpg import VPG
from sb3_vpg.estimation.diagnostics import N_PARTS, approximate_kl, batch_parts, part_gradients, signal_to_noise

COSTLY = {"train/gradient_snr", "train/approx_kl", "train/explained_variance_after"}
OPTIONS: dict[str, dict[str, Any]] = {
    "episodes": {"n_episodes": 3, "baseline": "value"},
    "discounted": {"n_episodes": 3, "baseline": "leave_one_out", "discount_steps": True},
    "n_steps": {"n_steps": 5, "baseline": "value"},
    "n_steps_no_critic": {"n_steps": 5, "baseline": "none"},
}


@pytest.mark.filterwarnings(r"ignore:load\(path\) alone will not read")
@pytest.mark.parametrize(("log_interval", "expected"), [(1, 10), (3, 3), (4, 2), (12, 0), (None, 0)])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_costly_diagnostics_are_computed_only_before_a_log(
    options: dict[str, Any], log_interval: Any, expected: int, monkeypatch: Any
) -> None:
    """SB3 writes its log before an update, so only the update just before a log computes what the log shows."""
    calls: dict[str, list[float]] = {"signal_to_noise": [], "approximate_kl": []}
    for name, function in (("signal_to_noise", signal_to_noise), ("approximate_kl", approximate_kl)):

        def counted(*args: Any, name: str = name, function: Any = function) -> float:
            calls[name].append(function(*args))
            return calls[name][-1]

        monkeypatch.setattr(sb3_vpg.vpg, name, counted)
    model, recorder = make_model(CHAIN, 4, **{**options, "learning_rate": 0.01, "vf_learning_rate": 0.1}), Recorder()
    model.set_logger(Logger(folder=None, output_formats=[recorder]))
    per_update: list[dict[str, float]] = []
    original = model.train

    def train() -> None:
        original()
        per_update.append(dict(model.logger.name_to_value))

    monkeypatch.setattr(model, "train", train)
    model.learn(10**6, callback=lambda *_: model._n_updates < 10, log_interval=log_interval)

    costly = COSTLY if options["baseline"] == "value" else COSTLY - {"train/explained_variance_after"}
    assert {name: len(values) for name, values in calls.items()} == dict.fromkeys(calls, expected)
    assert [bool(costly & set(update)) for update in per_update].count(True) == expected
    shown = [dump for dump in recorder.dumps if "train/n_updates" in dump]
    for dump in shown:
        update = per_update[dump["train/n_updates"] - 1]
        assert costly <= set(dump)
        np.testing.assert_equal({key: dump[key] for key in costly}, {key: update[key] for key in costly})
    # The first of ten dumps precedes every update, and no dump shows the tenth update
    assert len(shown) == (9 if log_interval == 1 else expected)


def log_prob_of(model: VPG, state: np.ndarray, action: np.ndarray) -> th.Tensor:
    return model.policy.get_distribution(th.tensor([[int(state)]])).log_prob(th.tensor([int(action)]))[0]


def flat(model: VPG) -> np.ndarray:
    return np.concatenate([p.grad.flatten().numpy() for p in model.policy.action_net.parameters()]).astype(float)


def snr_of(units: list[np.ndarray]) -> float:
    """:return: the ratio by its formula, from the gradient of each step or episode"""
    parts = [np.mean(part, axis=0) for part in np.array_split(units, N_PARTS)]
    centre = np.mean(parts, axis=0)
    noise = sum(((part - centre) ** 2).sum() for part in parts) / (N_PARTS - 1) / N_PARTS
    return float((centre**2).sum() / noise - 1.0)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_diagnostics_equal_those_of_a_loop(options: dict[str, Any], seed: int) -> None:
    """Each number equals that of a loop over the counted steps, with one gradient per step."""
    arguments = {"learning_rate": 0.3, "vf_learning_rate": 0.1, "n_critic_updates": 3, "max_grad_norm": 0.01, "seed": seed}
    model = make_model(CHAIN, 4, **{**options, **arguments})
    play(model)
    buffer = model.rollout_buffer
    mask = getattr(buffer, "counted", np.ones(buffer.rewards.shape, dtype=bool))
    states, actions, advantages, returns = (
        np.concatenate([array[mask[:, env], env].reshape(-1) for env in range(4)])
        for array in (buffer.observations, buffer.actions, buffer.advantages, buffer.returns)
    )
    steps, log_probs = [], []
    for state, action, advantage in zip(states, actions, advantages, strict=True):
        model.policy.zero_grad()
        log_prob = log_prob_of(model, state, action)
        log_prob.backward()
        steps.append(advantage * flat(model))
        log_probs.append(log_prob.item())
    units, terms = steps, len(steps)
    if model.n_episodes is not None:
        # No part splits an episode
        begins = np.flatnonzero(np.concatenate([buffer.episode_starts[mask[:, env], env] for env in range(4)]))
        units, terms = [np.sum(episode, axis=0) for episode in np.split(steps, begins[1:])], 3 * 4
        assert len(units) == terms

    model._log_interval = 1
    model.train()
    logged = model.logger.name_to_value
    log_ratios = [log_prob_of(model, *step).item() - before for *step, before in zip(states, actions, log_probs, strict=True)]
    kl = [math.exp(log_ratio) - 1.0 - log_ratio for log_ratio in log_ratios]
    assert logged["train/grad_norm"] == pytest.approx(np.linalg.norm(np.sum(steps, axis=0) / terms), rel=1e-4)
    assert logged["train/gradient_snr"] == pytest.approx(snr_of(units), rel=1e-3, abs=1e-4)
    # A difference of numbers near 1 in float32
    assert logged["train/approx_kl"] == pytest.approx(np.mean(kl), rel=1e-2, abs=1e-6)
    assert logged["train/approx_kl"] > 0.0
    assert ("train/explained_variance_after" in logged) == (options["baseline"] == "value")
    if options["baseline"] == "value":
        values = model.policy.predict_values(th.as_tensor(states).reshape(-1, 1)).detach().numpy().flatten()
        expected = 1.0 - np.var(returns - values) / np.var(returns)
        assert logged["train/explained_variance_after"] == pytest.approx(expected, rel=1e-3, abs=1e-4)
        assert logged["train/explained_variance_after"] != logged["train/explained_variance"]


def test_approximate_kl_is_the_divergence() -> None:
    """If each action occurs as often as the old policy predicts, the estimate is exactly ``sum p log(p / q)``."""
    old, new = np.array([0.5, 0.25, 0.25]), np.array([0.2, 0.3, 0.5])
    actions = np.array([0, 0, 1, 2])
    actual = approximate_kl(th.as_tensor(np.log(old))[actions], th.as_tensor(np.log(new))[actions])
    assert actual == pytest.approx((old * np.log(old / new)).sum())
    assert approximate_kl(th.zeros(4), th.zeros(4)) == 0.0


def snr(losses: th.Tensor, lengths: list[int] | None, parameters: list[th.Tensor]) -> float:
    return signal_to_noise(part_gradients(losses, batch_parts(th.arange(len(losses)), lengths), parameters))


@pytest.mark.parametrize("signal", [0.0, 0.1, 0.3, 1.0])
def test_signal_to_noise_of_known_signals(signal: float) -> None:
    """
    The gradients of 64 steps by 20 parameters are normally distributed around ``signal``. The ratio plus 1 then has a
    noncentral F distribution with 20 and 20 * 7 degrees of freedom, whose mean is known. The mean of 500 draws is within 5
    standard errors of it.
    """
    n_steps, n_parameters, generator = 64, 20, th.Generator().manual_seed(5)
    parameters = [th.zeros(n_parameters - 5, requires_grad=True), th.zeros(5, requires_grad=True)]
    actual = []
    for _ in range(500):
        gradients = signal + th.randn(n_steps, n_parameters, generator=generator)
        actual.append(snr(gradients @ th.cat(parameters), None, parameters))
    below = n_parameters * (N_PARTS - 1)
    noncentrality = n_parameters * n_steps * signal**2
    mean = below * (n_parameters + noncentrality) / (n_parameters * (below - 2)) - 1.0
    assert abs(np.mean(actual) - mean) < 5.0 * np.std(actual, ddof=1) / len(actual) ** 0.5
    assert (mean < 0.02) == (signal == 0.0)


def test_signal_to_noise_without_variation_is_nan() -> None:
    parameter = th.zeros(3, requires_grad=True)
    assert math.isnan(snr(th.randn(1, 3) @ parameter, None, [parameter]))
    assert math.isnan(snr(th.randn(20, 3) @ parameter, [20], [parameter])), "one episode"
    assert math.isnan(snr(th.zeros(64, 3) @ parameter, None, [parameter]))
