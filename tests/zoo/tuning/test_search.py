"""``sb3-vpg optimize``: its first trial, errors of trials and environments, several workers, and its report."""

import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import optuna
import pytest
from helpers import MAY_STAND_STILL
from sqlalchemy import event
from sqlalchemy.pool import Pool
from torch import nn

from sb3_vpg import VPG
from sb3_vpg.zoo.cli import main
from sb3_vpg.zoo.tuning import study as studies
from sb3_vpg.zoo.tuning.search_space import ENTRY_UNCHANGED

SEARCH = ["optimize", "--env", "CartPole-v1", "--verbose", "0", "--eval-episodes", "1", "--num-threads", "1"]
QUICK = [*SEARCH, "--no-optim-plots"]
# If a trial fails, its environments are left to the garbage collector
pytestmark = [
    MAY_STAND_STILL,
    pytest.mark.filterwarnings("ignore:Exception ignored in.*monitor.csv:pytest.PytestUnraisableExceptionWarning"),
]


def trials_of(storage: str) -> list[optuna.trial.FrozenTrial]:
    with studies.load_study(storage, None) as study:
        return study.trials


def states(storage: str) -> list[str]:
    return [trial.state.name for trial in trials_of(storage)]


class Broken(gym.Wrapper):
    """CartPole that raises an error, or whose rewards become NaN, after 300 steps over all episodes."""

    def __init__(self, kind: str) -> None:
        super().__init__(gym.make("CartPole-v1"))
        self.kind, self.n_steps = kind, 0

    def step(self, action: Any) -> Any:
        observation, reward, *others = self.env.step(action)
        self.n_steps += 1
        if self.n_steps > 300 and self.kind == "error":
            raise ValueError("the cable is cut")
        return observation, np.nan if self.n_steps > 300 else reward, *others


@pytest.fixture(autouse=True)
def _broken_env():
    # A function, because old gymnasium versions read the metadata of a class, which a wrapper has not
    gym.register("Broken-v0", lambda kind: Broken(kind))
    yield
    del gym.registry["Broken-v0"]


def test_a_search_writes_plots_and_prints_the_best_entry(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The plots are files whose names are printed, and the zoo's own report stays."""
    flags = ["--n-trials", "3", "-n", "1000", "-f", str(tmp_path), "--storage", f"{tmp_path}/s.log", "--study-name", "a/b"]
    assert main([*SEARCH, *flags]) == 0
    printed = capsys.readouterr().out
    assert "Number of finished trials:  3" in printed
    assert "Best trial:" in printed
    report = next((tmp_path / "vpg").glob("report_CartPole-v1_3-trials-*.csv")).read_text().splitlines()
    assert len(report) == 1 + 3
    pictures = sorted((tmp_path / "vpg").glob("study_a_b_*.png"))
    assert [picture.stem for picture in pictures] == ["study_a_b_history", "study_a_b_importances"]
    for picture in pictures:
        assert str(picture) in printed
        assert picture.read_bytes().startswith(b"\x89PNG")
    assert "\nCartPole-v1:\n  # Best of 3 trials" in printed


def test_no_optim_plots_writes_no_plots(tmp_path: Path) -> None:
    assert main([*QUICK, "--n-trials", "1", "-n", "300", "-f", str(tmp_path)]) == 0
    assert not list(tmp_path.rglob("*.png"))


@pytest.mark.parametrize("params", [[], ["-params", "gamma:1.0", "n_envs:3"]], ids=["in_the_space", "outside"])
def test_the_first_trial_trains_the_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, params: list[str]) -> None:
    """The entry need not be a point of the space. The other trials draw, also their number of environments."""
    built: list[VPG] = []
    setup = VPG._setup_model
    monkeypatch.setattr(VPG, "_setup_model", lambda model: (setup(model), built.append(model))[0])
    assert main([*QUICK, "--n-trials", "3", "-n", "300", "-f", str(tmp_path / "search"), *params]) == 0
    assert main(["train", "--verbose", "0", "-n", "300", "--eval-freq", "-1", "-f", str(tmp_path / "train"), *params]) == 0
    first, second, third, trained = built
    names = ("n_envs", "n_steps", "gamma", "gae_lambda", "learning_rate", "vf_learning_rate", "n_critic_updates", "baseline")
    assert [getattr(first, name) for name in names] == [getattr(trained, name) for name in names]
    assert str(first.policy) == str(trained.policy)
    assert {first.gamma, second.gamma, third.gamma} > {trained.gamma}


