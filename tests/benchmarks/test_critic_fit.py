"""benchmarks/critic_fit.py trains with the paper's settings, goes on after a kill, and reports what is finished."""

import json
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.vec_env import VecNormalize

from sb3_vpg.common.locks import claimed

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    names = ("critic_fit", "harness.critic_fit_report", "harness.learning_curve", "harness.task_settings")
    critic_fit, report, learning_curve, task_settings = map(import_module, names)

pytestmark = pytest.mark.filterwarnings("ignore:.*is out of date:DeprecationWarning", "ignore:builtin type:DeprecationWarning")
SETTINGS = critic_fit.settings()
HOPPER = next(each for each in SETTINGS if each.part == "paper")
SHORT = replace(HOPPER, steps=3 * 2048)
RUN = {"entry": HOPPER.entry, "score": 7.0, "training": 5.0, "curve": [1.0] * 50, "seconds": 3.0, "failure": None}


@pytest.mark.parametrize(("env_id", "rate"), [("Hopper-v4", 3e-4), ("Walker2d-v4", 7e-4), ("HalfCheetah-v4", 7e-4)])
def test_the_papers_settings_reach_the_model(env_id: str, rate: float) -> None:
    chosen = [each for each in SETTINGS if (each.part, each.env_id) == ("paper", env_id)]
    assert [each.entry["n_critic_updates"] for each in chosen] == [50, 100]
    model = task_settings.new_model(env_id, "VPG", chosen[0].entry, seed=1)
    assert (model.n_envs, model.n_steps, model.batch_size, model.n_critic_updates) == (16, 128, None, 50)
    assert (model.gamma, model.gae_lambda, model.ent_coef, model.max_grad_norm) == (0.99, 0.95, 0.0, 1.0)
    assert not model.normalize_advantage
    assert isinstance(model.env, VecNormalize)
    assert (model.env.norm_obs, model.env.norm_reward) == (True, False)
    for optimizer in (model.policy.optimizer, model.critic_optimizer):
        assert type(optimizer) is th.optim.Adam
        assert optimizer.defaults["eps"] == 1e-8
    for progress in (1.0, 0.1):
        assert model.lr_schedule(progress) == model.vf_lr_schedule(progress) == rate
    extractor = model.policy.mlp_extractor
    for net in (extractor.policy_net, extractor.value_net):
        assert [type(layer) for layer in net] == [th.nn.Linear, th.nn.Tanh] * 2
        assert [layer.out_features for layer in net if isinstance(layer, th.nn.Linear)] == [64, 64]


def test_only_the_passes_differ_from_our_entry() -> None:
    for setting in SETTINGS:
        own = critic_fit.own_entry(setting.env_id)
        if setting.part == "entry":
            assert setting.entry == own
        if setting.part == "passes":
            assert {**setting.entry, "n_critic_updates": own["n_critic_updates"]} == own
    assert [each.entry["n_critic_updates"] for each in SETTINGS if each.part == "passes"] == [1, 5, 20, 50]


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = critic_fit.train(SHORT, 0, tmp_path / "whole", 2)
    on_step = learning_curve.Curve._on_step

    def killed(curve: Any) -> bool:
        if curve.num_timesteps > 2 * 2048:
            raise KeyboardInterrupt
        return bool(on_step(curve))

    monkeypatch.setattr(learning_curve.Curve, "_on_step", killed)
    with pytest.raises(KeyboardInterrupt):
        critic_fit.run_missing([(SHORT, 0)], tmp_path, tmp_path / "checkpoints", 2)
    assert not SHORT.file(tmp_path, 0).is_file()
    taken: list[int] = []
    monkeypatch.setattr(learning_curve.Curve, "_on_step", lambda curve: taken.append(1) or on_step(curve))
    critic_fit.run_missing([(SHORT, 0)], tmp_path, tmp_path / "checkpoints", 2)
    resumed = json.loads(SHORT.file(tmp_path, 0).read_text())
    assert len(taken) == 128  # only the last of three rollouts
    assert {**resumed, "seconds": 0} == {**whole, "seconds": 0}
    assert resumed["seconds"] > 0
    assert not any((tmp_path / "checkpoints").iterdir())


