"""Agents that ship: when commands use them, that they reach the scores in the table, and how a run becomes one of them."""

import json
import re
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import yaml
from scipy.stats import t as student
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import load_results

from sb3_vpg import VPG
from sb3_vpg.normalization import load_vec_normalize
from sb3_vpg.zoo.agents.benchmark import _page, in_thousands
from sb3_vpg.zoo.agents.evaluation import evaluate_run
from sb3_vpg.zoo.agents.trained_agents import Agent, agents_in
from sb3_vpg.zoo.cli import main
from sb3_vpg.zoo.package_data import shipped_folder
from sb3_vpg.zoo.safe_yaml import read_yaml
from sb3_vpg.zoo.thresholds import reward_threshold

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(Path(__file__).parents[3] / "scripts")
    train_agents, ship_agent = map(import_module, ("train_agents", "ship_agent"))

ROOT = Path(__file__).parents[3]
SHIPPED = agents_in(shipped_folder())
WIDE = ("HalfCheetah-v5", "Hopper-v5", "Ant-v5")
UNSOLVED = ("Hopper-v5", "Ant-v5", "Swimmer-v5")
SHORT = ["train", "-n", "1000", "--verbose", "0", "--num-threads", "1", "--eval-freq", "500", "--eval-episodes", "2"]
NORMALIZED = ["-params", "normalize:dict(norm_obs=True,norm_reward=True)"]
PLAY = ["enjoy", "--no-render", "-n", "20"]


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log folder with a short run on normalised observations."""
    folder = tmp_path_factory.mktemp("trained")
    assert main([*SHORT, *NORMALIZED, "-f", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def table_rows() -> dict[tuple[str, str], dict[str, Any]]:
    """The rows of the table, by algorithm and environment."""
    rows = json.loads((shipped_folder() / "benchmark.json").read_text())["agents"]
    return {(row["algo"], row["env_id"]): row for row in rows}


def test_before_any_training_the_agent_that_ships_plays(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["enjoy", "--env", "CartPole-v1", "--no-render", "-n", "500"]) == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[0].startswith("No run of vpg on CartPole-v1 in logs: taking the agent that ships, ")
    assert "Mean reward: 500.00" in printed
    assert not Path("logs").exists()


def test_a_run_in_logs_comes_before_the_agent_that_ships(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("logs").symlink_to(trained)
    assert main(PLAY) == 0
    printed = capsys.readouterr().out
    assert "Loading logs/vpg/CartPole-v1_1/" in printed
    assert "ships" not in printed


@pytest.mark.parametrize("folder", [["-f", "elsewhere"], ["--folder=logs"], ["--fold", "logs"]], ids=str)
def test_a_named_folder_is_used_although_it_has_no_run(folder: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*PLAY, *folder]) == 1
    printed = capsys.readouterr()
    assert "taking the agent that ships" not in printed.out
    assert "folder was not found" in printed.err


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ([*PLAY, "--env", "Blackjack-v1"], ["sb3-vpg train --env Blackjack-v1", "ship for: ", "CartPole-v1"]),
        ([*PLAY, "--algo", "a2c"], ["sb3-vpg train --algo a2c --env CartPole-v1", "ship for: none"]),
        ([*PLAY, "--exp-id", "2"], ["no --exp-id 2", "sb3-vpg train --env CartPole-v1"]),
        (["evaluate", "--load-best"], ["no --load-best", "sb3-vpg train --env CartPole-v1"]),
        ([*PLAY, "--load-checkpoint", "512"], ["no --load-checkpoint 512"]),
        (["record_training"], ["--save-freq", "have none"]),
    ],
    ids=["env", "algo", "number", "best", "checkpoint", "record_training"],
)
def test_without_any_agent_one_line_says_what_to_do(
    command: list[str], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert [word for word in words if word not in lines[0]] == []


def test_output_for_an_agent_that_ships_goes_to_logs(capsys: pytest.CaptureFixture[str]) -> None:
    """Commands do not write into the agent's own folder, which may be read-only or belong to a checkout."""
    before = sorted(shipped_folder().rglob("*"))
    assert main(["evaluate", "-n", "2"]) == 0
    assert sorted(shipped_folder().rglob("*")) == before
    curve = Path("logs/shipped/vpg/CartPole-v1_1/learning_curve.png")
    assert curve.read_bytes().startswith(b"\x89PNG")
    assert str(curve) in capsys.readouterr().out
    assert main(["evaluate", "-n", "2"]) == 0
    assert "taking the agent that ships" in capsys.readouterr().out, "the output is not taken for a run"


