"""An exported file acts as ``predict`` does, in all spaces and with all policies, for batches of any size."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch as th
from gymnasium import spaces
from helpers import CONTINUOUS, DICT, DISCRETE, IMAGE, VECTOR, LinearExtractor, RandomEnv, make_model, make_recurrent_model
from masked_envs import ACTION_SPACES, make_maskable, masked_envs
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_vpg import RandomSearch
from sb3_vpg.export import export
from sb3_vpg.vec_env.action_masks import mask_sizes

ASYMMETRIC = spaces.Box(np.array([-2.0, 0.0], np.float32), np.array([0.5, 8.0], np.float32))
SPACES = {
    "box": (VECTOR, CONTINUOUS),
    "box_2d": (spaces.Box(-1.0, 1.0, (2, 3), np.float32), spaces.Box(-1.0, 1.0, (2, 3), np.float32)),
    "box_float64": (spaces.Box(-9.0, 9.0, (3,), np.float64), spaces.Box(-1.0, 1.0, (2,), np.float64)),
    "box_integer": (spaces.Box(0, 9, (4,), np.int64), spaces.MultiDiscrete([2, 3])),
    "discrete": (spaces.Discrete(4), DISCRETE),
    "multi_discrete": (spaces.MultiDiscrete([2, 3]), spaces.MultiBinary(3)),
    "multi_binary": (spaces.MultiBinary([2, 2]), spaces.MultiDiscrete([4])),
    "dict": (DICT, spaces.MultiBinary(2)),
    "image": (IMAGE, DISCRETE),
    "image_channel_first": (spaces.Box(0, 255, (3, 36, 36), np.uint8), ASYMMETRIC),
}

LONG_TORCH = pytest.param("torch", marks=pytest.mark.export)
"""The same graph in the other format, of which a few tests are in ``make test``."""


def play_onnx(file: Path, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(file.read_bytes())
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(inputs)), strict=True))


def play_torch(file: Path, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    outputs = th.export.load(file).module()({name: th.as_tensor(value) for name, value in inputs.items()})
    return {name: value.detach().numpy() for name, value in outputs.items()}


def raw_observations(model: BaseAlgorithm, n: int) -> Any:
    """:return: n observations as the environment itself would return them"""
    space: Any = model.get_env().unwrapped.observation_space
    space.seed(n)
    samples = [space.sample() for _ in range(n)]
    if isinstance(space, spaces.Dict):
        return {key: np.stack([sample[key] for sample in samples]) for key in space.spaces}
    return np.stack(samples)


def named(observations: Any) -> dict[str, np.ndarray]:
    return observations if isinstance(observations, dict) else {"observation": observations}


def assert_same(model: Any, file: Path, play: Any = play_onnx) -> None:
    """The file returns what ``predict`` returns for the observations that the wrappers make of raw ones."""
    for n in (1, 4):
        raw = raw_observations(model, n)
        normalizer = model.get_vec_normalize_env()
        seen = raw if normalizer is None else normalizer.normalize_obs(raw)
        expected, _ = model.predict(seen, deterministic=True)
        actions = play(file, named(raw))["action"]
        assert actions.shape == (n, *model.action_space.shape)
        is_box = isinstance(model.action_space, spaces.Box)
        tolerance = 1e-5 * (model.action_space.high - model.action_space.low).min() if is_box else 0
        np.testing.assert_allclose(actions, expected, rtol=0, atol=tolerance)
        assert all(model.action_space.contains(action) for action in actions)


@pytest.mark.parametrize("name", SPACES)
def test_every_space_of_observations_and_actions(name: str, tmp_path: Path) -> None:
    """Images are given as the environment returns them, with the channels last or first."""
    observation_space, action_space = SPACES[name]
    policy = "CnnPolicy" if name.startswith("image") else "MultiInputPolicy" if name == "dict" else "MlpPolicy"
    model = make_model(policy, RandomEnv(observation_space, action_space), policy_kwargs={"ortho_init": False})
    assert_same(model, export(model, tmp_path / "agent.onnx", n_checked=3))


@pytest.mark.export
@pytest.mark.parametrize("action_space", [space for _, space in SPACES.values()], ids=str)
@pytest.mark.parametrize("name", SPACES)
def test_every_pair_of_spaces(name: str, action_space: spaces.Space[Any], tmp_path: Path) -> None:
    policy = "CnnPolicy" if name.startswith("image") else "MultiInputPolicy" if name == "dict" else "MlpPolicy"
    model = make_model(policy, RandomEnv(SPACES[name][0], action_space), policy_kwargs={"ortho_init": False})
    assert_same(model, export(model, tmp_path / "agent.onnx", n_checked=100))


def other_policies(name: str) -> Any:
    """:return: a model whose policy is not one of SB3's for this space"""
    if name == "linear":
        return make_model("LinearPolicy", RandomEnv(VECTOR, ASYMMETRIC), policy_kwargs={"net_arch": None})
    if name == "custom_extractor":
        return make_model(policy_kwargs={"features_extractor_class": LinearExtractor, "ortho_init": False})
    if name == "squashed_gsde":
        return make_model(env=RandomEnv(VECTOR, ASYMMETRIC), use_sde=True, policy_kwargs={"squash_output": True})
    if name == "random_search_box":
        return RandomSearch("LinearPolicy", RandomEnv(VECTOR, ASYMMETRIC), seed=0)
    return RandomSearch("LinearPolicy", RandomEnv(DICT, spaces.Discrete(3, start=2)), seed=0)