def test_finished_runs_and_those_of_another_process_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(critic_fit, "train", lambda setting, seed, *_: {**RUN, "score": float(seed)})
    SHORT.file(tmp_path, 0).write_text(json.dumps(RUN))
    held = tmp_path / "checkpoints" / SHORT.file(tmp_path, 1).stem
    held.mkdir(parents=True)
    with claimed(held):
        critic_fit.run_missing([(SHORT, seed) for seed in range(3)], tmp_path, tmp_path / "checkpoints", 2)
    (record,) = critic_fit.finished([SHORT], 3, tmp_path)
    assert {seed: run["score"] for seed, run in record["runs"].items()} == {0: 7.0, 2: 2.0}


def test_a_run_with_other_hyperparameters_is_reported_but_not_mixed(tmp_path: Path) -> None:
    changed = replace(HOPPER, entry={**HOPPER.entry, "gamma": 0.9})
    HOPPER.file(tmp_path, 0).write_text(json.dumps(RUN))
    with pytest.raises(ValueError, match=r"_50_passes_0\.json was made with other hyperparameters; remove it"):
        critic_fit.run_missing([(changed, 0)], tmp_path, tmp_path / "checkpoints", 2)
    (record,) = critic_fit.finished([changed], 5, tmp_path)
    assert record["entry"]["gamma"] == 0.99
    changed.file(tmp_path, 1).write_text(json.dumps({**RUN, "entry": changed.entry}))
    with pytest.raises(ValueError, match="have different hyperparameters"):
        critic_fit.finished([changed], 5, tmp_path)


def test_the_report_says_what_is_finished_and_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed, score in enumerate([1000.0, 2000.0, 3000.0, 4000.0, 5000.0]):
        HOPPER.file(tmp_path, seed).write_text(json.dumps({**RUN, "score": score, "seconds": 1000.0 + seed}))
    one_pass = next(each for each in SETTINGS if each.label == "1 pass")
    one_pass.file(tmp_path, 3).write_text(json.dumps({**RUN, "entry": one_pass.entry}))
    monkeypatch.setattr("sys.argv", ["critic_fit.py", "--report", "--folder", str(tmp_path), "--out", str(tmp_path / "out")])
    critic_fit.main()
    page = (tmp_path / "out/critic_fit.md").read_text()
    row = "| the paper's settings, 50 passes | 5 of 5 | 3000 ± 1581 | 3000 [1333, 4667] | 5 ± 0 | 5 [5, 5] | 1,002 |"
    rows = [line for line in page.splitlines() if "50 passes | 5 of 5" in line]
    assert [" ".join(line.split()) for line in rows] == [row]
    assert "| published: VPG | 5 | 2602 ± 232 |" in page
    assert "- paper, Hopper-v4, 100 passes: seeds 0, 1, 2, 3, 4\n" in page
    assert "- passes, Hopper-v4, 1 pass: seeds 0, 1, 2, 4\n" in page
    assert "paper, Hopper-v4, 50 passes: seeds" not in page
    assert (tmp_path / "out/critic_fit.png").stat().st_size > 10_000


def test_the_standard_deviation_is_that_of_a_sample() -> None:
    scores = [10.0, 20.0, 60.0]
    runs = {seed: {**RUN, "score": score} for seed, score in enumerate(scores)}
    cells = report.row({"part": "entry", "label": "our entry", "seeds": 5, "runs": runs})
    assert cells[:3] == ["our entry", "3 of 5", f"30 ± {np.std(scores, ddof=1):.0f}"]


def step(optimizer: th.optim.Optimizer, loss: th.Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def fitted(shared: bool) -> list[th.Tensor]:
    """:return: weights of an actor and a critic after 20 updates as in the paper's script, with one Adam or two"""
    th.manual_seed(0)
    actor, critic = (th.nn.Sequential(th.nn.Linear(3, 8), th.nn.Tanh(), th.nn.Linear(8, 1)) for _ in range(2))
    weights = [*actor.parameters(), *critic.parameters()]
    of_actor = th.optim.Adam(weights if shared else weights[:4], lr=1e-2)
    of_critic = of_actor if shared else th.optim.Adam(weights[4:], lr=1e-2)
    for _ in range(20):
        observations, returns = th.randn(64, 3), th.randn(64)
        policy_loss = (actor(observations).flatten() * returns).mean()
        for _ in range(5):
            step(of_critic, th.nn.functional.mse_loss(critic(observations).flatten(), returns))
        step(of_actor, policy_loss)
    return weights


def test_one_adam_for_both_networks_trains_as_two() -> None:
    """So the paper's shared optimiser and VPG's two are the same."""
    for one, two in zip(fitted(shared=True), fitted(shared=False), strict=True):
        assert th.equal(one, two)