@pytest.mark.parametrize("agent", SHIPPED, ids=lambda agent: f"{agent.algo}-{agent.env_id}")
class TestEveryAgentThatShips:
    def test_is_small_and_says_nothing_of_the_machine_that_trained_it(self, agent: Agent) -> None:
        files = [file for file in agent.run.rglob("*") if file.is_file()]
        # The first layers of Taxi's agent are tables of its 500 states; wide ones have two networks of 256-256 units
        assert sum(file.stat().st_size for file in files) < (850_000 if agent.env_id in WIDE else 400_000)
        assert {file.suffix for file in files} <= {".zip", ".yml", ".txt", ".npz", ".csv"}, "no pickles"
        for file in files:
            assert re.search(rb"/(home|root|tmp|work|usr|Users|var)/|wandb|python/", file.read_bytes()) is None, file

    @pytest.mark.filterwarnings("ignore:.*is out of date:DeprecationWarning", "ignore:builtin type:DeprecationWarning")
    def test_plays_to_the_score_in_the_table(self, agent: Agent, table_rows: dict[tuple[str, str], dict[str, Any]]) -> None:
        """
        Measured with SB3 alone, an agent scores as in the table.

        The tolerance is Student's 99.9 % interval of the difference between a mean of 6 episodes and that of the table.
        """
        row, n = table_rows[agent.algo, agent.env_id], 6
        entry = yaml.safe_load((agent.settings / "config.yml").read_text())
        assert {"env_wrapper", "vec_env_wrapper", "frame_stack"}.isdisjoint(entry), "this test would have to know them"
        try:
            env = make_vec_env(agent.env_id, n_envs=n, seed=77, env_kwargs=entry.get("env_kwargs"))
        except (gym.error.DependencyNotInstalled, gym.error.VersionNotFound) as missing:
            pytest.skip(str(missing))
        model = agent.run / f"{agent.settings.name}.zip"
        if entry.get("normalize"):
            env = load_vec_normalize(model, env)
            env.training = env.norm_reward = False
        mean, _ = evaluate_policy(VPG.load(model, device="cpu"), env, n)
        margin = student.ppf(0.9995, row["eval_episodes"] - 1) * row["std_reward"] * np.sqrt(1 / n + 1 / row["eval_episodes"])
        assert abs(mean - row["mean_reward"]) <= margin + 1e-6
        assert row["n_timesteps"] == agent.budget
        assert row["solved"] in ((False,) if agent.env_id in UNSOLVED else (True, None))


def test_the_table_agrees_with_evaluate_policy_of_sb3(trained: Path, tmp_path: Path) -> None:
    """The numbers in the table are those of SB3, for a run of little training, whose episodes differ."""
    assert main(["benchmark", "-f", str(trained), "-n", "10", "--seed", "3", "--benchmark-dir", "table"]) == 0
    (row,) = json.loads((tmp_path / "table/benchmark.json").read_text())["agents"]
    model = trained / "vpg/CartPole-v1_1/CartPole-v1.zip"
    env = load_vec_normalize(model, make_vec_env("CartPole-v1", n_envs=10, seed=3))
    env.training = env.norm_reward = False
    returns, lengths = evaluate_policy(VPG.load(model, device="cpu"), env, 10, return_episode_rewards=True)
    assert np.std(returns) > 0
    expected = (np.mean(returns), np.std(returns), sum(lengths), 1000, 475.0, False)
    names = ("mean_reward", "std_reward", "eval_timesteps", "n_timesteps", "reward_threshold", "solved")
    assert tuple(row[name] for name in names) == pytest.approx(expected)
    cells = [f"{row['mean_reward']:.3f}", f"{row['std_reward']:.3f}", "1k", str(sum(lengths)), "10", "475", "no"]
    page, (low, high) = (tmp_path / "table/benchmark.md").read_text(), row["interval"]
    assert f"| vpg | CartPole-v1 | {' | '.join(cells)} |" in page
    overview = f"| CartPole-v1 | vpg | 1k | {row['mean_reward']:.3f} [{low:.3f}, {high:.3f}] | 475 | no |"
    assert overview in page.partition("## Overview")[2]


