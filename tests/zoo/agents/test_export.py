"""``sb3-vpg export`` writes the agent of a run, and ``enjoy --onnx`` plays the file."""

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch as th
import yaml
from hub_repositories import LEAVES_FILES_OPEN
from stable_baselines3.common.env_util import make_vec_env

from sb3_vpg import VPG
from sb3_vpg.export import export
from sb3_vpg.normalization import load_vec_normalize
from sb3_vpg.version import __version__
from sb3_vpg.zoo.agents import export_run as export_runs
from sb3_vpg.zoo.agents import onnx_play
from sb3_vpg.zoo.agents.trained_agents import agents_in
from sb3_vpg.zoo.cli import main
from sb3_vpg.zoo.package_data import shipped_folder
from sb3_vpg.zoo.safe_yaml import read_yaml

pytestmark = LEAVES_FILES_OPEN
TRAIN = ["train", "--env", "CartPole-v1", "-n", "600", "--eval-freq", "-1", "--verbose", "0", "--seed", "4"]


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short run with normalised observations, whose episodes have various lengths."""
    folder = tmp_path_factory.mktemp("export") / "logs"
    assert main([*TRAIN, "-params", "normalize:True", "-f", str(folder)]) == 0
    return folder


@pytest.fixture
def file(logs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The ONNX file of the run, in the current folder."""
    monkeypatch.chdir(tmp_path)
    assert main(["export", "--env", "CartPole-v1", "-f", str(logs), "-n", "40"]) == 0
    return tmp_path / "vpg-CartPole-v1.onnx"


def test_enjoy_plays_the_same_episodes(file: Path, logs: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The file plays raw observations, the run with its VecNormalize."""
    flags = ["--no-render", "-n", "700", "--seed", "3"]
    episodes = []
    for command in (["enjoy", "--onnx", str(file)], ["enjoy", "--env", "CartPole-v1", "-f", str(logs)]):
        assert main([*command, *flags]) == 0
        episodes.append(re.findall(r"Episode .*|Mean reward.*", capfd.readouterr().out))
    assert episodes[0] == episodes[1]
    assert len(episodes[0]) > 6, "three episodes, and their mean"
    assert main(["enjoy", "--onnx", str(file), "--vec-env", "native", "--n-envs", "4", *flags]) == 0
    assert "Mean reward" in capfd.readouterr().out


def test_the_file_names_its_run(file: Path) -> None:
    metadata = {entry.key: json.loads(entry.value) for entry in onnx.load(file).metadata_props}
    assert metadata["environment"] == {"id": "CartPole-v1", "kwargs": {}, "wrappers": []}
    assert metadata["versions"]["sb3-vpg"] == __version__
    assert metadata["normalization"] == "of VecNormalize, inside the file"
    assert metadata["num_timesteps"] >= 600


def test_enjoy_refuses_another_environment(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["enjoy", "--onnx", str(file), "--env", "Pendulum-v1", "--no-render"]) == 1
    message = "observation space of .* but that of Pendulum-v1 is .* name its environment, CartPole-v1"
    assert re.search(message, capsys.readouterr().err)
    assert main(["enjoy", "--onnx", "none.onnx"]) == 1
    assert "there is no file none.onnx" in capsys.readouterr().err


def test_arguments_of_the_environment_are_those_of_the_file(
    logs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Flags replace them, and a path is refused, because the file may be of someone else."""
    made: list[dict[str, Any]] = []
    create = onnx_play.create_test_env
    monkeypatch.setattr(onnx_play, "create_test_env", lambda *args, **kwargs: made.append(kwargs) or create(*args, **kwargs))
    shutil.copytree(logs, tmp_path / "logs")
    settings = tmp_path / "logs/vpg/CartPole-v1_1/CartPole-v1/args.yml"
    play = ["enjoy", "--onnx", str(tmp_path / "agent.onnx"), "--no-render", "-n", "3"]
    for kwargs, code in (({"sutton_barto_reward": True}, 0), ({"render_mode": "a/b"}, 1)):
        settings.write_text(yaml.safe_dump({**read_yaml(settings), "env_kwargs": kwargs}))
        environment = export_runs._environment("CartPole-v1", settings.parents[1] / "CartPole-v1.zip")
        model = VPG.load(settings.parents[1] / "CartPole-v1.zip", device="cpu")
        env = load_vec_normalize(settings.parents[1] / "CartPole-v1.zip", make_vec_env("CartPole-v1"))
        export(model, tmp_path / "agent.onnx", env, n_checked=0, environment=environment)
        assert main(play) == code
    assert "render_mode is 'a/b': neither" in capsys.readouterr().err
    assert main([*play, "--env-kwargs", "render_mode:None"]) == 0
    assert [kwargs["env_kwargs"] for kwargs in made] == [{"sutton_barto_reward": True}, {"render_mode": None}]


def test_a_program_of_torch_of_an_agent_that_ships(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent with a run is not needed, nor is onnxruntime."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert main(["export", "--env", "FrozenLake-v1", "--format", "torch", "--stochastic", "-n", "20", "-o", "lake.pt2"]) == 0
    program = th.export.load("lake.pt2").module()
    actions = program({"observation": th.arange(16), "noise": th.full((16, 4), 0.5)})["action"]
    assert actions.shape == (16,)


BAD = {
    "no_agent": (["--env", "Nope-v0"], "no run of vpg on Nope-v0"),
    "no_run": (["--env", "CartPole-v1", "--exp-id", "7"], "no --exp-id 7"),
    "gsde": (["--env", "MountainCarContinuous-v0", "--stochastic", "--format", "torch"], "gSDE"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    flags, message = BAD[name]
    assert main(["export", *flags]) == 1
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_missing_extra_comes_first(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The agent is not loaded before."""
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert main(["export", "--env", "CartPole-v1"]) == 1
    assert "pip install 'sb3-vpg[export]'" in capsys.readouterr().err


def test_stacked_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """They are refused, with what to do instead."""
    monkeypatch.chdir(tmp_path)
    assert main([*TRAIN, "-params", "frame_stack:2"]) == 0
    assert main(["export", "--env", "CartPole-v1"]) == 1
    assert "FrameStackObservation" in capsys.readouterr().err


# Old versions of environments warn, and so does Box2D, whose import crashes Python if warnings are errors
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.export
@pytest.mark.parametrize("agent", agents_in(shipped_folder()), ids=lambda agent: agent.env_id)
def test_every_agent_that_ships(agent: Any, tmp_path: Path) -> None:
    """Each acts as its file does on 1,000 observations."""
    folder = str(agent.run.parents[1])
    assert export_runs.export_run(folder, agent.algo, agent.env_id, tmp_path / "agent.onnx").is_file()