@pytest.mark.parametrize(
    "name", ["linear", "custom_extractor", "squashed_gsde", "random_search_box", "random_search_discrete"]
)
def test_every_policy(name: str, tmp_path: Path) -> None:
    model = other_policies(name)
    assert_same(model, export(model, tmp_path / "agent.onnx", n_checked=3))


@pytest.mark.parametrize("format", ["onnx", "torch"])
def test_the_statistics_of_vec_normalize_are_inside(format: str, tmp_path: Path) -> None:
    """Only the keys of ``norm_obs_keys`` are normalised; large observations need 64 bits."""
    space = spaces.Dict({"far": spaces.Box(1e6, 1e6 + 3, (3,), np.float32), "near": VECTOR, "image": IMAGE})
    env = VecNormalize(DummyVecEnv([lambda: RandomEnv(space, CONTINUOUS)] * 2), norm_obs_keys=["far"])
    model = make_model("MultiInputPolicy", env, policy_kwargs={"ortho_init": False})
    model.learn(64)
    before = env.obs_rms["far"].count
    file = export(model, tmp_path / "agent", format=format, n_checked=3)
    assert env.obs_rms["far"].count == before
    assert_same(model, file, play_onnx if format == "onnx" else play_torch)


@pytest.mark.parametrize("format", ["onnx", LONG_TORCH])
def test_masks_are_an_input(format: str, tmp_path: Path) -> None:
    model = make_maskable(env=masked_envs(action_space=ACTION_SPACES["multi_discrete"]), policy_kwargs={"ortho_init": False})
    file = export(model, tmp_path / "agent", format=format, n_checked=3)
    rng = np.random.default_rng(0)
    for n in (1, 5):
        observations, masks = rng.standard_normal((n, 3)).astype(np.float32), rng.random((n, 9)) < 0.5
        masks[:, [0, 3, 5]] = True
        expected, _ = model.predict(observations, deterministic=True, action_masks=masks)
        play = play_onnx if format == "onnx" else play_torch
        np.testing.assert_array_equal(play(file, {"observation": observations, "action_masks": masks})["action"], expected)


@pytest.mark.parametrize(
    ("format", "action_space"), [("onnx", DISCRETE), pytest.param("torch", CONTINUOUS, marks=pytest.mark.export)]
)
def test_the_state_of_a_recurrent_policy_is_input_and_output(
    format: str, action_space: spaces.Space[Any], tmp_path: Path
) -> None:
    """Twelve steps of three environments, whose episodes begin at different times, each from the file's own last state."""
    policy_kwargs = {"n_lstm_layers": 2, "ortho_init": False}
    model = make_recurrent_model(env=RandomEnv(VECTOR, action_space), policy_kwargs=policy_kwargs)
    file = export(model, tmp_path / "agent", format=format, n_checked=3)
    play = play_onnx if format == "onnx" else play_torch
    rng = np.random.default_rng(0)
    own: Any = None
    states = {"state_h": np.zeros((2, 3, 5), np.float32), "state_c": np.zeros((2, 3, 5), np.float32)}
    for step in range(12):
        observations = rng.standard_normal((3, 3)).astype(np.float32)
        starts = (rng.random(3) < 0.2) | (step == 0)
        expected, own = model.predict(observations, state=own, episode_start=starts, deterministic=True)
        outputs = play(file, {"observation": observations, **states, "episode_start": starts})
        np.testing.assert_allclose(outputs["action"], expected, rtol=0, atol=1e-6)
        states = {"state_h": outputs["state_h_out"], "state_c": outputs["state_c_out"]}
    np.testing.assert_allclose(states["state_h"], own[0], rtol=0, atol=1e-6)