def test_the_committed_page_is_made_from_the_raw_numbers() -> None:
    raw = json.loads((ROOT / "trained_agents/benchmark.json").read_text())
    text = _page(raw["command"], raw["deterministic"], raw["agents"], [], raw["machine"])
    assert (ROOT / "trained_agents/benchmark.md").read_text() == text


def test_a_folder_without_agents_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", "-f", "nowhere"]) == 1
    assert "no trained agents in nowhere" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("steps", "text"),
    [(100_000, "100k"), (1_500_000, "1.5M"), (2_000_000, "2M"), (2048, "2.048k"), (1_000_001, "1000.001k"), (999, "999")],
)
def test_budgets_are_written_short_but_not_rounded(steps: int, text: str) -> None:
    assert in_thousands(steps) == text


@pytest.mark.parametrize("vec_env", ["dummy", "native"])
def test_a_run_that_is_shipped_plays_as_before(trained: Path, tmp_path: Path, vec_env: str) -> None:
    """The agent plays the same episodes, although its statistics move from a pickle into the model."""
    run, target = trained / "vpg/CartPole-v1_1", tmp_path / "shipped/vpg/CartPole-v1_1"
    ship_agent.ship(run, "CartPole-v1", target, "sb3-vpg train")
    assert not list(target.rglob("*.pkl"))
    before, after = (
        evaluate_run(str(folder), "vpg", "CartPole-v1", n_episodes=10, vec_env=vec_env)
        for folder in (trained, tmp_path / "shipped")
    )
    np.testing.assert_array_equal(before.returns, after.returns)
    assert len(set(before.returns)) > 1


def test_an_agent_that_ships_can_be_trained_on(trained: Path, tmp_path: Path) -> None:
    """The optimisers keep their settings and lose only their moments."""
    file = tmp_path / "model.zip"
    file.write_bytes(ship_agent.bare_model(trained / "vpg/CartPole-v1_1/CartPole-v1.zip"))
    model = VPG.load(file, make_vec_env("CartPole-v1", n_envs=4), device="cpu")
    assert model.policy.optimizer.param_groups[0]["eps"] == 1e-5
    model.learn(512)


def test_the_compact_curve_of_many_episodes_keeps_their_means_and_steps(tmp_path: Path) -> None:
    numbers = np.random.default_rng(0)
    rows = [f"{numbers.normal():.4f},{numbers.integers(1, 9)},{index}" for index in range(2501)]
    (tmp_path / "0.monitor.csv").write_text("\n".join(['#{"t_start": 0.0, "env_id": "E"}', "r,l,t", *rows, ""]))
    before = load_results(str(tmp_path))
    text = ship_agent.compact_monitor(tmp_path, "E")
    (tmp_path / "0.monitor.csv").write_text(text)
    after = load_results(str(tmp_path))
    assert json.loads(text.splitlines()[0][1:])["episodes_per_row"] == 3
    assert len(after) == 834
    assert after["l"].sum() == before["l"].sum()
    np.testing.assert_allclose(after["r"][:833], before["r"][:2499].to_numpy().reshape(-1, 3).mean(axis=1), atol=1e-5)


