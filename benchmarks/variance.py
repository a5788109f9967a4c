"""
By how much does each baseline reduce the variance of the policy gradient?

    python benchmarks/variance.py

A fixed policy (``learning_rate=0``) plays CartPole-v1, 16 complete episodes per update. All baselines compute their gradients
from the same episodes. The number compared is the trace of the gradient's covariance, relative to that without a baseline.
There are two policies: one with its initial weights, and one after a short training.

The critic is fitted to the fixed policy beforehand, on other episodes, and the moving average has settled on other episodes. A
lambda below 1 reduces the variance but adds bias, so the table also has the ratio of noise to signal.

Each policy leaves a JSON file, so a killed benchmark repeats only what is missing. Results: variance.md and variance.png in
benchmarks/results.
"""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from harness.cache import cached
from harness.report import RESULTS, table
from matplotlib.figure import Figure
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.utils import explained_variance

from sb3_vpg import VPG
from sb3_vpg.collection.advantages import compute_advantages
from sb3_vpg.collection.buffers import counted_steps
from sb3_vpg.common.system_info import describe
from sb3_vpg.estimation.estimator import Baseline, Estimator, next_average
from sb3_vpg.estimation.score_function import flat_gradient
from sb3_vpg.optimization.optimizers import trainable_parameters
from sb3_vpg.optimization.steps import Steps

GAMMA = 0.99
N_ENVS, N_EPISODES = 8, 2  # 16 episodes an update
BASELINES: dict[str, tuple[Baseline, float]] = {
    "none": ("none", 1.0),
    "average": ("average", 1.0),
    "leave_one_out": ("leave_one_out", 1.0),
    "optimal": ("optimal", 1.0),
    "value, lambda 1": ("value", 1.0),
    "value, lambda 0.95": ("value", 0.95),
}
REFERENCE = "value, lambda 1"  # the baseline with the least variance of those that are unbiased with any critic
# Training steps, and updates to measure. An untrained policy has shorter episodes and relatively more noise
POLICIES = {"untrained": (0, 1000), "trained": (5_000, 500)}

INTRODUCTION = f"""# Variance of the policy gradient with each baseline

Command: `python benchmarks/variance.py`; training with seed 0, fitting of the critic with seed 1, measurement with seed 2.

CartPole-v1, the 64-64 network, gamma {GAMMA}, reward to go, {N_ENVS * N_EPISODES} complete episodes per update, the same for
every baseline; the weights stay fixed. The interval is a paired bootstrap over updates. Noise / signal is the trace divided by
the squared norm of the mean gradient. The shift says how much longer the mean gradient is than that of "{REFERENCE}", in its
direction, ± 95 %; it differs from zero if there is a bias. The moving average has settled over 50 updates with these weights,
and the critic was fitted over 50; while a policy learns, both lag behind it.

![Ratios](variance.png)
"""


class Gradients(BaseCallback):
    """
    Compute the gradient of the maximised objective at the end of each rollout, with every baseline. The buffer is restored.

    :param n_warm_up: the number of rollouts that only update the moving average
    """

    def __init__(self, n_warm_up: int = 0) -> None:
        super().__init__()
        self.n_warm_up = n_warm_up
        self.average, self.n_rollouts = 0.0, 0
        self.gradients: dict[str, list[np.ndarray]] = {name: [] for name in BASELINES}
        self.lengths: list[int] = []
        self.explained: list[float] = []

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        buffer: Any = self.locals["rollout_buffer"]
        saved = {name: getattr(buffer, name) for name in ("advantages", "returns", "values", "gae_lambda")}
        with th.no_grad():
            observations = th.as_tensor(buffer.observations).flatten(0, 1)
            buffer.values = self.model.policy.predict_values(observations).numpy().reshape(buffer.rewards.shape)
        self.n_rollouts += 1
        if self.n_rollouts > self.n_warm_up:
            self._measure(buffer)
        mean = self._advantages(buffer, "average")
        updated = next_average(None if self.n_rollouts == 1 else self.average, mean)
        assert updated is not None
        self.average = updated
        for name, value in saved.items():
            setattr(buffer, name, value)

    def _advantages(self, buffer: RolloutBuffer, name: str) -> float:
        """
        Fill ``buffer.advantages`` as VPG does. A time-out is always an end here, so all baselines estimate the same.

        :return: the mean return of the episodes
        """
        baseline, buffer.gae_lambda = BASELINES[name]
        estimator = Estimator(baseline, N_EPISODES, reward_to_go=True, discount_steps=False, gamma=GAMMA, n_envs=N_ENVS)
        mean = compute_advantages(estimator, buffer, self.model.policy, partial(self.model._steps, buffer), self.average)
        assert mean is not None
        return mean

    def _measure(self, buffer: RolloutBuffer) -> None:
        counted_TN = counted_steps(buffer)
        observations, actions = (th.as_tensor(x[counted_TN]) for x in (buffer.observations, buffer.actions))
        log_prob, _ = Steps(observations, actions).evaluate(self.model.policy, has_critic=False)
        parameters = trainable_parameters(self.model.policy.optimizer)
        for name in BASELINES:
            self._advantages(buffer, name)
            objective = (th.as_tensor(buffer.advantages[counted_TN]) * log_prob).sum() / (N_ENVS * N_EPISODES)
            gradient = flat_gradient(objective, parameters)
            self.gradients[name].append(gradient.double().numpy())
            if name == "value, lambda 1":
                self.explained.append(float(explained_variance(buffer.values[counted_TN], buffer.returns[counted_TN])))
        self.lengths.append(int(counted_TN.sum()))


