"""``--vec-env envpool`` in the zoo's programs."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from helpers import MAY_STAND_STILL
from stable_baselines3.common.monitor import load_results

from sb3_vpg.vec_env.envpool_vector_env import EnvPoolVectorEnv
from sb3_vpg.zoo.agents.evaluation import evaluate_run
from sb3_vpg.zoo.cli import main

pytest.importorskip("envpool", reason="EnvPool is not installed; it has no release for Python 3.10")

ENVPOOL = ["--vec-env", "envpool"]
TRAIN = ["train", *ENVPOOL, "--env", "CartPole-v1", "--verbose", "0", "--num-threads", "1"]


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short run with evaluations and checkpoints."""
    folder = tmp_path_factory.mktemp("envpool") / "logs"
    evaluations = ["--eval-freq", "1000", "--eval-episodes", "20", "--checkpoint-freq", "1000"]
    sizes = ["-n", "3000", "-params", "n_envs:32", "n_steps:32"]
    assert main([*TRAIN, *evaluations, *sizes, "--seed", "1", "-f", str(folder)]) == 0
    return folder


@pytest.fixture
def created(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """:return: the numbers of environments that EnvPool has made so far"""
    made: list[int] = []
    build = EnvPoolVectorEnv.__init__

    def watched(self: EnvPoolVectorEnv, env_id: str, num_envs: int, **kwargs: object) -> None:
        build(self, env_id, num_envs, **kwargs)  # type: ignore[arg-type]  # passed on
        made.append(num_envs)

    monkeypatch.setattr(EnvPoolVectorEnv, "__init__", watched)
    return made


def test_train_leaves_the_layout_of_the_zoo(logs: Path) -> None:
    run = logs / "vpg/CartPole-v1_1"
    for name in ("0.monitor.csv", "CartPole-v1.zip", "best_model.zip", "CartPole-v1/config.yml"):
        assert (run / name).is_file(), name
    assert dict(yaml.unsafe_load((run / "CartPole-v1/args.yml").read_text()))["vec_env"] == "envpool"
    assert np.load(run / "evaluations.npz")["results"].shape == (3, 20)
    episodes = load_results(str(run))
    assert 2000 < episodes["l"].sum() <= 4096
    np.testing.assert_array_equal(episodes["r"], episodes["l"])


def test_the_other_programs_read_the_run(logs: Path, created: list[int], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", *ENVPOOL, "-n", "30", "-f", str(logs)]) == 0
    assert created == [30]
    assert main(["enjoy", *ENVPOOL, "--no-render", "-n", "600", "-f", str(logs)]) == 0
    assert created == [30, 1]
    assert "Mean reward" in capsys.readouterr().out
    assert main(["enjoy", *ENVPOOL, "-f", str(logs)]) == 1
    assert "--vec-env envpool opens no window; add --no-render" in capsys.readouterr().err


def test_envpool_and_dummy_evaluations_agree(logs: Path) -> None:
    """Both score the same model alike in different episodes: the means differ by less than five standard errors."""
    scores = [evaluate_run(str(logs), "vpg", "CartPole-v1", n_episodes=60, vec_env=name) for name in ("dummy", "envpool")]
    error = np.hypot(*[score.returns.std(ddof=1) / np.sqrt(60) for score in scores])
    assert abs(scores[0].returns.mean() - scores[1].returns.mean()) < 5 * error


@pytest.mark.parametrize("algo", ["a2c", "ppo"])
def test_the_algorithms_of_the_zoo_train(algo: str, tmp_path: Path, created: list[int]) -> None:
    assert main([*TRAIN, "--algo", algo, "-n", "400", "--eval-freq", "-1", "-f", str(tmp_path)]) == 0
    assert created == [8]


@MAY_STAND_STILL
def test_optimize_uses_envpool(tmp_path: Path, created: list[int]) -> None:
    search = ["optimize", *ENVPOOL, "--env", "CartPole-v1", "--verbose", "0", "--no-optim-plots", "--n-evaluations", "1"]
    assert main([*search, "--n-trials", "1", "--n-jobs", "1", "-n", "600", "-f", str(tmp_path)]) == 0
    # The zoo makes one to read its spaces, and the trial makes two
    assert len(created) == 3


REFUSED = {
    "env_wrapper": (["-params", "env_wrapper:'sb3_vpg.wrappers.SurvivalReward'"], "env_wrapper wraps a gymnasium.Env"),
    "not offered": (["--env", "Pendulum-v1"], "EnvPool is offered for CartPole-v1"),
    "threads": (["--env-kwargs", "num_threads:2"], "EnvPool uses one thread for each core of the process; taskset"),
    "env_kwargs": (["--env-kwargs", "gravity:1"], "CartPole-v1 of EnvPool does not take the env_kwargs ['gravity']"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_of_train(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, message = REFUSED[name]
    assert main([*TRAIN, "-n", "300", "-f", str(tmp_path), *arguments]) == 1
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("vpg/*")), "a refused training leaves no run behind"