def test_training_is_resumed_or_starts_again_with_a_new_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run with the same hyperparameters is resumed; one with others is deleted first."""
    commands: list[list[str]] = []
    monkeypatch.setattr(train_agents.subprocess, "run", lambda command, **others: commands.append(command))
    entry = {"n_timesteps": 1e5, "policy": "MlpPolicy"}
    run = train_agents.train("CartPole-v1", entry, 0, tmp_path)
    (run / "CartPole-v1").mkdir(parents=True)
    (run / "CartPole-v1/config.yml").write_text(yaml.dump(entry))
    train_agents.train("CartPole-v1", entry, 0, tmp_path)
    train_agents.train("CartPole-v1", {**entry, "n_timesteps": 2e5}, 0, tmp_path)
    assert ["--resume" in command for command in commands] == [False, True, False]
    assert not run.exists()
    assert commands[0][:3] == [sys.executable, "-m", "sb3_vpg"]


def test_a_training_that_fails_ships_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(command: list[str], **others: Any) -> None:
        raise subprocess.CalledProcessError(1, command)

    monkeypatch.setattr(train_agents.subprocess, "run", fail)
    monkeypatch.setattr(sys, "argv", ["train_agents.py", "train", "--envs", "CartPole-v1", "--out", "out"])
    assert train_agents.main() == 1
    assert not (tmp_path / "out").exists()


def values(env: Any, actions: np.ndarray | None = None) -> np.ndarray:
    """:return: the expected return from each state, with the time limit as horizon, of a policy or of the best one"""
    transitions, result = env.unwrapped.P, np.zeros(env.observation_space.n)
    for _ in range(env.spec.max_episode_steps):
        result = np.array(
            [
                max(
                    sum(p * (reward + (not ends) * result[to]) for p, to, reward, ends in outcomes)
                    for action, outcomes in transitions[state].items()
                    if actions is None or action == actions[state]
                )
                for state in range(len(result))
            ]
        )
    return result


def documented_environments() -> str:
    return " ".join((ROOT / "docs/environments.md").read_text().split())


def test_the_probabilities_of_frozen_lake_in_the_documentation() -> None:
    env: Any = gym.make("FrozenLake-v1")
    (agent,) = (agent for agent in agents_in(shipped_folder()) if agent.env_id == "FrozenLake-v1")
    model = VPG.load(agent.run / "FrozenLake-v1.zip", device="cpu")
    actions, _ = model.predict(np.arange(env.observation_space.n), deterministic=True)
    ours, best = values(env, actions)[0], values(env)[0]
    assert f"with probability {ours:.3f}, computed from the transitions. The best policy has {best:.3f}." in (
        documented_environments()
    )


@pytest.mark.skipif("Taxi-v4" not in gym.registry, reason="gymnasium has it from 1.3 on")
def test_no_policy_reaches_the_threshold_of_taxi() -> None:
    """Value iteration over the task's transitions, with its time limit as horizon, gives the best possible mean."""
    env: Any = gym.make("Taxi-v4")
    best = values(env) @ env.unwrapped.initial_state_distrib
    assert best < env.spec.reward_threshold
    assert f"the mean of the best policy is {best:.2f}" in documented_environments()
    assert reward_threshold("Taxi-v4") is None
    assert reward_threshold("CartPole-v1") == 475


def test_a_run_without_a_model_is_an_error_with_advice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that was killed or is in training is reported; the agent that ships does not silently replace it."""
    monkeypatch.chdir(tmp_path)
    settings = tmp_path / "logs/vpg/CartPole-v1_3/CartPole-v1"
    settings.mkdir(parents=True)
    for command in ("evaluate", "enjoy"):
        assert main([command, "--env", "CartPole-v1"]) == 1
        error = capsys.readouterr().err
        assert "CartPole-v1_3, has no model" in error
        assert "sb3-vpg train --env CartPole-v1 --resume 3" in error


def test_training_uses_one_thread_by_default(tmp_path: Path) -> None:
    command = ["train", "--env", "CartPole-v1", "-n", "600", "--eval-freq", "-1", "--verbose", "0", "-f", str(tmp_path)]
    for flags, threads in (([], 1), (["--num-threads", "2"], 2)):
        assert main([*command, *flags]) == 0
        (latest,) = tmp_path.glob(f"vpg/CartPole-v1_{threads}/CartPole-v1/args.yml")
        assert read_yaml(latest)["num_threads"] == threads


def test_a_damaged_run_is_left_out_of_the_table(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = tmp_path / "logs"
    for number in (1, 2):
        shutil.copytree(trained / "vpg/CartPole-v1_1", runs / f"{'vpg' if number == 1 else 'a2c'}/CartPole-v1_1")
    model = runs / "a2c/CartPole-v1_1/CartPole-v1.zip"
    model.write_bytes(model.read_bytes()[:2000])
    (runs / "a2c/CartPole-v1_1/CartPole-v1/args.yml").write_text("")
    assert main(["benchmark", "-f", str(runs), "-n", "2", "--benchmark-dir", str(tmp_path / "table")]) == 0
    table = (tmp_path / "table/benchmark.md").read_text()
    assert "| vpg | CartPole-v1 |" in table
    assert "Left out: a2c on CartPole-v1" in table


@pytest.mark.parametrize("content", ["", "garbage", "#{}\nr,l,t\nx,y,z\n"])
def test_a_damaged_curve_does_not_prevent_the_score(
    content: str, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(trained / "vpg/CartPole-v1_1", tmp_path / "vpg/CartPole-v1_1")
    (run / "0.monitor.csv").write_text(content)
    assert main(["evaluate", "--env", "CartPole-v1", "-f", str(tmp_path), "-n", "2"]) == 0
    printed = capsys.readouterr().out
    assert "Return over 2 episodes" in printed
    assert "Learning curve: none, the curves of" in printed