class StopAfterRollouts(BaseCallback):
    """Stop training after ``n`` rollouts."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.left = n

    def _on_rollout_start(self) -> None:
        self.left -= 1

    def _on_step(self) -> bool:
        return self.left >= 0


def fixed_policy(n_steps: int, n_fits: int) -> dict[str, th.Tensor]:
    """:return: the weights of a policy after ``n_steps`` of VPG's defaults, with a critic fitted on ``n_fits`` rollouts"""
    model = VPG("MlpPolicy", "CartPole-v1", seed=0)
    if n_steps:
        model.learn(n_steps)
    env = make_vec_env("CartPole-v1", N_ENVS, seed=1)
    options: dict[str, Any] = {"gae_lambda": 1.0, "vf_learning_rate": 2e-3, "n_critic_updates": 32, "max_grad_norm": 10.0}
    fitted = VPG("MlpPolicy", env, learning_rate=0.0, n_episodes=N_EPISODES, gamma=GAMMA, seed=1, **options)
    fitted.policy.load_state_dict(model.policy.state_dict())
    fitted.learn(10**9, StopAfterRollouts(n_fits))
    return fitted.policy.state_dict()


def measure(weights: dict[str, th.Tensor], n_updates: int, n_warm_up: int = 50, seed: int = 2) -> Gradients:
    """Play updates with fixed weights."""
    env = make_vec_env("CartPole-v1", N_ENVS, seed=seed)
    model = VPG("MlpPolicy", env, learning_rate=0.0, baseline="none", n_episodes=N_EPISODES, gamma=GAMMA, seed=seed)
    model.policy.load_state_dict(weights)
    measured = Gradients(n_warm_up)
    model.learn(10**9, [measured, StopAfterRollouts(n_warm_up + n_updates)], log_interval=10**9)
    return measured


def traces(gradients_RD: np.ndarray, counts_BR: np.ndarray) -> np.ndarray:
    """
    :param gradients_RD: gradients of R updates, shape (R, D)
    :param counts_BR: how often each of B resamples contains each update, shape (B, R)
    :return: the trace of the covariance of each resample, shape (B,)
    """
    n_B = counts_BR.sum(axis=1)
    mean_BD = counts_BR @ gradients_RD / n_B[:, None]
    return (counts_BR @ (gradients_RD**2).sum(axis=1) - n_B * (mean_BD**2).sum(axis=1)) / (n_B - 1)


