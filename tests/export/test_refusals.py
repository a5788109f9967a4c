"""What cannot be exported is refused with the reason, and then no file is written."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from helpers import CONTINUOUS, DICT, VECTOR, LinearExtractor, RandomEnv, make_model, vector_env
from stable_baselines3 import A2C
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnvWrapper, VecFrameStack, VecNormalize

from sb3_vpg import VPG, RandomSearch
from sb3_vpg.exceptions import ExportError
from sb3_vpg.export import OnnxPlayer, export
from sb3_vpg.normalization import load_vec_normalize


class BranchingExtractor(LinearExtractor):
    """Computes something else for some observations, with a branch of Python."""

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return super().forward(observations if observations.sum() > 0 else -observations)


class ZetaExtractor(LinearExtractor):
    """Uses an operation that torch exports, but that ONNX does not have."""

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return super().forward(th.special.zeta(observations.abs() + 2, 1))


class ContraryPolicy(ActorCriticPolicy):
    """``predict`` does something else than the networks say, for observations whose first entry is above 0.5."""

    def predict(self, observation: Any, *args: Any, **kwargs: Any) -> Any:
        actions, state = super().predict(observation, *args, **kwargs)
        return np.where(np.asarray(observation)[:, 0] > 0.5, 2 - actions, actions), state


class Doubling(VecEnvWrapper):
    """A wrapper of a user that changes observations."""

    def reset(self) -> Any:
        return 2 * self.venv.reset()

    def step_wait(self) -> Any:
        observations, *others = self.venv.step_wait()
        return (2 * observations, *others)


def test_a_policy_that_torch_cannot_export(tmp_path: Path) -> None:
    """The error names the policy, its extractor and torch's reason."""
    model = make_model(policy_kwargs={"features_extractor_class": BranchingExtractor})
    with pytest.raises(ExportError, match=r"torch cannot export MlpPolicy with BranchingExtractor: .*data-dependent"):
        export(model, tmp_path / "agent.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_policy_with_an_operation_that_onnx_does_not_have(tmp_path: Path) -> None:
    model = make_model(policy_kwargs={"features_extractor_class": ZetaExtractor})
    with pytest.raises(ExportError, match=r"torch cannot export MlpPolicy with ZetaExtractor: .*zeta"):
        export(model, tmp_path / "agent.onnx")
    assert list(tmp_path.iterdir()) == []
    export(model, tmp_path / "agent.pt2", format="torch", n_checked=20)


@pytest.mark.parametrize("format", ["onnx", "torch"])
def test_a_file_that_differs_from_predict_is_not_left(format: str, tmp_path: Path) -> None:
    """The error names an observation for which they differ, and a file of an earlier export stays as it was."""
    file = tmp_path / "agent"
    file.write_bytes(b"old")
    model = make_model(ContraryPolicy, vector_env(2), policy_kwargs={"ortho_init": False})
    with pytest.raises(ExportError, match=r"of 200 observations, number \d+ differs most.*observation': \[\[0\.[5-9]"):
        export(model, file, format=format, n_checked=200)
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_small_difference_of_a_continuous_action_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """2e-5 of the range of the actions is too much."""
    model: Any = make_model(env=RandomEnv(VECTOR, CONTINUOUS))
    predict = model.predict
    monkeypatch.setattr(model, "predict", lambda *args, **kwargs: (predict(*args, **kwargs)[0] + 4e-5, None))
    with pytest.raises(ExportError, match="does not act as the model"):
        export(model, tmp_path / "agent.pt2", format="torch", n_checked=2)
    monkeypatch.setattr(model, "predict", lambda *args, **kwargs: (predict(*args, **kwargs)[0] + 1e-5, None))
    export(model, tmp_path / "agent.pt2", format="torch", n_checked=2)


def test_two_equally_likely_actions_are_as_good_as_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A zero network gives all actions the same probability, so that the file may choose another one."""
    model: Any = make_model()
    with th.no_grad():
        model.policy.action_net.weight.zero_()
    predict = model.predict
    monkeypatch.setattr(model, "predict", lambda *args, **kwargs: (predict(*args, **kwargs)[0] + 1, None))
    export(model, tmp_path / "agent.pt2", format="torch", n_checked=2)


REFUSED = {
    "gsde": (lambda: make_model(env=RandomEnv(VECTOR, CONTINUOUS), use_sde=True), {"stochastic": True}, "gSDE"),
    "search": (lambda: RandomSearch("LinearPolicy", RandomEnv()), {"stochastic": True}, "does not sample"),
    "frames": (lambda: make_model(env=VecFrameStack(vector_env(1), 2)), {}, "FrameStackObservation"),
    "wrapper": (lambda: make_model(env=Doubling(vector_env(1))), {}, "has a Doubling"),
    "format": (make_model, {"format": "tflite"}, "onnx, torch, but is 'tflite'"),
    "count": (make_model, {"n_checked": -1}, "n_checked"),
    "a2c": (lambda: A2C("MlpPolicy", RandomEnv(), device="cpu"), {}, "is a A2C.*guide/export"),
    "other_env": (make_model, {"env": RandomEnv(DICT)}, "do not fit|takes observations in"),
    "no_statistics": (lambda: make_model(env=VecNormalize(vector_env(1))), {"env": RandomEnv()}, "no VecNormalize"),
    "key": (lambda: make_model("MultiInputPolicy", RandomEnv(spaces.Dict({"noise": VECTOR}))), {}, "key 'noise'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name: str, tmp_path: Path) -> None:
    make, arguments, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        export(make(), tmp_path / "agent.onnx", **arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_model_without_environment(tmp_path: Path) -> None:
    """It is exported with the environment that is given."""
    make_model().save(tmp_path / "model.zip")
    model = VPG.load(tmp_path / "model.zip")
    with pytest.raises(ValueError, match=r"no environment.*env="):
        export(model, tmp_path / "agent.pt2", format="torch")
    assert export(model, tmp_path / "agent.pt2", RandomEnv(), format="torch", n_checked=3).is_file()


def test_a_missing_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its packages, programs of torch can still be written."""
    for name in ("onnxscript", "onnxruntime"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ValueError, match=r"need onnxscript, onnxruntime, .*pip install 'sb3-vpg\[export\]'"):
        export(make_model(), tmp_path / "agent.onnx")
    with pytest.raises(ValueError, match=r"pip install 'sb3-vpg\[export\]'"):
        OnnxPlayer(tmp_path / "agent.onnx")
    monkeypatch.undo()
    with pytest.raises(FileNotFoundError):
        OnnxPlayer(tmp_path / "agent.onnx")
    (tmp_path / "agent.onnx").write_bytes(b"no model")
    with pytest.raises(ValueError, match=r"agent.onnx is no ONNX file that sb3_vpg.export has written"):
        OnnxPlayer(tmp_path / "agent.onnx")


@pytest.mark.parametrize("is_named", [False, True])
def test_learning_goes_on_with_new_episodes(is_named: bool, tmp_path: Path) -> None:
    """The check has moved the environment, so that the model's last observation is not the environment's."""
    model = make_model(env=vector_env(2))
    model.learn(32)
    export(model, tmp_path / "agent.pt2", model.get_env() if is_named else None, format="torch", n_checked=7)
    starts = model.get_env().get_attr("episodes")
    model.learn(32, reset_num_timesteps=False)
    assert model.num_timesteps == 64
    assert min(model.get_env().get_attr("episodes")) > max(starts)


def test_statistics_of_the_models_file_must_be_there(tmp_path: Path) -> None:
    """A model from a file does not know its VecNormalize, but the file has the statistics."""
    VPG("MlpPolicy", VecNormalize(DummyVecEnv([RandomEnv]))).save(tmp_path / "model.zip")
    model = VPG.load(tmp_path / "model.zip")
    with pytest.raises(ValueError, match=r"normalised observations.*load_vec_normalize"):
        export(model, tmp_path / "agent.pt2", RandomEnv(), format="torch")
    env = load_vec_normalize(tmp_path / "model.zip", DummyVecEnv([RandomEnv]))
    assert export(model, tmp_path / "agent.pt2", env, format="torch", n_checked=3).is_file()


def test_a_suffix_of_the_other_format(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"suffix is \.onnx, but the file is .*agent\.pt2"):
        export(make_model(), tmp_path / "agent.pt2")
