"""examples/random_weights_notebook.py: every command runs, and its statements about the notebook are true."""

import importlib
import math
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from torch.nn import functional as F

from sb3_vpg.wrappers import SurvivalReward

EXAMPLE = Path(__file__).parents[2] / "examples" / "random_weights_notebook.py"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(EXAMPLE.parent)
    return importlib.import_module("random_weights_notebook")


# A function as ent_coef brings a warning about saving; no model is saved here
@pytest.mark.filterwarnings(r"ignore:load\(path\) alone will not read")
@pytest.mark.parametrize(
    ("step", "text", "n_charts"),
    [
        ("random", "RandomSearch: argmax of two rows", 1),
        ("network", "double: P(right label)", 2),
        ("epsilon", "epsilon as ent_coef", 4),
        ("sparse", "sparse reward, no critic", 6),
    ],
)
def test_every_command_prints_a_table_and_draws_charts(
    example: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], step: str, text: str, n_charts: int
) -> None:
    example.main([step, "--quick", "--folder", str(tmp_path)])
    printed = capsys.readouterr().out
    assert text in printed
    assert "nan" not in printed
    charts = list(tmp_path.glob("*.png"))
    assert len(charts) == n_charts
    assert all(chart.stat().st_size > 10_000 for chart in charts)


def test_all_runs_every_step_in_order(example: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps, plans = list(example.STEPS), []
    monkeypatch.setattr(example, "STEPS", {name: lambda plan, name=name: plans.append((name, plan)) for name in steps})
    example.main(["all", "--quick", "--folder", str(tmp_path)])
    assert [name for name, _ in plans] == steps == ["random", "network", "epsilon", "sparse"]
    assert {plan.folder for _, plan in plans} == {tmp_path}


def test_the_program_writes_its_charts_to_logs(tmp_path: Path) -> None:
    command = [sys.executable, EXAMPLE, "random", "--quick"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "Charts: logs/random_weights_notebook" in done.stdout
    assert not done.stderr


@pytest.mark.filterwarnings("ignore:.*CartPole-v0 is out of date:DeprecationWarning")
def test_the_task_equals_cartpole_v0(example: ModuleType) -> None:
    ours, theirs = example.make_env(), gym.make("CartPole-v0")
    (first, _), (second, _) = ours.reset(seed=0), theirs.reset(seed=0)
    np.testing.assert_array_equal(first, second)
    truncated = False
    while not truncated:
        # Pushing to the side to which the pole leans and turns keeps the balance
        action = int(first @ [0.0, 0.2, 1.0, 1.0] > 0)
        (first, *outcome), (second, *expected) = ours.step(action), theirs.step(action)
        np.testing.assert_array_equal(first, second)
        assert outcome == expected
        _, terminated, truncated, _ = outcome
        assert not terminated


def test_the_network_is_linear_and_vpg_trains_it(example: ModuleType) -> None:
    model = example.make_vpg(0)
    network = example.actor(model)
    sizes = [tuple(layer.weight.shape) for layer in network if isinstance(layer, th.nn.Linear)]
    assert sizes == [(2, 4), (4, 2), (2, 4)]
    a, b = th.randn(2, 100, 4)
    zero = th.zeros(4)
    th.testing.assert_close(network(a + b) - network(b), network(a) - network(zero))
    th.testing.assert_close(F.softmax(network(a), dim=1), model.policy.get_distribution(a).distribution.probs)
    before = [parameter.clone() for parameter in network.parameters()]
    model.learn(128)
    assert all((new != old).any() for new, old in zip(network.parameters(), before, strict=True))


def test_the_double_softmax_has_a_lower_bound_and_a_gradient_of_the_same_sign(example: ModuleType) -> None:
    labels = th.tensor([0, 1])
    certain = th.tensor([[50.0, -50.0], [-50.0, 50.0]])
    assert F.cross_entropy(certain, labels) == 0.0
    assert example.double_softmax_loss(certain, labels).item() == pytest.approx(math.log(1 + 1 / math.e))
    logits = th.randn(100, 2, requires_grad=True)
    targets = th.randint(2, (100,))
    gradients = [th.autograd.grad(loss(logits, targets), logits)[0] for loss in (F.cross_entropy, example.double_softmax_loss)]
    assert (gradients[0].sign() == gradients[1].sign()).all()
    assert (gradients[0].abs() > gradients[1].abs()).all()


@pytest.mark.parametrize(("updates", "expected"), [(0, 1.0), (100, 0.8), (475, 0.05), (1000, 0.05)])
def test_epsilon_is_the_schedule_of_the_notebook(example: ModuleType, updates: int, expected: float) -> None:
    assert example.epsilon(updates) == pytest.approx(expected)


@pytest.mark.parametrize("baseline", ["none", "value"])
def test_without_a_success_the_policy_changes_only_if_there_is_a_critic(example: ModuleType, baseline: str) -> None:
    model = example.make_vpg(0, wrapper=SurvivalReward, baseline=baseline)
    before = [parameter.clone() for parameter in example.actor(model).parameters()]
    model.learn(5 * 128)
    assert not model.rollout_buffer.rewards.any()
    still = [bool((new == old).all()) for new, old in zip(example.actor(model).parameters(), before, strict=True)]
    assert still == [baseline == "none"] * len(before)
