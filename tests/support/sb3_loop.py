"""SB3's own loop, made to repeat what VPG's has played: the oracle of everything that ends up in a rollout buffer."""

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
    """Goes over to float64, so that SB3 runs a policy after ``policy.double()``."""

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return super().forward(observations.double())


class DoublePolicy(ActorCriticPolicy):
    """Computes in float64."""

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


class Paying(gym.Wrapper[Any, Any, Any, Any]):
    """The reward also depends on the action, so that an action that went astray shows."""

    def step(self, action: Any) -> Any:
        observation, reward, *rest = self.env.step(action)
        return observation, float(reward) + float(np.sum(np.asarray(action) * 0.5)), *rest


def environments(n_envs: int, **kwargs: Any) -> DummyVecEnv:
    """Episodes of six steps, every second one cut by time-out; a Monitor tells the returns."""
    return DummyVecEnv([lambda: Monitor(Paying(RandomEnv(**kwargs)))] * n_envs)


class RolloutRecorder(BaseCallback):
    """Keeps copies of the loop's variables at every step, and the order of the calls."""

    def __init__(self, on_step: Callable[[BaseCallback], Any] = lambda _: True) -> None:
        super().__init__()
        self.on_step_too, self.calls, self.rows = on_step, [], []

    def _on_rollout_start(self) -> None:
        self.calls.append("start")

    def _on_step(self) -> bool:
        self.calls.append("step")
        names = ("n_steps", "actions", "clipped_actions", "new_obs", "rewards", "dones", "infos", "n_rollout_steps")
        self.rows.append({name: copied(self.locals[name]) for name in names})
        for name in ("self", "env", "callback", "rollout_buffer"):
            assert name in self.locals
        return self.on_step_too(self) is not False

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
    """Collect without learning; ``loop`` is whose ``collect_rollouts`` it is."""
    silence(model)
    _, callback = model._setup_learn(10_000, callback)
    for _ in range(rollouts):
        if not loop(model, model.env, callback, model.rollout_buffer, model.n_steps):
            break
    return model


def replay(
    make: Callable[[], VPG], rollouts: int = 2, on_step: Any = lambda _: True, kind: type[RolloutRecorder] = RolloutRecorder
) -> tuple[VPG, RolloutRecorder, VPG, RolloutRecorder]:
    """
    :param make: builds the same model in fresh environments each time
    :param kind: of the callbacks
    :return: the model whose own loop has played with what its callback saw, and the same of the one in which SB3's loop
        was given the same actions one by one
    """
    ours, seen = make(), kind(on_step)
    play(ours, seen, rollouts)
    theirs, seen_by_sb3 = make(), kind(on_step)
    actions = iter([row["actions"] for row in seen.rows])
    theirs.policy.action_dist.get_actions = lambda deterministic=False: th.as_tensor(next(actions)).reshape(
        theirs.n_envs, *((-1,) if theirs.action_space.shape else ())
    )
    play(theirs, seen_by_sb3, rollouts, OnPolicyAlgorithm.collect_rollouts)
    return ours, seen, theirs, seen_by_sb3


def model_for(
    observation: str = "box", action: str = "discrete", policy: str | None = None, n_envs: int = 2, **kwargs: Any
) -> VPG:
    """A VPG by the names above; its weights are larger than SB3 makes them, so that their outputs differ."""
    space = OBSERVATIONS[observation]
    name, policy_kwargs = (policy_for(space), {}) if policy is None else POLICIES[policy]
    env = environments(n_envs, observation_space=space, action_space=ACTIONS[action])
    model = make_model(name, env, policy_kwargs=policy_kwargs, **{"n_steps": 15, "gamma": 0.9, "gae_lambda": 0.8, **kwargs})
    enlarge(model)
    return model


def enlarge(model: VPG) -> None:
    """Random action and value heads, other than zero also in their biases."""
    generator = th.Generator().manual_seed(5)
    with th.no_grad():
        for layer in (model.policy.action_net, model.policy.value_net):
            for parameter in layer.parameters():
                parameter.copy_(th.randn(parameter.shape, generator=generator) * 0.7)


def assert_same(one: Any, other: Any, **tolerances: float) -> None:
    """Equal to float tolerance, through dicts and lists."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            if key != "t":  # a Monitor's clock
                assert_same(one[key], other[key], **tolerances)
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other)
        for first, second in zip(one, other, strict=True):
            assert_same(first, second, **tolerances)
    elif one is None:
        assert other is None
    else:
        np.testing.assert_allclose(one, other, **{"rtol": 1e-5, "atol": 1e-6, **tolerances})


def assert_same_buffers(ours: VPG, theirs: VPG) -> None:
    one, other = ours.rollout_buffer, theirs.rollout_buffer
    assert_same(one.observations, other.observations, rtol=0, atol=0)
    for name in ARRAYS:
        mine, its = getattr(one, name), getattr(other, name)
        assert (mine.shape, mine.dtype) == (its.shape, its.dtype), name
        np.testing.assert_allclose(mine, its, rtol=1e-5, atol=1e-5, err_msg=name)
    assert (one.pos, one.full, one.generator_ready) == (other.pos, other.full, other.generator_ready)
