"""benchmarks/details.py changes what each variant names and nothing else, and its arithmetic is right."""

import json
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from torch import nn

from sb3_vpg import VPG

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    names = ("details", "harness.detail_variants", "harness.report", "harness.learning_curve")
    details, variants, report, learning_curve = map(import_module, names)

CARTPOLE = variants.TASKS["CartPole-v1"]
PENDULUM = variants.TASKS["Pendulum-v1"]
ALL = [(task, name) for task in (CARTPOLE, PENDULUM) for name in task.variants]


def settings(model: VPG) -> dict[str, Any]:
    """:return: the arguments of the model, in a form that can be compared"""
    ignored = ("policy_kwargs", "lr_schedule", "vf_lr_schedule", "rollout_buffer_class")
    plain = {name: value for name, value in vars(model).items() if isinstance(value, (int, float, str)) or value is None}
    schedules = {name: getattr(model, name)(0.5) for name in ("lr_schedule", "vf_lr_schedule")}
    return {**{name: value for name, value in plain.items() if name not in ignored and name[0] != "_"}, **schedules}


@pytest.mark.parametrize(("task", "name"), ALL, ids=[f"{task.env_id}-{name}" for task, name in ALL])
def test_a_variant_changes_only_its_options(task: Any, name: str) -> None:
    variant = task.variants[name]
    model, _ = task.build(variant, seed=3)
    reference, _ = task.build(task.variants["default"], seed=3)
    mine, theirs = settings(model), settings(reference)
    changed = {key for key in mine if mine[key] != theirs[key]}
    allowed = set(variant.options) | ({"lr_schedule", "vf_lr_schedule"} if "learning_rate" in str(variant.options) else set())
    assert changed <= allowed
    assert set(variant.options) - {"learning_rate", "vf_learning_rate"} <= changed
    expected = {**reference.policy_kwargs, **variant.policy_kwargs}
    assert model.policy_kwargs == expected


def test_the_reference_has_the_defaults_of_the_class() -> None:
    model, env = CARTPOLE.build(CARTPOLE.variants["default"], seed=3)
    assert settings(model) == settings(VPG("MlpPolicy", env, seed=3, device="cpu"))
    assert model.policy_kwargs == {}


def test_the_zoos_policy_kwargs_are_read_without_running_them() -> None:
    assert variants.read_dict("dict(log_std_init=-0.5, activation_fn=nn.ReLU, net_arch=dict(pi=[8], vf=[4]))") == {
        "log_std_init": -0.5,
        "activation_fn": nn.ReLU,
        "net_arch": {"pi": [8], "vf": [4]},
    }


class Buffers(BaseCallback):
    """Keep what a rollout holds when other callbacks have changed it."""

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        buffer = self.locals["rollout_buffer"]
        self.values, self.rewards, self.ends = buffer.values.copy(), buffer.rewards.copy(), buffer.episode_starts[1:].sum()
        self.observations = th.as_tensor(buffer.observations).flatten(0, 1)


def after_one_rollout(name: str) -> tuple[VPG, Buffers]:
    variant, kept = CARTPOLE.variants[name], Buffers()
    model, _ = CARTPOLE.build(variant, seed=3)
    model.learn(model.n_steps, [*([variant.callback()] if variant.callback else []), kept])
    return model, kept


@pytest.mark.parametrize(("name", "fitted_first"), [("critic_first", True), ("default", False)])
def test_the_critic_is_fitted_before_the_advantages_only_in_its_variant(name: str, fitted_first: bool) -> None:
    """The values behind the advantages are those of the critic at the end of the iteration."""
    model, kept = after_one_rollout(name)
    with th.no_grad():
        values = model.policy.predict_values(kept.observations).flatten().numpy()
    assert np.allclose(values, kept.values.ravel(), atol=1e-5) == fitted_first


