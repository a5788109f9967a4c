"""Training is recorded by TensorBoard and Weights & Biases, and shown by a progress bar."""

import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sb3_vpg.zoo.cli import main

TRAIN = ["train", "--env", "CartPole-v1", "-n", "1100", "--verbose", "0", "--eval-freq", "-1", "--num-threads", "1"]
OURS = {"train/policy_gradient_loss", "train/value_loss", "train/vf_learning_rate", "train/gradient_snr", "train/approx_kl"}
KEYS = OURS | {"rollout/ep_rew_mean", "train/explained_variance", "train/grad_norm", "time/fps"}


def test_tensorboard_gets_the_log(tmp_path: Path) -> None:
    flags = ["-tb", str(tmp_path / "tb"), "--log-interval", "1", "-f", str(tmp_path / "logs")]
    assert main([*TRAIN, *flags, "-params", "vf_learning_rate:0.0025"]) == 0
    events = EventAccumulator(str(tmp_path / "tb/CartPole-v1/VPG_1")).Reload()
    assert set(events.Tags()["scalars"]) >= KEYS
    assert {round(event.value, 7) for event in events.Scalars("train/vf_learning_rate")} == {0.0025}
    assert [event.step for event in events.Scalars("rollout/ep_rew_mean")] == [256, 512, 768, 1024, 1280]


def records(file: Path) -> Iterator[Any]:
    """:return: the records in a file of wandb, which has LevelDB's log format"""
    from wandb.proto.wandb_internal_pb2 import Record

    data, position, parts, block, header = file.read_bytes(), 7, b"", 32768, struct.Struct("<IHB")
    while position + header.size <= len(data):
        left = block - position % block
        if left < header.size:
            position += left
            continue
        _, length, kind = header.unpack_from(data, position)
        position += header.size
        parts += data[position : position + length]
        position += length
        # A whole record, or the last part of one
        if kind in (1, 4):
            yield Record.FromString(parts)
            parts = b""


def items(things: Any) -> dict[str, Any]:
    return {thing.key or "/".join(thing.nested_key): json.loads(thing.value_json) for thing in things}


@pytest.mark.expensive
@pytest.mark.skipif(find_spec("wandb") is None, reason="wandb is not installed: pip install wandb")
def test_weights_and_biases_offline(tmp_path: Path) -> None:
    """wandb records hyperparameters and metrics, and leaves no process alive. It patches libraries, hence the new process."""
    environ = {**os.environ, "WANDB_MODE": "offline", "WANDB_X_DISABLE_STATS": "true", "WANDB_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "sb3_vpg", *TRAIN, "--track", "--wandb-project-name", "mine", "--log-interval", "1"]
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    config: dict[str, Any] = {}
    metrics: set[str] = set()
    for record in records(next(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))):
        config |= items(record.run.config.update) | items(record.config.update)
        metrics |= items(record.history.item).keys()
        assert record.run.project in ("", "mine")
    assert config["algo"] == "vpg"
    assert config["saved_hyperparams"]["n_critic_updates"] == 24
    assert metrics >= KEYS


def test_without_wandb_one_line_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert main([*TRAIN, "--track", "-f", str(tmp_path / "logs")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "pip install wandb" in line
    assert not (tmp_path / "logs").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")
def test_the_progress_bar_restores_the_terminal(tmp_path: Path) -> None:
    """The progress bar reaches its end on one line, and then shows the cursor that it has hidden."""
    terminal, theirs = os.openpty()
    command = [sys.executable, "-m", "sb3_vpg", *TRAIN, "--progress", "-f", str(tmp_path)]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env={**os.environ, "TERM": "xterm"}) as process:
        os.close(theirs)
        shown = b""
        # Linux ends a terminal without users with an error
        try:
            while part := os.read(terminal, 4096):
                shown += part
        except OSError:
            pass
        os.close(terminal)
    text = shown.decode()
    assert process.returncode == 0, text
    assert "100%" in text
    assert "1,280/1,100" in text
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1
    after = text.rpartition("\x1b[?25h")[2]
    assert "Saving to" in after
    assert "\x1b" not in after
    assert "warning" not in text.lower()
