"""``--algo vpg_lstm``: the state of the LSTM goes from step to step wherever an agent acts."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from helpers import MAY_STAND_STILL, differing, weights
from hub_repositories import LEAVES_FILES_OPEN
from rl_zoo3 import ALGOS

from sb3_vpg import RecurrentVPG
from sb3_vpg.compare.runs.tasks import Plan, entry, without_entry
from sb3_vpg.zoo.cli import main
from sb3_vpg.zoo.hyperparams import hyperparams_file, own_file

pytestmark = LEAVES_FILES_OPEN
ENTRIES = yaml.safe_load(hyperparams_file("vpg_lstm").read_text())
ON_T_MAZE = ["--algo", "vpg_lstm", "--env", "TMaze-v0"]
SMALL = ["-params", "n_envs:2", "n_steps:16", "policy_kwargs:dict(lstm_hidden_size=4)", "--verbose", "0", "--seed", "3"]


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short run with evaluations."""
    folder = tmp_path_factory.mktemp("recurrent") / "logs"
    how = ["-n", "128", "--eval-freq", "64", "--eval-episodes", "2", "-f", str(folder)]
    assert main(["train", *ON_T_MAZE, *SMALL, *how]) == 0
    return folder


@pytest.fixture
def states(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """:return: the states that ``predict`` has been given"""
    given: list[Any] = []
    predict = RecurrentVPG.predict

    def watched(self: RecurrentVPG, observation: Any, state: Any = None, *args: Any, **kwargs: Any) -> Any:
        given.append(state)
        return predict(self, observation, state, *args, **kwargs)

    monkeypatch.setattr(RecurrentVPG, "predict", watched)
    return given


def assert_passed_on(states: list[Any]) -> None:
    """Only the first steps of an evaluation have no state; later ones have one that is not zero."""
    assert states[0] is None
    later = [state for state in states[1:] if state is not None]
    assert len(later) >= len(states) - 3
    assert all(np.abs(state[0]).max() > 0 for state in later)


@pytest.mark.parametrize(
    "command",
    [
        ["evaluate", "-n", "2"],
        ["evaluate", "-n", "2", "--load-best"],
        ["enjoy", "-n", "30", "--no-render"],
        ["record_video", "-n", "30", "-o", "films"],
    ],
    ids=["evaluate", "best", "enjoy", "record_video"],
)
def test_wherever_an_agent_plays_its_state_is_passed_on(
    command: list[str], logs: Path, states: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name, *flags = command
    assert main([name, *ON_T_MAZE, "-f", str(logs), *flags]) == 0
    assert_passed_on(states)
    assert name != "record_video" or list(tmp_path.glob("films/*.mp4"))


def test_an_agent_from_the_hub_plays(logs: Path, states: list[Any], tmp_path: Path) -> None:
    hub = ["--local-hub", str(tmp_path / "hub"), "-orga", "me"]
    assert main(["push_to_hub", *ON_T_MAZE, "-f", str(logs), *hub, "-n", "2", "--no-render", "--no-onnx"]) == 0
    assert main(["load_from_hub", *ON_T_MAZE, "-f", str(tmp_path), *hub]) == 0
    assert_passed_on(states)
    assert "import sb3_vpg.envs\n" in next(tmp_path.glob("hub/me/*/README.md")).read_text()
    models = [RecurrentVPG.load(folder / "vpg_lstm/TMaze-v0_1/TMaze-v0.zip", device="cpu") for folder in (logs, tmp_path)]
    assert not differing(*map(weights, models))


def test_benchmark_scores_the_run(logs: Path, states: list[Any], tmp_path: Path) -> None:
    assert main(["benchmark", "-f", str(logs), "-n", "2", "--benchmark-dir", str(tmp_path)]) == 0
    assert_passed_on(states)
    assert "| vpg_lstm | TMaze-v0 |" in (tmp_path / "benchmark.md").read_text()


@pytest.mark.parametrize(("env_id", "vec_env"), [("TMaze-v0", "dummy"), ("CartPole-v1", "native")])
def test_evaluations_during_training_pass_the_state_on(env_id: str, vec_env: str, states: list[Any], tmp_path: Path) -> None:
    how = ["-n", "64", "--eval-freq", "32", "--eval-episodes", "1", "-f", str(tmp_path), "--vec-env", vec_env]
    assert main(["train", "--algo", "vpg_lstm", "--env", env_id, *SMALL, *how]) == 0
    assert_passed_on(states)


def test_a_trial_of_a_search_passes_the_state_on(states: list[Any], tmp_path: Path) -> None:
    how = ["--n-trials", "1", "-n", "64", "--n-evaluations", "1", "--eval-episodes", "1", "-f", str(tmp_path)]
    assert main(["optimize", *ON_T_MAZE, *SMALL, *how]) == 0
    assert_passed_on(states)


def test_a_run_resumes(tmp_path: Path) -> None:
    """A complete run says so; that a resumed one is exact is tested with the checkpoints."""
    how = ["-n", "128", "--eval-freq", "-1", "-f", str(tmp_path), "--checkpoint-freq", "32"]
    assert main(["train", *ON_T_MAZE, *SMALL, *how]) == 0
    assert (tmp_path / "vpg_lstm/TMaze-v0_1/TMaze-v0.zip").is_file()
    assert main(["train", *ON_T_MAZE, "-f", str(tmp_path), "--resume", "--verbose", "0"]) == 0


@MAY_STAND_STILL
@pytest.mark.parametrize("env_id", ENTRIES)
def test_every_entry_trains(env_id: str, tmp_path: Path) -> None:
    name = "CartPole-v1" if env_id == "default" else env_id
    (tmp_path / "default.yml").write_text(yaml.safe_dump({name: ENTRIES["default"]}))
    conf = ["-conf", str(tmp_path / "default.yml")] if env_id == "default" else []
    flags = ["--algo", "vpg_lstm", "--env", name, "-n", "64", "--eval-freq", "-1", "--verbose", "0", "-f", str(tmp_path)]
    assert main(["train", *flags, *conf]) == 0
    trained = RecurrentVPG.load(tmp_path / f"vpg_lstm/{name}_1/{name}.zip", device="cpu")
    assert trained._n_updates > 0
    expected = {key: ENTRIES[env_id][key] for key in ("gamma", "n_steps", "n_episodes") if key in ENTRIES[env_id]}
    assert {key: getattr(trained, key) for key in expected} == expected


def test_comparisons_find_hyperparameters_for_both_algorithms() -> None:
    """Of ppo_lstm, ours in our environment, and the zoo's in its own."""
    environments = ["TMaze-v0", "CartPoleNoVel-v1", "PendulumNoVel-v1"]
    evaluation = {"n_evaluations": 2, "eval_episodes": 2, "final_episodes": 2}
    tasks = Plan(["vpg_lstm", "ppo_lstm"], environments, [0], {}, **evaluation, gym_packages=()).tasks()
    assert len(tasks) == 6
    assert all(task.entry["policy"].endswith("MlpLstmPolicy") for task in tasks)
    assert all(without_entry(algo, environments) == [] for algo in ("vpg_lstm", "ppo_lstm"))
    assert own_file("ppo_lstm", "CartPoleNoVel-v1") is None
    assert own_file("ppo", "TMaze-v0") is None
    assert entry("ppo_lstm", "PendulumNoVel-v1")["use_sde"]


def test_the_zoos_recurrent_ppo_trains_in_our_environment(tmp_path: Path) -> None:
    """With our entry, which the zoo's file does not have."""
    flags = ["--algo", "ppo_lstm", "--env", "TMaze-v0", "-n", "64", "--eval-freq", "-1", "--verbose", "0", "-f", str(tmp_path)]
    assert main(["train", *flags, "-params", "n_steps:8", "n_epochs:1"]) == 0
    assert ALGOS["ppo_lstm"].load(tmp_path / "ppo_lstm/TMaze-v0_1/TMaze-v0.zip").num_timesteps >= 64