@pytest.mark.gpu
@pytest.mark.skipif(not th.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.filterwarnings("ignore:You are trying to run VPG on the GPU:UserWarning")
@pytest.mark.parametrize("format", ["onnx", "torch"])
def test_a_model_on_a_gpu_becomes_a_file_for_the_cpu(format: str, tmp_path: Path) -> None:
    env = VecNormalize(DummyVecEnv([lambda: RandomEnv(DICT, ASYMMETRIC)]), norm_obs_keys=["vector"])
    model = make_model("MultiInputPolicy", env, device="cuda", policy_kwargs={"ortho_init": False})
    assert_same(model, export(model, tmp_path / "agent", format=format), play_onnx if format == "onnx" else play_torch)


def probabilities(model: Any, observation: np.ndarray, masks: Any) -> list[np.ndarray]:
    """:return: of each part of the action, the probabilities of its choices, as the policy computes them"""
    keywords = {} if masks is None else {"action_masks": masks}
    with th.no_grad():
        distribution = model.policy.get_distribution(th.as_tensor(observation), **keywords)
    parts = getattr(distribution, "distributions", None) or distribution.distribution
    if isinstance(parts, th.distributions.Bernoulli):
        return [np.array([1 - p, p]) for p in parts.probs[0].numpy()]
    return [part.probs[0].numpy() for part in (parts if isinstance(parts, list) else [parts])]


STOCHASTIC = {
    "discrete": (spaces.Discrete(4), False),
    "multi_binary": (spaces.MultiBinary(2), False),
    "masked_multi_discrete": (spaces.MultiDiscrete([3, 2]), True),
    "masked_multi_binary": (spaces.MultiBinary(2), True),
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in ("multi_binary", "masked_multi_discrete") else pytest.mark.export)
        for name in STOCHASTIC
    ],
)
def test_samples_have_the_frequencies_of_the_policy(name: str, tmp_path: Path) -> None:
    """10,000 samples for one observation; a frequency is off by five standard errors in less than one of a million tests."""
    action_space, has_masks = STOCHASTIC[name]
    policy_kwargs = {"ortho_init": False}
    model: Any = (
        make_maskable(env=masked_envs(action_space=action_space), policy_kwargs=policy_kwargs)
        if has_masks
        else make_model(env=RandomEnv(VECTOR, action_space), policy_kwargs=policy_kwargs)
    )
    file = export(model, tmp_path / "agent.onnx", stochastic=True, n_checked=3)
    n, observation = 10_000, np.array([[0.9, -0.7, 0.4]], np.float32)
    session = onnxruntime.InferenceSession(file.read_bytes())
    size = {put.name: put.shape for put in session.get_inputs()}["noise"][1]
    inputs = {"observation": np.repeat(observation, n, axis=0)}
    inputs["noise"] = np.random.default_rng(1).uniform(size=(n, size)).astype(np.float32)
    masks = None
    if has_masks:
        masks = np.ones((1, sum(mask_sizes(action_space))), bool)
        masks[0, 1] = False
        inputs["action_masks"] = np.repeat(masks, n, axis=0)
    actions = play_onnx(file, inputs)["action"].reshape(n, -1)
    for column, expected in zip(actions.T, probabilities(model, observation, masks), strict=True):
        frequencies = np.bincount(column, minlength=len(expected)) / n
        assert (np.abs(frequencies - expected) <= 5 * np.sqrt(expected * (1 - expected) / n) + 1e-9).all()


def test_samples_of_a_box_are_mean_and_deviation_times_noise(tmp_path: Path) -> None:
    """The noise of one component moves only this component of the action, which is clipped to its bounds."""
    model = make_model(env=RandomEnv(VECTOR, ASYMMETRIC), policy_kwargs={"log_std_init": -1.0, "ortho_init": False})
    file = export(model, tmp_path / "agent.onnx", stochastic=True, n_checked=3)
    observation = np.zeros((4, 3), np.float32)
    noise = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, -0.5], [99.0, 99.0]], np.float32)
    with th.no_grad():
        distribution = model.policy.get_distribution(th.as_tensor(observation)).distribution
    expected = np.clip(distribution.loc.numpy() + np.exp(-1.0) * noise, ASYMMETRIC.low, ASYMMETRIC.high)
    actions = play_onnx(file, {"observation": observation, "noise": noise})["action"]
    np.testing.assert_allclose(actions, expected, rtol=0, atol=1e-6)
