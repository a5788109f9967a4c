"""benchmarks/variance.py measures the gradients that VPG follows, and baselines reduce their variance."""

import json
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.env_util import make_vec_env

from sb3_vpg import VPG

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(BENCHMARKS)
    bench = SimpleNamespace(**runpy.run_path(str(BENCHMARKS / "variance.py")))


def actor_weights(model: VPG) -> np.ndarray:
    parameters = [parameter for group in model.policy.optimizer.param_groups for parameter in group["params"]]
    return th.cat([parameter.detach().flatten() for parameter in parameters]).double().numpy()


@pytest.mark.parametrize("name", bench.BASELINES)
def test_the_measured_gradient_is_the_step_that_vpg_takes(name):
    """With plain gradient descent and learning rate 1, the change of the weights is the gradient."""
    baseline, gae_lambda = bench.BASELINES[name]
    options = {"baseline": baseline, "gae_lambda": gae_lambda, "n_episodes": bench.N_EPISODES, "gamma": bench.GAMMA}
    plain = {"max_grad_norm": float("inf"), "policy_kwargs": {"optimizer_class": th.optim.SGD}, "vf_learning_rate": 0.0}
    env = make_vec_env("CartPole-v1", bench.N_ENVS, seed=0)
    model = VPG("MlpPolicy", env, learning_rate=1.0, seed=0, **options, **plain)
    before = actor_weights(model)
    measured = bench.Gradients()
    model.learn(1, measured)
    (gradient,) = measured.gradients[name]
    np.testing.assert_allclose(actor_weights(model) - before, gradient, rtol=0, atol=1e-5 * np.abs(gradient).max())


def test_the_trace_is_that_of_the_sample_covariance():
    rng = np.random.default_rng(0)
    gradients_RD = rng.normal(1.0, 2.0, (6, 4))
    counts_BR = np.array([[1, 1, 1, 1, 1, 1], [0, 3, 1, 0, 2, 0]])
    expected = [np.trace(np.cov(np.repeat(gradients_RD, counts, axis=0).T)) for counts in counts_BR]
    np.testing.assert_allclose(bench.traces(gradients_RD, counts_BR), expected)


@pytest.fixture(scope="module")
def weights():
    """The weights of a policy after a short training."""
    return bench.fixed_policy(n_steps=3000, n_fits=20)


@pytest.fixture(scope="module")
def measured(weights):
    return bench.measure(weights, n_updates=150, n_warm_up=20)


@pytest.fixture(scope="module")
def compared(measured):
    """The comparison with 99.9 % intervals."""
    return bench.compare(measured.gradients, confidence=0.999)


@pytest.mark.expensive
@pytest.mark.parametrize("name", [name for name in bench.BASELINES if name != "none"])
def test_every_baseline_has_less_variance_than_none(compared, name):
    """The upper end of the interval of the ratio is below 1, with the same episodes for both."""
    assert compared[name]["high"] < 1.0, compared[name]


@pytest.mark.expensive
@pytest.mark.parametrize("name", [name for name in bench.BASELINES if name != bench.REFERENCE])
def test_only_a_lambda_below_one_shifts_the_mean_gradient(compared, name):
    """Otherwise the shift is within 3.5 standard errors of 0, each of which is below a tenth of the gradient's length."""
    row = compared[name]
    assert row["shift_error"] < 0.1
    assert (abs(row["shift"]) > 3.5 * row["shift_error"]) == (name == "value, lambda 0.95"), row


@pytest.mark.expensive
def test_the_policy_does_not_change_while_it_is_measured(measured, weights):
    """So the gradients differ only by the noise of their episodes."""
    after = measured.model.policy.state_dict()
    assert all(after[name].equal(value) for name, value in weights.items())
    assert {len(rows) for rows in measured.gradients.values()} == {150}


def test_a_finished_policy_is_not_measured_again(tmp_path, monkeypatch):
    """Table and figure are made from the files of earlier runs."""
    row = {"trace": 2.0, "ratio": 0.5, "low": 0.4, "high": 0.6, "signal": 4.0, "shift": -0.02, "shift_error": 0.01}
    result = {"baselines": dict.fromkeys(bench.BASELINES, row), "length": 22.5, "explained": 0.4}
    for name in bench.POLICIES:
        (tmp_path / f"{name}.json").write_text(json.dumps(result))
    monkeypatch.setitem(bench.main.__globals__, "RESULTS", tmp_path / "results")
    monkeypatch.setitem(bench.main.__globals__, "describe", lambda: "a machine")
    monkeypatch.setattr("sys.argv", ["variance.py", "--folder", str(tmp_path)])
    bench.main()
    text = (tmp_path / "results" / "variance.md").read_text()
    assert "| leave_one_out | 2 | 0.500 | 0.400 to 0.600 | 0.50 | -2.0% ± 2.0% |" in text
    assert (tmp_path / "results" / "variance.png").stat().st_size > 10_000
