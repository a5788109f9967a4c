"""``--vec-env native`` in the zoo's programs: the same files and wrappers, and errors that say what to do instead."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rl_zoo3.exp_manager
import yaml
from helpers import MAY_STAND_STILL
from stable_baselines3.common.monitor import load_results

from sb3_vpg.vec_env.gym_vec_env import GymVecEnv
from sb3_vpg.zoo.agents.evaluation import evaluate_run
from sb3_vpg.zoo.agents.play_env import create_gym_vec_test_env
from sb3_vpg.zoo.cli import main

NATIVE = ["--vec-env", "native"]
TRAIN = ["train", *NATIVE, "--env", "CartPole-v1", "--verbose", "0", "--num-threads", "1"]


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short run with evaluations."""
    folder = tmp_path_factory.mktemp("native") / "logs"
    evaluations = ["--eval-freq", "1000", "--eval-episodes", "20"]
    sizes = ["-n", "3000", "-params", "n_envs:32", "n_steps:32"]
    assert main([*TRAIN, *evaluations, *sizes, "--seed", "1", "-f", str(folder)]) == 0
    return folder


@pytest.fixture
def created(monkeypatch: pytest.MonkeyPatch) -> list[GymVecEnv]:
    """:return: the vector environments made so far"""
    made: list[GymVecEnv] = []
    build = GymVecEnv.__init__

    def watched(self: GymVecEnv, *args: Any, **kwargs: Any) -> None:
        build(self, *args, **kwargs)
        made.append(self)

    monkeypatch.setattr(GymVecEnv, "__init__", watched)
    return made


def saved_arguments(run: Path) -> dict[str, Any]:
    return dict(yaml.unsafe_load((run / "CartPole-v1/args.yml").read_text()))


def test_train_leaves_the_layout_of_the_zoo(logs: Path) -> None:
    run = logs / "vpg/CartPole-v1_1"
    assert [file.name for file in run.glob("*monitor.csv")] == ["0.monitor.csv"]
    for name in ("CartPole-v1.zip", "best_model.zip", "CartPole-v1/config.yml"):
        assert (run / name).is_file(), name
    assert saved_arguments(run)["vec_env"] == "native"
    episodes = load_results(str(run))
    assert 2000 < episodes["l"].sum() <= 4096
    np.testing.assert_array_equal(episodes["r"], episodes["l"])


def test_evaluations_play_all_their_episodes_side_by_side(logs: Path, tmp_path: Path, created: list[GymVecEnv]) -> None:
    """Evaluation uses one environment for each episode, unless the user gives another number, even 1."""
    run = logs / "vpg/CartPole-v1_1"
    assert np.load(run / "evaluations.npz")["results"].shape == (3, 20)
    assert saved_arguments(run)["n_eval_envs"] == 20
    arguments = [*TRAIN, "-n", "300", "--eval-freq", "200", "--eval-episodes", "3", "-params", "n_envs:4"]
    assert main([*arguments, "-f", str(tmp_path)]) == 0
    assert sorted(env.num_envs for env in created) == [3, 4]
    created.clear()
    assert main([*arguments, "--n-eval-envs", "1", "-f", str(tmp_path)]) == 0
    assert sorted(env.num_envs for env in created) == [1, 4]