def test_critic_first_ends_at_the_same_critic_as_the_default() -> None:
    """Both fit the same returns from the same weights in the first iteration; only the order differs."""
    critics = [after_one_rollout(name)[0].policy.mlp_extractor.value_net[0].weight for name in ("critic_first", "default")]
    th.testing.assert_close(*critics, rtol=0, atol=1e-5)


def test_a_time_out_adds_no_value_if_it_counts_as_an_end() -> None:
    """The first rollout of Pendulum has a time-out after 200 steps."""
    rewards = {}
    for wrapper in (None, variants.TimeOutsAsEnds):
        task = replace(PENDULUM, from_file=False)
        model, _ = task.build(variants.Variant("", wrapper=wrapper), seed=3)
        kept = Buffers()
        model.learn(256, kept)
        rewards[wrapper] = kept.rewards.ravel()
    (changed,) = np.flatnonzero(rewards[None] != rewards[variants.TimeOutsAsEnds])
    assert changed == 199


def test_the_shared_network_belongs_to_the_actor() -> None:
    model, _ = CARTPOLE.build(CARTPOLE.variants["shared"], seed=3)
    critic = {parameter for group in model.critic_optimizer.param_groups for parameter in group["params"]}
    assert critic == set(model.policy.value_net.parameters())
    plain, _ = CARTPOLE.build(CARTPOLE.variants["default"], seed=3)
    shapes = [[layer.weight.shape for layer in net if isinstance(layer, nn.Linear)] for net in actors(model, plain)]
    assert shapes[0] == shapes[1]


def actors(shared: VPG, plain: VPG) -> tuple[nn.Sequential, nn.Sequential]:
    return shared.policy.features_extractor.layers, plain.policy.mlp_extractor.policy_net


def test_the_large_last_layer_has_gain_one() -> None:
    model, _ = CARTPOLE.build(CARTPOLE.variants["large_last_layer"], seed=3)
    weight = model.policy.action_net.weight
    th.testing.assert_close(weight @ weight.T, th.eye(2))


def test_evaluation_normalizes_observations_as_training_did() -> None:
    for name, normalized in (("default", True), ("raw_observations", False)):
        _, env = PENDULUM.build(PENDULUM.variants[name], seed=3)
        env.reset()
        played = details.evaluation_env("Pendulum-v1", 1, env)
        observation = np.array([[0.5, 0.5, 3.0]], dtype=np.float32)
        expected = env.normalize_obs(observation)
        np.testing.assert_allclose(played.normalize_obs(observation), expected)
        assert (not np.allclose(expected, observation)) == normalized
        assert not played.norm_reward


