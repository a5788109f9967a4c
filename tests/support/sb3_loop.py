"""Run SB3's own loop with the actions that VPG's loop played, so that tests can compare their rollout buffers."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from helpers import (
    CONTINUOUS,
    DICT,
    DISCRETE,
    IMAGE,
    VECTOR,
    LinearExtractor,
    OddlyNamedPolicy,
    RandomEnv,
    make_model,
    silence,
)
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import nn

from sb3_vpg import VPG

ARRAYS = ("actions", "rewards", "episode_starts", "values", "log_probs", "advantages", "returns")
ACTIONS: dict[str, spaces.Space[Any]] = {
    "discrete": DISCRETE,
    "box": CONTINUOUS,
    "box_2d": spaces.Box(-0.5, 1.5, (2, 3), np.float32),
    "box_float64": spaces.Box(-1.0, 1.0, (2,), np.float64),
    "multi_discrete": spaces.MultiDiscrete([2, 4, 3]),
    "multi_binary": spaces.MultiBinary(3),
}
OBSERVATIONS: dict[str, spaces.Space[Any]] = {
    "box": VECTOR,
    "box_float64": spaces.Box(-1.0, 1.0, (2, 2), np.float64),
    "box_integer": spaces.Box(0, 9, (4,), np.int64),
    "discrete": spaces.Discrete(4),
    "multi_discrete": spaces.MultiDiscrete([2, 3]),
    "multi_binary": spaces.MultiBinary([2, 2]),
    "dict": DICT,
    "image": IMAGE,
}


class DoubleExtractor(LinearExtractor):
    """Converts observations to float64, which a policy after ``policy.double()`` needs."""

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return super().forward(observations.double())


class DoublePolicy(ActorCriticPolicy):
    """Has parameters in float64."""

    def _build(self, lr_schedule: Any) -> None:
        super()._build(lr_schedule)
        self.double()


POLICIES: dict[str, tuple[Any, dict[str, Any]]] = {
    "tanh": ("MlpPolicy", {"net_arch": [8, 8]}),
    "relu": ("MlpPolicy", {"activation_fn": nn.ReLU}),
    "elu": ("MlpPolicy", {"activation_fn": nn.ELU}),
    "no_layers": ("MlpPolicy", {"net_arch": []}),
    "actor_without_layers": ("MlpPolicy", {"net_arch": {"pi": [], "vf": [8]}}),
    "linear": ("LinearPolicy", {"net_arch": None}),
    "sb3s_own": (ActorCriticPolicy, {}),
    "extractor": ("MlpPolicy", {"features_extractor_class": LinearExtractor}),
    "shared_extractor": ("MlpPolicy", {"features_extractor_class": LinearExtractor, "share_features_extractor": True}),
    "own_body": (OddlyNamedPolicy, {"share_features_extractor": False}),
    "float64": (DoublePolicy, {"features_extractor_class": DoubleExtractor}),
    "small_deviation": ("MlpPolicy", {"log_std_init": -2.0}),
}


def policy_for(space: spaces.Space[Any]) -> str:
    if isinstance(space, spaces.Dict):
        return "MultiInputPolicy"
    return "CnnPolicy" if len(space.shape or ()) == 3 else "MlpPolicy"


class ActionPaysEnv(gym.Wrapper[Any, Any, Any, Any]):
    """Makes the reward depend on the action, so that a test notices an action that reached the wrong environment."""

    def step(self, action: Any) -> Any:
        observation, reward, *rest = self.env.step(action)
        return observation, float(reward) + float(np.sum(np.asarray(action) * 0.5)), *rest


def environments(n_envs: int, **kwargs: Any) -> DummyVecEnv:
    """:return: environments with a Monitor and episodes of six steps, which alternately terminate and are truncated"""
    return DummyVecEnv([lambda: Monitor(ActionPaysEnv(RandomEnv(**kwargs)))] * n_envs)


class RolloutRecorder(BaseCallback):
    """
    Keeps copies of the loop's variables at every step, and the order of the calls.

    :param step_hook: called with this callback at each step; training stops if it returns False
    """

    def __init__(self, step_hook: Callable[[BaseCallback], Any] = lambda _: True) -> None:
        super().__init__()
        self.step_hook, self.calls, self.rows = step_hook, [], []

    def _on_rollout_start(self) -> None:
        self.calls.append("start")

    def _on_step(self) -> bool:
        self.calls.append("step")
        names = ("n_steps", "actions", "clipped_actions", "new_obs", "rewards", "dones", "infos", "n_rollout_steps")
        self.rows.append({name: copied(self.locals[name]) for name in names})
        for name in ("self", "env", "callback", "rollout_buffer"):
            assert name in self.locals
        return self.step_hook(self) is not False

    def _on_rollout_end(self) -> None:
        self.calls.append("end")
        assert self.model.rollout_buffer.full
        self.last_n_steps = self.locals["n_steps"]


def copied(x: Any) -> Any:
    if isinstance(x, dict):
        return {key: copied(value) for key, value in x.items()}
    if isinstance(x, (list, tuple)):
        return [copied(value) for value in x]
    return np.array(x) if isinstance(x, np.ndarray) else x


def play(model: VPG, callback: BaseCallback, rollouts: int = 1, loop: Any = VPG.collect_rollouts) -> VPG:
    """
    Collect rollouts without learning.

    :param loop: the ``collect_rollouts`` of VPG or of SB3
    """
    silence(model)
    _, callback = model._setup_learn(10_000, callback)
    for _ in range(rollouts):
        if not loop(model, model.env, callback, model.rollout_buffer, model.n_steps):
            break
    return model


def replay(
    make: Callable[[], VPG],
    rollouts: int = 2,
    step_hook: Any = lambda _: True,
    recorder_class: type[RolloutRecorder] = RolloutRecorder,
) -> tuple[VPG, RolloutRecorder, VPG, RolloutRecorder]:
    """
    Collect rollouts with VPG's loop, then collect rollouts of an equal model with SB3's loop and the same actions.

    :param make: builds the same model in new environments each time
    :param rollouts: number of rollouts
    :param step_hook: see ``RolloutRecorder``
    :param recorder_class: the class of the callbacks
    :return: the model that VPG's loop played and its callback, then the model that SB3's loop played and its callback
    """
    ours, recorder = make(), recorder_class(step_hook)
    play(ours, recorder, rollouts)
    theirs, sb3_recorder = make(), recorder_class(step_hook)
    actions = iter([row["actions"] for row in recorder.rows])
    shape = (theirs.n_envs, -1) if theirs.action_space.shape else (theirs.n_envs,)

    def next_actions(deterministic: bool = False) -> th.Tensor:
        return th.as_tensor(next(actions)).reshape(shape)

    theirs.policy.action_dist.get_actions = next_actions
    play(theirs, sb3_recorder, rollouts, OnPolicyAlgorithm.collect_rollouts)
    return ours, recorder, theirs, sb3_recorder


def model_for(
    observation: str = "box", action: str = "discrete", policy: str | None = None, n_envs: int = 2, **kwargs: Any
) -> VPG:
    """
    Build a VPG whose heads have larger weights than SB3's, so that outputs differ between observations.

    :param observation: a key of OBSERVATIONS
    :param action: a key of ACTIONS
    :param policy: a key of POLICIES; None: SB3's policy for the observation space
    """
    space = OBSERVATIONS[observation]
    name, policy_kwargs = (policy_for(space), {}) if policy is None else POLICIES[policy]
    env = environments(n_envs, observation_space=space, action_space=ACTIONS[action])
    model = make_model(name, env, policy_kwargs=policy_kwargs, **{"n_steps": 15, "gamma": 0.9, "gae_lambda": 0.8, **kwargs})
    enlarge(model)
    return model


def enlarge(model: VPG) -> None:
    """Fill the weights and biases of the action and value heads with random numbers."""
    generator = th.Generator().manual_seed(5)
    with th.no_grad():
        for layer in (model.policy.action_net, model.policy.value_net):
            for parameter in layer.parameters():
                parameter.copy_(th.randn(parameter.shape, generator=generator) * 0.7)


def assert_same(actual: Any, expected: Any, **tolerances: float) -> None:
    """Compare numbers, or the numbers in dicts and lists, with the tolerances of ``assert_allclose``."""
    if isinstance(actual, dict):
        assert actual.keys() == expected.keys()
        for key in actual:
            if key != "t":  # a Monitor's clock
                assert_same(actual[key], expected[key], **tolerances)
    elif isinstance(actual, (list, tuple)):
        assert len(actual) == len(expected)
        for actual_item, expected_item in zip(actual, expected, strict=True):
            assert_same(actual_item, expected_item, **tolerances)
    elif actual is None:
        assert expected is None
    else:
        np.testing.assert_allclose(actual, expected, **{"rtol": 1e-5, "atol": 1e-6, **tolerances})


def assert_same_buffers(ours: VPG, theirs: VPG) -> None:
    our_buffer, their_buffer = ours.rollout_buffer, theirs.rollout_buffer
    assert_same(our_buffer.observations, their_buffer.observations, rtol=0, atol=0)
    for name in ARRAYS:
        actual, expected = getattr(our_buffer, name), getattr(their_buffer, name)
        assert (actual.shape, actual.dtype) == (expected.shape, expected.dtype), name
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5, err_msg=name)
    for name in ("pos", "full", "generator_ready"):
        assert getattr(our_buffer, name) == getattr(their_buffer, name), name