def test_the_other_programs_read_the_run(logs: Path, created: list[GymVecEnv], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", *NATIVE, "-n", "30", "-f", str(logs)]) == 0
    assert [env.num_envs for env in created] == [30]
    assert "Return over 30 episodes" in capsys.readouterr().out
    assert (logs / "vpg/CartPole-v1_1/learning_curve.png").is_file()
    assert main(["enjoy", *NATIVE, "--no-render", "-n", "600", "-f", str(logs)]) == 0
    assert [env.num_envs for env in created] == [30, 1]
    assert "Mean reward" in capsys.readouterr().out
    assert main(["plot_train", "-e", "CartPole-v1", "-f", str(logs), "--savefig", str(logs / "train.png")]) == 0


def test_native_and_dummy_evaluations_agree(logs: Path) -> None:
    """Both score the same model alike in different episodes: the means differ by less than five standard errors."""
    scores = [evaluate_run(str(logs), "vpg", "CartPole-v1", n_episodes=60, vec_env=name) for name in ("dummy", "native")]
    error = np.hypot(*[score.returns.std(ddof=1) / np.sqrt(60) for score in scores])
    assert abs(scores[0].returns.mean() - scores[1].returns.mean()) < 5 * error


def test_native_environments_are_wrapped_as_the_hyperparameters_say(tmp_path: Path, created: list[GymVecEnv]) -> None:
    wrappers = ["normalize:dict(norm_obs=True,norm_reward=False)", "frame_stack:2"]
    arguments = ["-n", "600", "--eval-freq", "500", "-f", str(tmp_path), "-params", *wrappers]
    assert main([*TRAIN, *arguments]) == 0
    assert (tmp_path / "vpg/CartPole-v1_1/CartPole-v1/vecnormalize.pkl").is_file()
    assert main(["evaluate", *NATIVE, "-n", "2", "-f", str(tmp_path)]) == 0
    assert len(created) == 3


@pytest.mark.parametrize("algo", ["ppo", "dqn", "random_search"])
def test_the_algorithms_of_the_zoo_train_on_native_environments(algo: str, tmp_path: Path, created: list[GymVecEnv]) -> None:
    assert main([*TRAIN, "--algo", algo, "-n", "400", "--eval-freq", "-1", "-f", str(tmp_path)]) == 0
    assert len(created) == 1


@MAY_STAND_STILL
def test_optimize_uses_native_environments(tmp_path: Path, created: list[GymVecEnv]) -> None:
    """Two jobs in one process make their environments at the same time."""
    before = rl_zoo3.exp_manager.make_vec_env
    search = ["optimize", *NATIVE, "--env", "CartPole-v1", "--verbose", "0", "--no-optim-plots", "--n-evaluations", "1"]
    assert main([*search, "--n-trials", "2", "--n-jobs", "2", "-n", "600", "-f", str(tmp_path)]) == 0
    # The zoo makes one to read its spaces, and each trial makes two
    assert len(created) == 5
    assert rl_zoo3.exp_manager.make_vec_env is before


def test_without_the_flag_nothing_is_native(tmp_path: Path, created: list[GymVecEnv]) -> None:
    arguments = ["train", "--verbose", "0", "-n", "300", "--eval-freq", "-1", "-f", str(tmp_path)]
    assert main(arguments) == 0
    assert main([*arguments, "--vec-env", "dummy"]) == 0
    assert created == []
    assert saved_arguments(tmp_path / "vpg/CartPole-v1_2")["vec_env"] == "dummy"


REFUSED = {
    "env_wrapper": (["-params", "env_wrapper:'sb3_vpg.wrappers.SurvivalReward'"], "env_wrapper wraps a gymnasium.Env"),
    "no native one": (["--env", "Pendulum-v1"], "Pendulum-v1 has no native vector environment; use"),
    "env_kwargs": (["--env-kwargs", "gravity:1"], "cannot be built with env_kwargs {'gravity': 1}"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_of_train(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, message = REFUSED[name]
    assert main([*TRAIN, "-n", "300", "-f", str(tmp_path), *arguments]) == 1
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("vpg/*")), "a refused training leaves no run behind"


def test_enjoy_says_that_there_is_no_window(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["enjoy", *NATIVE, "-f", str(logs)]) == 1
    assert "opens no window; add --no-render" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["train", "optimize", "enjoy", "evaluate"])
def test_help_offers_native_environments(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert "native" in capsys.readouterr().out


def test_an_error_lets_the_next_environment_be_made() -> None:
    """After an error, the zoo's function is restored, and another thread can make an environment."""
    with pytest.raises(ValueError, match="opens no window"):
        create_gym_vec_test_env("native", "CartPole-v1", hyperparams={})
    make = threading.Thread(
        target=lambda: create_gym_vec_test_env("native", "CartPole-v1", hyperparams={}, should_render=False).close()
    )
    make.start()
    make.join(timeout=30)
    assert not make.is_alive()
