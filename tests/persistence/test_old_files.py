"""
Files of commit b385936 still load and can be continued: models, checkpoints, a repository of the hub, a study and a
comparison. ``old_files/write.py`` wrote them with the code of that commit.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import optuna
import pytest
import torch as th
from helpers import MAY_STAND_STILL
from hub_repositories import LEAVES_FILES_OPEN
from old_files import write as old
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_vpg import VPG, RandomSearch
from sb3_vpg.compare.runs.records import RECORDS
from sb3_vpg.normalization import load_vec_normalize
from sb3_vpg.zoo.cli import main

pytestmark = LEAVES_FILES_OPEN
CHECKPOINTS = {name: next(old.FILES.glob(f"{name}_checkpoint_*_steps.zip")) for name in old.RUNS}


def algorithm(name: str) -> type[VPG | RandomSearch]:
    return RandomSearch if name == "random_search" else VPG


@pytest.mark.parametrize("name", old.MODELS)
def test_an_old_model_predicts_the_same_actions(name: str) -> None:
    """Processors round differently, so continuous actions are compared with a tolerance."""
    model = algorithm(name).load(old.FILES / f"{name}.zip", device="cpu")
    expected = json.loads((old.FILES / "actions.json").read_text())[name]
    actions, _ = model.predict(old.observations_of(name), deterministic=True)
    np.testing.assert_allclose(actions, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", old.MODELS)
def test_an_old_model_goes_on_learning(name: str) -> None:
    env: Any = DummyVecEnv([old.DictEnv] * 2) if name == "dict_episodes" else None
    if name == "normalized":
        env = load_vec_normalize(old.FILES / "normalized.zip", make_vec_env("Pendulum-v1", 2, seed=0))
        assert env.obs_rms.count > 1000
    model = algorithm(name).load(old.FILES / f"{name}.zip", env or gym.make("CartPole-v1"), device="cpu")
    before = model.num_timesteps
    assert before >= 1024
    model.learn(200, reset_num_timesteps=False)
    assert model.num_timesteps >= before + 200


@pytest.mark.parametrize("name", old.RUNS)
@pytest.mark.filterwarnings("ignore:training goes on, but perhaps not to the last bit:UserWarning")
def test_an_old_checkpoint_resumes_to_the_same_weights(name: str, tmp_path: Path) -> None:
    """They are close, but not bitwise equal: NumPy, which rounds otherwise, takes the policy's step since then."""
    shutil.copy(CHECKPOINTS[name], tmp_path / CHECKPOINTS[name].name.removeprefix(f"{name}_"))
    model = old.run(name, tmp_path)
    assert model.num_timesteps >= old.TOTAL
    expected = VPG.load(old.FILES / f"{name}_at_the_end.zip", device="cpu")
    assert model.num_timesteps == expected.num_timesteps
    found, wanted = model.get_parameters(), expected.get_parameters()
    assert found.keys() == wanted.keys()
    # The names of each optimiser's parameters, which the file does not hold
    assert found["policy.optimizer"].pop("split") == wanted["policy.optimizer"].pop("split")
    th.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_the_old_checkpoints_are_from_the_middle_of_a_run() -> None:
    """A run that started again would end with the same weights."""
    for name, path in CHECKPOINTS.items():
        steps = int(path.stem.split("_")[2])
        assert 200 < steps < old.TOTAL / 1.5, name


def test_an_old_repository_of_the_hub_plays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--env", "CartPole-v1", "-orga", "me", "--local-hub", str(old.FILES / "hub"), "-f", str(tmp_path)]
    assert main(["load_from_hub", *where]) == 0
    assert main(["evaluate", "--env", "CartPole-v1", "-f", str(tmp_path), "-n", "4", "--seed", "7"]) == 0
    results = json.loads((old.FILES / "hub/me/vpg-CartPole-v1/results.json").read_text())
    assert f"mean {results['mean_reward']:.1f}" in capsys.readouterr().out


# The budget of a trial is less than a rollout of some
@MAY_STAND_STILL
def test_an_old_study_goes_on(tmp_path: Path) -> None:
    study = Path(shutil.copy(old.FILES / "study.log", tmp_path))
    assert main([*old.optimize_flags(study, tmp_path / "logs", 3), "--verbose", "0"]) == 0
    storage = JournalStorage(JournalFileBackend(str(study)))
    trials = optuna.load_study(study_name="old", storage=storage).trials
    assert len(trials) > 2
    assert main(["best_entry", "--storage", str(study), "--study-name", "old", "-o", str(tmp_path / "best.yml")]) == 0


def test_an_old_comparison_goes_on(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(old.FILES / "comparison", tmp_path / "comparison"))
    before = (folder / RECORDS).read_text().splitlines()
    command = [sys.executable, "-m", "sb3_vpg", *old.compare_flags(folder, 2)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "2 runs, 1 of them finished before" in printed
    after = (folder / RECORDS).read_text().splitlines()
    assert after[:1] == before
    assert len(after) == 2