@pytest.mark.parametrize(("kind", "message"), [("error", "the cable is cut"), ("nan", "the reward of environment")])
def test_an_environment_that_fails_ends_the_search(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, message: str
) -> None:
    """The zoo would prune the trial and start the next one, which fails in the same way."""
    storage = f"{tmp_path}/study.log"
    flags = ["--env", "Broken-v0", "--env-kwargs", f"kind:'{kind}'", "--storage", storage, "--study-name", "broken"]
    assert main([*QUICK, *flags, "--n-trials", "3", "-n", "5000", "-f", str(tmp_path)]) == 1
    printed = capsys.readouterr().err
    assert "Traceback" not in printed
    assert message in printed.splitlines()[-1]
    assert states(storage) == ["FAIL"]
    assert message in trials_of(storage)[0].user_attrs["failure"]


def diverge(monkeypatch: pytest.MonkeyPatch, every: int) -> None:
    """Let the weights of every n-th trial overflow in its first update, where n is ``every``."""

    def sample(trial: optuna.Trial, *args: object) -> dict[str, object]:
        trial.suggest_float("unused", 0.0, 1.0)
        explode = {"learning_rate": 1e30, "policy_kwargs": {"activation_fn": nn.ReLU}} if trial.number % every == 0 else {}
        return {"n_steps": 32, "n_critic_updates": 1, **explode}

    # The command calls register() again, so they are replaced in its module
    monkeypatch.setattr("sb3_vpg.zoo.registration.sample_vpg_params", sample)
    monkeypatch.setattr("sb3_vpg.zoo.registration.convert_vpg_params", lambda params: {})


def test_a_trial_that_diverges_is_pruned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trial ends as PRUNED, and the others complete."""
    storage = f"sqlite:///{tmp_path}/study.db"
    diverge(monkeypatch, every=2)
    flags = ["--n-trials", "4", "-n", "1200", "--storage", storage, "--study-name", "pruned", "-f", str(tmp_path)]
    assert main([*QUICK, *flags]) == 0
    assert states(storage) == ["PRUNED", "COMPLETE"] * 2


@pytest.mark.parametrize("ends", ["well", "in an error", "interrupted"])
def test_connections_to_a_database_are_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: str) -> None:
    """A search closes all its connections however it ends, and so does ``best_entry``. SQLAlchemy's events count them."""
    connected: list[object] = []
    closed: list[object] = []

    def connect(connection: object, _: object) -> None:
        connected.append(connection)

    def close(connection: object, _: object) -> None:
        closed.append(connection)

    def interrupt(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    if ends == "interrupted":
        monkeypatch.setattr(VPG, "learn", interrupt)
    storage = ["--storage", f"sqlite:///{tmp_path}/study.db", "--study-name", "closed"]
    env = ["--env", "Broken-v0", "--env-kwargs", "kind:'error'"] if ends == "in an error" else []
    event.listen(Pool, "connect", connect)
    event.listen(Pool, "close", close)
    try:
        code = main([*QUICK, *env, *storage, "--n-trials", "2", "-n", "600", "-f", str(tmp_path)])
        assert code == {"well": 0, "in an error": 1, "interrupted": 130}[ends]
        assert main(["best_entry", *storage]) == (0 if ends == "well" else 1)
    finally:
        event.remove(Pool, "connect", connect)
        event.remove(Pool, "close", close)
    assert len(connected) >= 2
    assert set(map(id, closed)) == set(map(id, connected))


def test_a_search_without_a_completed_trial_ends_in_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    diverge(monkeypatch, every=1)
    assert main([*QUICK, "--n-trials", "2", "-n", "1200", "-f", str(tmp_path)]) == 1
    assert "none of the 2 trials of study" in capsys.readouterr().err


@pytest.mark.parametrize("storage", ["journal.log", "sqlite:///study.db"], ids=["journal", "sqlite"])
def test_several_processes_share_one_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, storage: str) -> None:
    """``--n-trials`` counts the trials of each process; ``--max-total-trials`` counts all trials of the study."""
    command = [sys.executable, "-m", "sb3_vpg", *QUICK, "--storage", storage, "--study-name", "shared", "-n", "600"]
    processes = [subprocess.Popen([*command, "--n-trials", "2"], cwd=tmp_path, stdout=-1, stderr=-2) for _ in range(2)]
    printed = [process.communicate(timeout=240)[0].decode() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], printed
    monkeypatch.chdir(tmp_path)
    trials = trials_of(storage)
    assert [trial.number for trial in trials] == [0, 1, 2, 3]
    assert {trial.state.name for trial in trials} <= {"COMPLETE", "PRUNED"}
    seeds = [trial.user_attrs["seed"] for trial in trials]
    assert sorted(map(seeds.count, set(seeds))) == [2, 2], "each process has its own seed"
    drawn = [trial.params["learning_rate"] for trial in trials]
    assert len(set(drawn)) == 4, "no trial twice"
    assert drawn.count(0.0035) == 1, "one process has trained the entry of CartPole"
    assert main([*command[3:], "--max-total-trials", "5"]) == 0
    assert len(trials_of(storage)) == 5


