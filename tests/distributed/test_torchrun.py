"""The launcher itself, and a program without it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sb3_vpg import VPG

_PLAIN = """
import sys
import torch
from sb3_vpg import VPG
from sb3_vpg.checkpoints import TrainingCheckpoint

VPG("MlpPolicy", "CartPole-v1", n_steps=64, device="cpu").learn(128, TrainingCheckpoint("run"))
print([name for name in sys.modules if name.startswith("sb3_vpg.distributed")], torch.distributed.is_initialized())
"""


def test_nothing_of_this_without_torchrun(tmp_path: Path) -> None:
    """A plain run imports none of our modules for several processes, and makes no process group."""
    done = subprocess.run([sys.executable, "-c", _PLAIN], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[] False"


@pytest.mark.processes
def test_torchrun_restarts_after_a_kill(tmp_path: Path) -> None:
    """``torchrun --max-restarts 1``: the second process kills itself once; the run goes on, and ends with exit code 0."""
    (tmp_path / "accident.py").write_text(
        "import os, signal\n"
        "from stable_baselines3.common.callbacks import BaseCallback\n"
        "class Once(BaseCallback):\n"
        "    def _on_step(self):\n"
        "        if self.num_timesteps >= 3000 and os.environ['RANK'] + os.environ['TORCHELASTIC_RESTART_COUNT'] == '10':\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
        "        return True\n"
    )
    command = [
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "--max-restarts",
        "1",
        "-m",
        "sb3_vpg",
        "train",
    ]
    flags = ["--env", "CartPole-v1", "-n", "6000", "--seed", "1", "--eval-freq", "-1", "--checkpoint-freq", "1000"]
    path = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [sys.executable, "-m", *command, *flags, "-params", "callback:'accident.Once'"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "ProcessLostError: process 1 of 2" in done.stderr
    assert "Taking up training after" in done.stdout
    runs = list((tmp_path / "logs/vpg").iterdir())
    assert [run.name for run in runs] == ["CartPole-v1_1"]
    assert VPG.load(runs[0] / "CartPole-v1.zip").num_timesteps >= 6000