def compare(gradients: dict[str, list[np.ndarray]], n_resamples: int = 2000, confidence: float = 0.95) -> dict[str, Any]:
    """
    :return: for each baseline: the trace; its ratio to that of "none", with a bootstrap interval over updates (paired, as both
        have the same episodes); ``signal``, an unbiased estimate of the squared norm of the mean gradient; ``shift``, how much
        longer the mean gradient is than the reference's, in its direction and relative to its length, with its standard error
    """
    n = len(gradients["none"])
    counts_BR = np.vstack([np.ones(n), np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), n_resamples)])
    traces_B = {name: traces(np.array(rows), counts_BR) for name, rows in gradients.items()}
    mean_D = np.mean(gradients[REFERENCE], axis=0)
    result = {}
    for name, rows in gradients.items():
        shifts = (np.array(rows) - gradients[REFERENCE]) @ mean_D / (mean_D @ mean_D)
        ratio, *resampled = traces_B[name] / traces_B["none"]
        low, high = np.percentile(resampled, [50 * (1 - confidence), 50 * (1 + confidence)])
        trace = float(traces_B[name][0])
        signal = float((np.mean(rows, axis=0) ** 2).sum() - trace / n)
        result[name] = {"trace": trace, "ratio": float(ratio), "low": float(low), "high": float(high), "signal": signal}
        result[name] |= {"shift": float(shifts.mean()), "shift_error": float(shifts.std(ddof=1) / np.sqrt(n))}
    return result


def run(name: str) -> dict[str, Any]:
    n_steps, n_updates = POLICIES[name]
    measured = measure(fixed_policy(n_steps, n_fits=50), n_updates)
    return {
        "baselines": compare(measured.gradients),
        "length": float(np.mean(measured.lengths)) / (N_ENVS * N_EPISODES),
        "explained": float(np.mean(measured.explained)),
    }


def baseline_table(name: str, result: dict[str, Any]) -> list[str]:
    n_steps, n_updates = POLICIES[name]
    introduction = [
        f"## {name.capitalize()} policy ({n_steps:,} steps of training, {n_updates:,} updates measured)",
        "",
        f"Mean length of an episode {result['length']:.1f} steps; the critic explains {result['explained']:.2f} of the "
        "variance of the returns.",
        "",
    ]
    head = ["baseline", "trace of the covariance", "ratio to none", "95 % interval", "noise / signal", "shift of the mean"]
    rows = []
    for baseline, row in result["baselines"].items():
        interval = "" if baseline == "none" else f"{row['low']:.3f} to {row['high']:.3f}"
        shift = "" if baseline == REFERENCE else f"{row['shift']:+.1%} ± {1.96 * row['shift_error']:.1%}"
        noise = row["trace"] / row["signal"]
        rows.append([baseline, f"{row['trace']:.3g}", f"{row['ratio']:.3f}", interval, f"{noise:.2f}", shift])
    return [*introduction, *table(head, rows)]


def draw(results: dict[str, dict[str, Any]], path: Path) -> None:
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    axes = figure.subplots(1, len(results), sharey=True)
    for axis, (name, result) in zip(axes, results.items(), strict=True):
        rows = result["baselines"]
        ratios = np.array([row["ratio"] for row in rows.values()])
        errors = np.abs([[row["low"] for row in rows.values()], [row["high"] for row in rows.values()]] - ratios)
        axis.barh(list(rows), ratios, color="tab:blue", alpha=0.6)
        axis.errorbar(ratios, list(rows), xerr=errors, fmt="none", ecolor="black", capsize=3)
        for height, ratio, error in zip(range(len(rows)), ratios, errors[1], strict=True):
            axis.text(ratio + error + 0.02, height, f"{ratio:.2f}", va="center")
        axis.set(title=f"{name} policy", xlim=(0, 1.15), xlabel='variance, ratio to "none"')
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].invert_yaxis()  # both panels share it
    figure.suptitle("Variance of the policy gradient on CartPole-v1, 16 episodes an update")
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--folder", type=Path, default=Path("logs/variance"), help="folder of the finished policies (default: %(default)s)"
    )
    args = parser.parse_args()
    th.set_num_threads(1)
    args.folder.mkdir(parents=True, exist_ok=True)
    RESULTS.mkdir(exist_ok=True)
    results = {}
    for name in POLICIES:
        results[name] = cached(args.folder / f"{name}.json", partial(run, name))
    tables = [line for name, result in results.items() for line in baseline_table(name, result)]
    text = "\n".join([INTRODUCTION, *tables, describe(), ""])
    (RESULTS / "variance.md").write_text(text)
    draw(results, RESULTS / "variance.png")
    print(text)


if __name__ == "__main__":
    main()
