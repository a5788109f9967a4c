"""Callbacks, logs and the zoo work with random search as with any other algorithm."""

from pathlib import Path

import numpy as np
import pytest
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback, StopTrainingOnMaxEpisodes
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import VecNormalize

import sb3_vpg
from sb3_vpg import VPG, MaskableVPG, RandomSearch, RecurrentVPG
from sb3_vpg.zoo.algorithms import ALGORITHMS
from sb3_vpg.zoo.cli import main

FOREVER = {"reward_threshold": float("inf")}


class StopAt(BaseCallback):
    def __init__(self, n_steps: int) -> None:
        super().__init__()
        self.last, self.events = n_steps, []

    def _on_training_start(self) -> None:
        self.events.append("start")

    def _on_step(self) -> bool:
        assert {"new_obs", "rewards", "dones", "infos"} <= set(self.locals)
        return self.num_timesteps < self.last

    def _on_training_end(self) -> None:
        self.events.append("end")


def test_a_callback_stops_at_its_step() -> None:
    callback = StopAt(34)
    model = RandomSearch("LinearPolicy", make_vec_env("CartPole-v1", 2), seed=1, **FOREVER).learn(500, callback)
    assert model.num_timesteps == 34
    assert callback.events == ["start", "end"]


def test_callbacks_of_sb3(tmp_path: Path) -> None:
    evaluation = EvalCallback(
        make_vec_env("CartPole-v1"), n_eval_episodes=2, eval_freq=1000, best_model_save_path=str(tmp_path), verbose=0
    )
    episodes = StopTrainingOnMaxEpisodes(max_episodes=30)
    model = RandomSearch("LinearPolicy", "CartPole-v1", seed=1, **FOREVER).learn(10_000, [evaluation, episodes])
    assert model._episode_num == 30
    best = RandomSearch.load(tmp_path / "best_model")
    assert evaluate_policy(best, make_vec_env("CartPole-v1", seed=0), 5)[0] > 9
    assert best.best_return <= model.best_return


@pytest.mark.parametrize(("log_interval", "n_rows"), [(10, 3), (7, 5), (100, 1), (None, 0)], ids=str)
def test_the_log(tmp_path: Path, log_interval: int | None, n_rows: int) -> None:
    """A last row is written at the end, since a search often ends before the first interval."""
    model = RandomSearch("LinearPolicy", "CartPole-v1", seed=1, **FOREVER)
    model.set_logger(configure(str(tmp_path), ["csv"]))
    model.learn(10_000, StopTrainingOnMaxEpisodes(max_episodes=30), log_interval=log_interval)
    model.logger.close()
    rows = (tmp_path / "progress.csv").read_text().split()
    assert len(rows) == (1 + n_rows if n_rows else 0)
    if rows:
        last = dict(zip(rows[0].split(","), rows[-1].split(","), strict=True))
        assert float(last["rollout/best_ep_rew"]) == model.best_return
        assert (int(last["time/total_timesteps"]), int(last["time/episodes"])) == (model.num_timesteps, 30)
        assert float(last["rollout/ep_rew_mean"]) == pytest.approx(np.mean([e["r"] for e in model.ep_info_buffer]), rel=1e-5)


@pytest.mark.filterwarnings("ignore:rich is experimental")
def test_progress_bar_and_tensorboard(tmp_path: Path) -> None:
    RandomSearch("LinearPolicy", "CartPole-v1", seed=0, tensorboard_log=str(tmp_path)).learn(1000, progress_bar=True)
    assert list((tmp_path / "RandomSearch_1").glob("events.*"))


def test_the_score_is_the_return_before_normalisation() -> None:
    plain = make_vec_env("Pendulum-v1", seed=0)
    model = RandomSearch("LinearPolicy", VecNormalize(plain, norm_obs=False), seed=0).learn(400)
    assert model.best_return == pytest.approx(max(episode["r"] for episode in model.ep_info_buffer), rel=1e-5)


def train(folder: Path, env_id: str, *arguments: str) -> Path:
    """:return: the folder of the run"""
    command = ["train", "--algo", "random_search", "--env", env_id, "--seed", "15", "--eval-freq", "200", "--verbose", "0"]
    assert main([*command, "--num-threads", "1", "-f", str(folder / "logs"), *arguments]) == 0
    return folder / f"logs/random_search/{env_id}_1"


@pytest.mark.filterwarnings("ignore:.*CartPole-v0 is out of date:DeprecationWarning")
@pytest.mark.parametrize(("env_id", "length"), [("CartPole-v1", 500), ("CartPole-v0", 200), ("Acrobot-v1", 0)])
def test_the_zoo_trains_with_our_entries(tmp_path: Path, env_id: str, length: int) -> None:
    run = train(tmp_path, env_id, *(() if length else ("-n", "1000")))
    model = RandomSearch.load(run / f"{env_id}.zip")
    assert model.stop_at_full_length is (length > 0)
    assert model.best_return == length or not length


def test_the_zoo_evaluates_plays_and_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    train(tmp_path, "CartPole-v1")
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    assert main(["evaluate", "--algo", "random_search", "-n", "5"]) == 0
    assert "Return over 5 episodes" in capsys.readouterr().out
    assert main(["enjoy", "--algo", "random_search", "--no-render", "-n", "50"]) == 0
    agent = "logs/random_search/CartPole-v1_1/CartPole-v1.zip"
    assert main(["train", "--algo", "random_search", "-n", "100", "--eval-freq", "-1", "-i", agent, "-f", "more"]) == 0
    assert main(["all_plots", "-a", "random_search", "-e", "CartPole-v1", "-f", "logs", "--savefig", "all.png"]) == 0


def test_the_zoo_has_nothing_to_optimize(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["optimize", "--algo", "random_search", "--n-trials", "1", "-n", "100", "-f", str(tmp_path)]) == 1
    assert "random_search has no hyperparameters to search" in capsys.readouterr().err


def test_the_zoo_refuses_unknown_hyperparameters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["train", "--algo", "random_search", "-params", "n_steps:5", "-f", str(tmp_path)]
    assert main(arguments) == 1
    assert "RandomSearch() got an unexpected keyword argument 'n_steps'" in capsys.readouterr().err


def test_our_names_lead_to_our_classes() -> None:
    ours = {"vpg": VPG, "random_search": RandomSearch, "maskable_vpg": MaskableVPG, "vpg_lstm": RecurrentVPG}
    assert {algo: getattr(sb3_vpg, name) for algo, name in ALGORITHMS.items()} == ours
