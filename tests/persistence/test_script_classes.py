"""How another program loads a model with a class of the training script, or of a module that is not imported."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch as th
from holding import Holding, build

import sb3_vpg
from sb3_vpg import VPG
from sb3_vpg.exceptions import RefusedFileError
from sb3_vpg.persistence.archives import read_archive, write_archive
from sb3_vpg.persistence.class_names import class_name

TRAIN = """
import sys
from torch import nn
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from sb3_vpg import VPG
from sb3_vpg.checkpoints import TrainingCheckpoint

class MyNet(BaseFeaturesExtractor):
    def __init__(self, space):
        super().__init__(space, 8)
        self.net = nn.Linear(4, 8)

    def forward(self, observations):
        return self.net(observations)

class Stop(BaseCallback):
    def _on_step(self):
        if "kill" in sys.argv and self.num_timesteps == 150:
            sys.exit(3)
        return True

if __name__ == "__main__":
    model = VPG("MlpPolicy", "CartPole-v1", n_steps=64, seed=0, device="cpu",
                policy_kwargs={"features_extractor_class": MyNet})
    callbacks = [Stop(), TrainingCheckpoint("run", 64)] if "checkpoints" in sys.argv else Stop()
    model.learn(256, callbacks)
    model.save(sys.argv[1])
"""
PLAY = """
import sys
from sb3_vpg import VPG

def load(**kwargs):
    try:
        model = VPG.load("whole", device="cpu", **kwargs)
        print(float(model.policy.value_net.weight.sum()))
    except ValueError as error:
        print(type(error).__name__, error)

load()
import train
load(custom_objects={"policy_kwargs": {"features_extractor_class": train.MyNet}})
MyNet = 5
load()
from train import MyNet
load()
"""


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both scripts, after the training script has run."""
    folder = tmp_path_factory.mktemp("scripts")
    (folder / "train.py").write_text(TRAIN)
    (folder / "play.py").write_text(PLAY)
    warned = run_script(folder, "train.py", "whole").stderr
    assert warned.count("policy_kwargs names __main__:MyNet, a class of this script") == 2, "by learn() and by save()"
    return folder


def run_script(folder: Path, script: str, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(sb3_vpg.__file__).parents[1])}
    command = [sys.executable, script, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == code, done.stderr
    return done


def test_another_script_imports_or_replaces_a_class_of_the_training_script(scripts):
    """The refusal names both ways, and each works."""
    refused, replaced, another, imported = run_script(scripts, "play.py").stdout.splitlines()
    for line in (refused, another):
        assert "RefusedFileError" in line
        assert "policy_kwargs: the file names the class __main__:MyNet, of the script that saved it: import MyNet into" in line
        assert "or pass custom_objects={'policy_kwargs': ...}; refused" in line
    assert float(replaced) == float(imported)


def test_killed_script_resumes_a_model_with_a_class_of_that_script(scripts):
    run_script(scripts, "train.py", "resumed", "checkpoints", "kill", code=3)
    assert "Taking up training after" in run_script(scripts, "train.py", "resumed", "checkpoints").stdout
    members = [read_archive(scripts / name) for name in ("whole", "resumed")]
    states = [th.load(io.BytesIO(one["policy.pth"]), weights_only=True) for one in members]
    th.testing.assert_close(states[0], states[1], rtol=0, atol=0)


def test_class_of_a_module_that_is_not_imported_names_the_module(model_path):
    build().save(model_path)
    members = read_archive(model_path)
    members["data"] = members["data"].replace(class_name(Holding).encode(), b"nets.mine:Holding")
    model_path.write_bytes(write_archive(members))
    with pytest.raises(RefusedFileError, match=r"nets\.mine:Holding, .*import its module first .*--gym-packages nets\.mine"):
        VPG.load(model_path)
    assert "nets" not in sys.modules
