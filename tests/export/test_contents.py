"""What a file says of itself, and how it plays."""

import copy
import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import onnx
import pytest
import torch as th
from gymnasium import spaces
from helpers import CONTINUOUS, RandomEnv, make_model, make_recurrent_model
from masked_envs import make_maskable, masked_envs
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

import sb3_vpg
from sb3_vpg.export import OnnxPlayer, export
from sb3_vpg.export.metadata import space_as_json
from sb3_vpg.version import __version__

EXPECTED = {
    "environment": {"id": "Pendulum-v1"},
    "algorithm": "VPG",
    "policy": "MlpPolicy",
    "normalization": "of VecNormalize, inside the file",
    "stochastic": True,
    "num_timesteps": 0,
    "n_checked": 3,
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A stochastic agent of Pendulum-v1 in both formats."""
    folder = tmp_path_factory.mktemp("files")
    env = VecNormalize(DummyVecEnv([lambda: gym.make("Pendulum-v1")]))
    model = make_model(env=env)
    return {
        format: export(model, folder / f"agent.{format}", format=format, stochastic=True, n_checked=3)
        for format in ("onnx", "torch")
    }


def read_metadata(files: dict[str, Path], format: str) -> dict[str, str]:
    if format == "onnx":
        return {entry.key: entry.value for entry in onnx.load(files["onnx"]).metadata_props}
    extra = {"metadata.json": ""}
    th.export.load(files["torch"], extra_files=extra)
    return json.loads(extra["metadata.json"])


@pytest.mark.parametrize("format", ["onnx", "torch"])
def test_metadata(files: dict[str, Path], format: str) -> None:
    metadata = {name: json.loads(text) for name, text in read_metadata(files, format).items()}
    assert {name: metadata[name] for name in EXPECTED} == EXPECTED
    assert metadata["versions"]["sb3-vpg"] == __version__
    assert metadata["observation_space"] == {
        "type": "Box", "shape": [3], "dtype": "float32", "low": [-1.0, -1.0, -8.0], "high": [1.0, 1.0, 8.0]
    }  # fmt: skip
    assert metadata["action_space"] == {"type": "Box", "shape": [1], "dtype": "float32", "low": -2.0, "high": 2.0}
    assert metadata["inputs"]["noise"] == {"dtype": "float32", "shape": ["n", 1], "is": "independent, standard normal"}
    assert metadata["inputs"]["observation"]["shape"] == ["n", 3]
    assert list(metadata["outputs"]) == ["action"]


def test_the_file_is_valid_and_names_no_file_of_this_machine(files: dict[str, Path]) -> None:
    """torch notes the lines of code that made each operation."""
    onnx.checker.check_model(files["onnx"], full_check=True)
    folder = str(Path(sb3_vpg.__file__).parent).encode()
    for file in files.values():
        assert folder not in file.read_bytes()


def test_spaces_in_plain_values() -> None:
    """JSON has no infinity."""
    space = spaces.Dict(
        {
            "box": spaces.Box(np.array([-np.inf, 0], np.float32), np.array([1, np.inf], np.float32)),
            "free": spaces.Box(-np.inf, np.inf, (2,)),
            "bits": spaces.MultiBinary(3),
            "choices": spaces.MultiDiscrete([2, 3]),
        }
    )
    assert json.loads(json.dumps(space_as_json(space)))["spaces"] == {
        "box": {"type": "Box", "shape": [2], "dtype": "float32", "low": [None, 0.0], "high": [1.0, None]},
        "free": {"type": "Box", "shape": [2], "dtype": "float32", "low": None, "high": None},
        "bits": {"type": "MultiBinary", "shape": [3], "dtype": "int8"},
        "choices": {"type": "MultiDiscrete", "shape": [2], "dtype": "int64", "nvec": [2, 3]},
    }


def test_the_player_plays_whole_episodes_as_the_model(tmp_path: Path) -> None:
    """An agent that remembers gets the same returns in SB3's evaluation."""

    def score(player: Any) -> Any:
        env = DummyVecEnv([lambda: gym.make("CartPole-v1")] * 3)
        env.seed(0)
        return evaluate_policy(player, env, 6, return_episode_rewards=True, warn=False)[0]

    model = make_recurrent_model(env=gym.make("CartPole-v1"), policy_kwargs={"ortho_init": False})
    model.learn(256)
    assert score(OnnxPlayer(export(model, tmp_path / "agent.onnx", n_checked=3))) == score(model)


def test_the_player_takes_masks_and_draws_noise(tmp_path: Path) -> None:
    """Forbidden actions are never sampled, and a seed repeats the samples."""
    model = make_maskable(env=masked_envs(action_space=spaces.Discrete(5)))
    file = export(model, tmp_path / "agent.onnx", stochastic=True, n_checked=3)
    observations, masks = np.zeros((500, 3), np.float32), np.tile([True, False, True, False, True], (500, 1))
    actions, state = OnnxPlayer(file).predict(observations, action_masks=masks)
    assert state is None
    assert set(actions) == {0, 2, 4}
    repeated, other = (OnnxPlayer(file, seed).predict(observations, action_masks=masks)[0] for seed in (0, 1))
    assert (repeated == actions).all()
    assert (other != actions).any()
    assert set(OnnxPlayer(file).predict(observations)[0]) == {0, 1, 2, 3, 4}


def test_a_model_on_another_environment_than_its_own(tmp_path: Path) -> None:
    """The observations of the file are those of the environment that is given; the model's own is not stepped."""
    model = make_model(env=RandomEnv(action_space=CONTINUOUS))
    steps = model.get_env().get_attr("steps")
    assert export(model, tmp_path / "agent.pt2", RandomEnv(action_space=CONTINUOUS), format="torch", n_checked=9).is_file()
    assert model.get_env().get_attr("steps") == steps


def test_any_key_of_a_dict_may_name_an_input(tmp_path: Path) -> None:
    """Also names that torch gives to operations, of which a file may have only one each."""
    keys = ("view", "linear", "cat", "tanh", "clamp", "permute")
    space = spaces.Dict(dict.fromkeys(keys, spaces.Box(-1, 1, (2,))))
    model = make_model("MultiInputPolicy", env=RandomEnv(space, CONTINUOUS))
    file = export(model, tmp_path / "agent.onnx", n_checked=9)
    assert set(OnnxPlayer(file).metadata["inputs"]) == set(keys)


def test_the_check_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    """The policy can be copied and is in the same mode, and the next learn() does not go on in the middle of an episode."""
    model = make_model(env=RandomEnv(action_space=CONTINUOUS))
    model.learn(64)
    for n_checked in (0, 9):
        model.policy.set_training_mode(True)
        export(model, tmp_path / "agent.pt2", format="torch", n_checked=n_checked)
        assert model.policy.training
        copy.deepcopy(model.policy)
    assert model._last_obs is None
    model.learn(64, reset_num_timesteps=False)


@pytest.mark.parametrize(
    "change",
    [
        {"environment": "null"},
        {"environment": '{"id": ["CartPole-v1"]}'},
        {"environment": '{"id": "CartPole-v1", "kwargs": "x"}'},
        {"environment": '{"id": "CartPole-v1", "kwargs": {"id": "Pendulum-v1"}}'},
        {"inputs": '{"other": {"dtype": "float32", "shape": ["n", 3], "is": ""}}'},
        {"outputs": '{"other": {"dtype": "float32", "shape": ["n", 3], "is": ""}}'},
        {"observation_space": None},
    ],
)
def test_metadata_of_another_file_are_refused(tmp_path: Path, change: dict[str, str | None]) -> None:
    file = export(make_model(env=RandomEnv(action_space=CONTINUOUS)), tmp_path / "agent.onnx", n_checked=0)
    model = onnx.load(file)
    changed = {entry.key: entry.value for entry in model.metadata_props} | change
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {name: text for name, text in changed.items() if text is not None})
    onnx.save(model, file)
    with pytest.raises(ValueError, match=r"agent.onnx is no ONNX file that sb3_vpg.export has written"):
        OnnxPlayer(file)