def test_the_curve_is_binned_over_the_steps() -> None:
    ends, returns = np.array([250, 300, 900, 1000, 1010]), np.array([1.0, 3.0, 5.0, 7.0, 9.0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learning_curve, "N_BINS", 5)
        # Bins end at 200, 400, 600, 800 and 1,000; what ends after the last step is in the last bin
        assert learning_curve.bin_returns(ends, returns, 1000) == [2.0, 2.0, 2.0, 2.0, 7.0]


def test_the_episodes_that_end_first_equal_those_of_a_simulation() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        lengths_NE = rng.integers(1, 30, (4, 4))
        position, elapsed, counted = np.zeros(4, dtype=int), np.zeros(4, dtype=int), []
        while len(counted) < 4:
            elapsed += 1
            for env in range(4):
                if elapsed[env] == lengths_NE[env, position[env]]:
                    counted.append(elapsed[env])
                    position[env], elapsed[env] = position[env] + 1, 0
        ends = np.sort(lengths_NE.cumsum(axis=1).ravel())
        if ends[3] < ends[4]:  # without a tie at the last place
            assert details.first_to_end(lengths_NE) == np.mean(counted[:4])


def test_only_differences_whose_interval_leaves_out_zero_are_bold() -> None:
    reference = np.arange(10.0)
    assert details.difference(reference + 2.0, reference) == "**+2.0 [+2.0, +2.0]**"
    assert details.difference(reference - 2.0, reference) == "**-2.0 [-2.0, -2.0]**"
    assert details.difference(reference + np.tile([3.0, -3.0], 5), reference)[0] == "+"


@pytest.fixture
def finished(tmp_path: Path) -> tuple[Path, Path]:
    """A folder with runs of two seeds, of which only the first is complete, and a folder for results."""
    result = {"area": 100.0, "deterministic": 200.0, "sampled": 150.0, "curve": [100.0], "failure": None, "seconds": 2.0}
    for env_id, task in details.TASKS.items():
        for name in task.variants:
            for seed in (details.FIRST_SEED, details.FIRST_SEED + 1):
                if (name, seed) != ("one_pass", details.FIRST_SEED + 1):
                    file = tmp_path / f"{env_id}_{task.steps}_{name}_{seed}.json"
                    file.write_text(json.dumps({**result, "area": 90.0 if name == "one_pass" else 100.0}))
    return tmp_path, tmp_path / "out"


def test_the_report_has_the_seeds_that_all_variants_have_finished(finished: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, out = finished
    monkeypatch.setattr(details, "N_UPDATES", 2)
    monkeypatch.setattr("sys.argv", ["details.py", "--report", "--folder", str(folder), "--out", str(out)])
    details.main()
    page, raw = (out / "details.md").read_text(), json.loads((out / "details.json").read_text())
    assert page.count("seeds 1000 to 1000.") == 2
    assert "| one pass of the critic | `n_critic_updates=1` | 90.0 [90.0, 90.0] | **-10.0 [-10.0, -10.0]** |" in page
    assert "| CartPole-v1 | 200.0 [200.0, 200.0] | 150.0 [150.0, 150.0] | **-50.0 [-50.0, -50.0]** |" in page
    assert {len(results) for by_variant in raw["runs"].values() for results in by_variant.values()} == {1}


def test_a_short_run_has_a_result() -> None:
    task = replace(CARTPOLE, steps=600)
    result = details.train(task, task.variants["episodes"], seed=3)
    assert result["failure"] is None
    assert len(result["curve"]) == learning_curve.N_BINS
    assert 8 < result["area"] < 500


# What docs/details.md says about the area of each variant; the others differ by less than their intervals show
LOWER = {
    "CartPole-v1": {"one_pass", "average", "none", "shared", "torch_init", "lambda_0", "long_rollouts", "episodes"},
    "Pendulum-v1": {"raw_rewards", "tanh", "raw_advantages", "one_pass"},
}
HIGHER = {
    "CartPole-v1": {"large_last_layer", "rmsprop", "decay", "lambda_1", "short_rollouts"},
    "Pendulum-v1": {"raw_observations", "wide_noise"},
}
LOWER_AT_THE_END = {
    "CartPole-v1": {"one_pass", "average", "none", "shared", "lambda_0", "long_rollouts"},
    "Pendulum-v1": {"raw_rewards", "tanh", "one_pass"},
}
HIGHER_AT_THE_END: dict[str, set[str]] = {"CartPole-v1": set(), "Pendulum-v1": {"raw_observations"}}


@pytest.mark.parametrize(
    ("key", "lower", "higher"), [("area", LOWER, HIGHER), ("deterministic", LOWER_AT_THE_END, HIGHER_AT_THE_END)]
)
@pytest.mark.parametrize("task", [CARTPOLE, PENDULUM], ids=lambda task: task.env_id)
def test_the_page_says_what_the_committed_intervals_show(task: Any, key: str, lower: Any, higher: Any) -> None:
    runs = json.loads((report.RESULTS / "details.json").read_text())["runs"][task.env_id]
    values = {name: np.array([result[key] for result in results]) for name, results in runs.items()}
    found: dict[str, set[str]] = {"lower": set(), "higher": set()}
    for name, variant in task.variants.items():
        _, low, high = details.mean_interval(values[name] - values[variant.reference])
        if low > 0 or high < 0:
            found["lower" if high < 0 else "higher"].add(name)
    assert found == {"lower": lower[task.env_id], "higher": higher[task.env_id]}
