"""VPG in the zoo's tables, its hyperparameter files, and the search over hyperparameters."""

import subprocess
import sys
from pathlib import Path

import optuna
import pytest
import rl_zoo3.train
import yaml
from rl_zoo3 import ALGOS
from rl_zoo3.exp_manager import ExperimentManager
from rl_zoo3.hyperparams_opt import HYPERPARAMS_CONVERTER, HYPERPARAMS_SAMPLER
from torch import nn

from sb3_vpg import VPG
from sb3_vpg.zoo import register
from sb3_vpg.zoo.cli import main
from sb3_vpg.zoo.hyperparams import hyperparams, hyperparams_file

ENTRIES = yaml.safe_load(hyperparams_file("vpg").read_text())
SEARCH = ["optimize", "--env", "CartPole-v1", "--verbose", "0", "--eval-episodes", "1", "--no-optim-plots"]


def test_register_fills_the_tables_and_replaces_nothing() -> None:
    before = {name: ALGOS[name] for name in ALGOS if name != "vpg"}
    register()
    register()
    assert ALGOS["vpg"] is VPG
    assert {name: ALGOS[name] for name in before} == before
    assert set(HYPERPARAMS_SAMPLER) & set(HYPERPARAMS_CONVERTER) >= {"vpg"}
    assert rl_zoo3.train.ExperimentManager is ExperimentManager


def test_importing_the_package_leaves_rl_zoo3_alone() -> None:
    """rl_zoo3 replaces gymnasium's TimeLimit for the whole process, so only those who ask for it get it."""
    program = "import sys, sb3_vpg, sb3_vpg.zoo; sb3_vpg.VPG; sys.exit('rl_zoo3' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def test_the_unmodified_zoo_trains_vpg_after_register(tmp_path: Path) -> None:
    """The README's way for a program that drives rl_zoo3 itself: a custom_envs.py and -conf."""
    (tmp_path / "custom_envs.py").write_text("import sb3_vpg.zoo\nsb3_vpg.zoo.register()\n")
    command = [sys.executable, "-m", "rl_zoo3.train", "--algo", "vpg", "-conf", "sb3_vpg.zoo.hyperparams", "-n", "600"]
    done = subprocess.run([*command, "--eval-freq", "-1"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "logs/vpg/CartPole-v1_1/CartPole-v1.zip").is_file()


@pytest.mark.filterwarnings("ignore:.*CartPole-v0 is out of date:DeprecationWarning")
@pytest.mark.parametrize("env_id", ENTRIES)
def test_every_entry_builds_a_model(env_id: str) -> None:
    """A misspelt key, a wrong type or an invalid value in the file would be refused here."""
    entry = dict(ENTRIES[env_id])
    for key in ("n_timesteps", "n_envs"):
        entry.pop(key, None)
    VPG(env="CartPole-v1" if env_id == "default" else env_id, **entry)


def test_the_entries_named_in_the_documentation_are_there() -> None:
    assert {"default", "CartPole-v1", "CartPole-v0"} <= set(hyperparams)


def test_conf_overrides_our_file(tmp_path: Path) -> None:
    conf = tmp_path / "mine.yml"
    conf.write_text("CartPole-v1: {policy: MlpPolicy, n_timesteps: 500, n_steps: 50, gamma: 0.9}")
    assert main(["train", "-conf", str(conf), "--eval-freq", "-1", "-f", str(tmp_path / "logs"), "--verbose", "0"]) == 0
    model = VPG.load(tmp_path / "logs/vpg/CartPole-v1_1/CartPole-v1.zip")
    assert (model.n_steps, model.gamma, model.num_timesteps) == (50, 0.9, 500)


def test_optimize_runs_and_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SEARCH, "--n-trials", "3", "-n", "1000", "-f", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "Number of finished trials:  3" in printed
    assert "Best trial:" in printed
    report = next((tmp_path / "vpg").glob("report_CartPole-v1_3-trials-*.csv")).read_text().splitlines()
    assert len(report) == 1 + 3


def test_a_trial_that_diverges_is_pruned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first step of every second trial makes its weights overflow: it has to end as PRUNED and leave the others alone."""

    def sample(trial: optuna.Trial, *args: object) -> dict[str, object]:
        trial.suggest_float("unused", 0.0, 1.0)
        explode = {"learning_rate": 1e30, "policy_kwargs": {"activation_fn": nn.ReLU}} if trial.number % 2 == 0 else {}
        return {"n_steps": 32, "n_critic_updates": 1, **explode}

    register()
    storage = f"sqlite:///{tmp_path}/study.db"
    # register() runs again inside the command, so the sampler is replaced where it takes it from
    monkeypatch.setattr("sb3_vpg.zoo.registration.sample_vpg_params", sample)
    flags = ["--n-trials", "4", "-n", "1200", "--storage", storage, "--study-name", "pruned", "-f", str(tmp_path)]
    assert main([*SEARCH, *flags]) == 0
    states = [trial.state.name for trial in optuna.load_study(study_name="pruned", storage=storage).trials]
    assert states == ["PRUNED", "COMPLETE"] * 2


@pytest.mark.parametrize("storage", ["journal.log", "sqlite:///study.db"], ids=["journal", "sqlite"])
def test_several_processes_share_one_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, storage: str) -> None:
    flags = ["--storage", storage, "--study-name", "shared", "--max-total-trials", "4", "-n", "600"]
    command = [sys.executable, "-m", "sb3_vpg", *SEARCH, *flags]
    workers = [subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for _ in range(2)]
    printed = [worker.communicate(timeout=240)[0].decode() for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], printed
    monkeypatch.chdir(tmp_path)
    if storage.endswith(".log"):
        storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(storage))
    trials = optuna.load_study(study_name="shared", storage=storage).trials
    assert len(trials) >= 4
    assert {trial.state.name for trial in trials} <= {"COMPLETE", "PRUNED"}