def test_a_trial_of_a_killed_worker_is_queued_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a database, it would otherwise stay RUNNING forever and count towards ``--max-total-trials``."""
    storage = f"sqlite:///{tmp_path}/study.db"
    flags = ["--storage", storage, "--study-name", "killed", "-n", "300", "-f", str(tmp_path)]
    monkeypatch.setattr(studies, "HEARTBEAT", 1)
    assert main([*QUICK, *flags, "--max-total-trials", "1"]) == 0
    with warnings.catch_warnings():
        # Optuna warns that heartbeats are experimental, and meant for Study.optimize
        warnings.simplefilter("ignore")
        with studies.open_storage(storage, heartbeat_interval=1) as database:
            lost = optuna.load_study(study_name="killed", storage=database).ask()
            drawn = lost.suggest_float("learning_rate", 1e-4, 0.03, log=True)
            database.record_heartbeat(lost._trial_id)
    time.sleep(3.5)
    assert main([*QUICK, *flags, "--max-total-trials", "2"]) == 0
    assert states(storage) == ["COMPLETE", "FAIL", "COMPLETE"]
    assert trials_of(storage)[2].params["learning_rate"] == drawn


@pytest.mark.parametrize("params", [[], ["-params", "gamma:1.0"]], ids=["in_the_space", "outside"])
def test_an_interrupted_trial_is_queued_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, params: list[str]) -> None:
    """Any storage will do, and the trial of the unchanged entry is queued as well."""
    storage = f"{tmp_path}/study.log"
    search = [*QUICK, "--storage", storage, "--study-name", "stopped", "-n", "300", "-f", str(tmp_path), *params]

    def interrupt(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(VPG, "learn", interrupt)
        assert main([*search, "--n-trials", "3"]) == 130
    assert states(storage) == ["FAIL", "WAITING"]
    assert main([*search, "--n-trials", "1"]) == 0
    first, second = trials_of(storage)
    assert second.state.name == "COMPLETE"
    assert first.params == second.params
    assert (ENTRY_UNCHANGED in second.user_attrs) == bool(params)


def test_a_study_of_another_search_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Returns of other environments or entries cannot be compared; other steps or seeds are accepted."""
    flags = ["--n-trials", "1", "-n", "600", "-f", str(tmp_path), "--storage", f"{tmp_path}/s.log", "--study-name", "s"]
    assert main([*QUICK, *flags]) == 0
    for other, difference in (
        (["--env", "Acrobot-v1"], "env_id 'CartPole-v1', not 'Acrobot-v1'"),
        (["--algo", "ppo"], "algo 'vpg', not 'ppo'"),
        (["-params", "gamma:0.5"], "gamma 0.98, not 0.5"),
        (["--env-kwargs", "sutton_barto_reward:True"], "env_kwargs None, not {'sutton_barto_reward': True}"),
    ):
        assert main([*QUICK, *flags, *other]) == 1
        message = capsys.readouterr().err
        assert difference in message
        assert "--study-name" in message
    assert main([*QUICK, *flags, "-n", "700", "--seed", "9"]) == 0
    assert states(f"{tmp_path}/s.log") == ["COMPLETE"] * 2
