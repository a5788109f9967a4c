"""Environments that return NaN for missing readings: VPG trains, as A2C does, if the user's own layers handle NaN."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from helpers import CONTINUOUS, VECTOR, RandomEnv, make_model, silence
from stable_baselines3 import A2C
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor, FlattenExtractor, MlpExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize
from torch import nn

from sb3_vpg import VPG

PAIR = spaces.Dict({"sensor": VECTOR, "vector": VECTOR})
MODES: dict[str, dict[str, Any]] = {
    "steps": {},
    "gsde": {"use_sde": True},
    "episodes": {"n_episodes": 3},
    "average": {"n_episodes": 3, "baseline": "average"},
}


class SensorEnv(RandomEnv):
    """Returns ``missing`` as one entry of some observations and of every terminal observation."""

    def __init__(self, observation_space: spaces.Space[Any] = VECTOR, missing: Any = np.nan, key: str = "sensor") -> None:
        super().__init__(observation_space, CONTINUOUS)
        self.missing, self.key = missing, key

    def reset(self, **kwargs: Any) -> Any:
        observation, info = super().reset(**kwargs)
        return self._with_missing(observation, False), info

    def step(self, action: Any) -> Any:
        observation, reward, terminated, truncated, info = super().step(action)
        return self._with_missing(observation, truncated), reward, terminated, truncated, info

    def _with_missing(self, observation: Any, always: bool) -> Any:
        readings = observation[self.key] if isinstance(observation, dict) else observation
        if always or self.np_random.random() < 0.4:
            readings[1] = self.missing
        return observation


class NanExtractor(FlattenExtractor):
    """Replaces NaN and infinite numbers."""

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return super().forward(observations).nan_to_num(0.0, 1.0, -1.0)


class OneKeyExtractor(BaseFeaturesExtractor):
    """Reads only the key ``vector``."""

    def __init__(self, space: spaces.Dict) -> None:
        super().__init__(space, 3)

    def forward(self, observations: Any) -> th.Tensor:
        return observations["vector"]


class NanKeyExtractor(CombinedExtractor):
    """SB3's extractor with a part that replaces NaN for the key ``sensor``."""

    def __init__(self, space: spaces.Dict) -> None:
        super().__init__(space)
        self.extractors["sensor"] = NanExtractor(space["sensor"])


class NanBody(MlpExtractor):
    """Replaces NaN in both of its halves."""

    def forward_actor(self, features: th.Tensor) -> th.Tensor:
        return super().forward_actor(features.nan_to_num())

    def forward_critic(self, features: th.Tensor) -> th.Tensor:
        return super().forward_critic(features.nan_to_num())


class NanBodyPolicy(ActorCriticPolicy):
    def _build_mlp_extractor(self) -> None:
        self.mlp_extractor = NanBody(self.features_dim, self.net_arch, self.activation_fn, self.device)


class NanPolicy(ActorCriticPolicy):
    """Replaces NaN in the methods of the policy."""

    def extract_features(self, obs: Any, features_extractor: Any = None) -> Any:
        return super().extract_features(obs.nan_to_num(), features_extractor)

    def get_distribution(self, obs: Any) -> Any:
        return super().get_distribution(obs.nan_to_num())

    def predict_values(self, obs: Any) -> th.Tensor:
        return super().predict_values(obs.nan_to_num())


def add_hook(policy: Any) -> None:
    policy.features_extractor.register_forward_pre_hook(lambda _, inputs: (inputs[0].nan_to_num(),))


class NanLayerPolicy(ActorCriticPolicy):
    """Replaces NaN in the first layer of both networks."""

    def _build_mlp_extractor(self) -> None:
        super()._build_mlp_extractor()
        for name in ("policy_net", "value_net"):
            setattr(self.mlp_extractor, name, nn.Sequential(NanLinear(3, 8), nn.Tanh()))


class NanLinear(nn.Linear):
    def forward(self, x: th.Tensor) -> th.Tensor:
        return super().forward(x.nan_to_num())


def with_extractor(extractor: Any, policy: Any = "MlpPolicy") -> tuple[Any, dict[str, Any]]:
    return policy, {"features_extractor_class": extractor}


Kind = tuple[Any, dict[str, Any], Callable[[Any], None], spaces.Space[Any]]
"""Policy, policy_kwargs, a change of the policy and the observation space."""


def no_change(_: Any) -> None:
    """Leave the policy as it is."""


KINDS: dict[str, Kind] = {
    "extractor": (*with_extractor(NanExtractor), no_change, VECTOR),
    "extractor_that_ignores_a_key": (*with_extractor(OneKeyExtractor, "MultiInputPolicy"), no_change, PAIR),
    "part_of_sb3s_extractor": (*with_extractor(NanKeyExtractor, "MultiInputPolicy"), no_change, PAIR),
    "body": (NanBodyPolicy, {}, no_change, VECTOR),
    "policy": (NanPolicy, {}, no_change, VECTOR),
    "layer": (NanLayerPolicy, {}, no_change, VECTOR),
    "hook": (ActorCriticPolicy, {}, add_hook, VECTOR),
}


def build(cls: Any, kind: Kind, env: VecEnv, **options: Any) -> Any:
    policy, policy_kwargs, change, _ = kind
    model = cls(
        policy, env, policy_kwargs={"net_arch": [8], **policy_kwargs}, seed=0, device="cpu", **{"n_steps": 16, **options}
    )
    change(model.policy)
    return model


def sensors(space: spaces.Space[Any], n_envs: int = 2, **kwargs: Any) -> DummyVecEnv:
    return DummyVecEnv([lambda: SensorEnv(space, **kwargs)] * n_envs)


def unwrapped(env: VecEnv) -> VecEnv:
    return env


def normalize_rewards(env: VecEnv) -> VecEnv:
    return VecNormalize(env, norm_obs=False)


def normalize_other_key(env: VecEnv) -> VecEnv:
    return VecNormalize(env, norm_obs_keys=["vector"])


def frozen_statistics(env: VecEnv) -> VecEnv:
    return VecNormalize(env, training=False, norm_reward=False)


@pytest.mark.parametrize("wrap", [unwrapped, normalize_rewards, normalize_other_key, frozen_statistics])
@pytest.mark.parametrize("missing", [np.nan, np.inf, 3e30], ids=["nan", "inf", "huge"])
@pytest.mark.parametrize("options", MODES.values(), ids=MODES.keys())
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
def test_trains_if_the_users_modules_handle_missing_numbers(
    kind: Kind, options: dict[str, Any], missing: float, wrap: Any
) -> None:
    """VPG trains if a module or method of the user handles the number, and VecNormalize computes no statistics of it."""
    if wrap is normalize_other_key and kind[3] is VECTOR:
        pytest.skip("the observation has one key")
    if not np.isnan(missing) and isinstance(kind[0], type):
        pytest.skip("the policy handles only NaN")
    model = build(VPG, kind, wrap(sensors(kind[3], missing=missing)), **options)
    before = model.policy.action_net.weight.clone()
    model.learn(96)
    assert model.policy.action_net.weight.isfinite().all()
    assert not th.equal(model.policy.action_net.weight, before)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
def test_a2c_trains_with_these_policies(kind: Kind) -> None:
    """A2C trains with each of these policies without an error."""
    build(A2C, kind, sensors(kind[3])).learn(96)


@pytest.mark.parametrize("options", MODES.values(), ids=MODES.keys())
@pytest.mark.parametrize("policy", ["MlpPolicy", ActorCriticPolicy])
def test_nan_is_refused_with_sb3s_policies(policy: Any, options: dict[str, Any]) -> None:
    """If SB3's own layers read the NaN, VPG refuses it and names the environment."""
    model = make_model(policy, sensors(VECTOR), **options)
    with pytest.raises(ValueError, match=r"observation \(entry 1\) of environment [01] is nan"):
        model.learn(96)


@pytest.mark.parametrize("options", MODES.values(), ids=MODES.keys())
def test_nan_is_refused_for_the_keys_that_sb3s_layers_read(options: dict[str, Any]) -> None:
    """If the user's module reads one key and SB3's layers read the key with the NaN, VPG refuses it and names the key."""
    kind = KINDS["part_of_sb3s_extractor"]
    model = build(VPG, kind, sensors(PAIR, key="vector"), **options)
    with pytest.raises(ValueError, match=r"observation 'vector' \(entry 1\) of environment [01] is nan"):
        model.learn(96)


class PassingExtractor(FlattenExtractor):
    """A user's extractor that passes NaN on."""


@pytest.mark.parametrize("options", MODES.values(), ids=MODES.keys())
def test_extractor_that_passes_nan_on_is_refused(options: dict[str, Any]) -> None:
    """If the user's extractor passes NaN on, training stops before the weights change."""
    model = make_model(env=sensors(VECTOR), policy_kwargs={"features_extractor_class": PassingExtractor}, **options)
    before = model.policy.action_net.weight.clone()
    with pytest.raises(ValueError, match=r"diverged in iteration 1 .*distribution over actions has NaN"):
        model.learn(96)
    assert th.equal(model.policy.action_net.weight, before)


class NanActorBody(MlpExtractor):
    """Replaces NaN for the actor, not for the critic."""

    def forward_actor(self, features: th.Tensor) -> th.Tensor:
        return super().forward_actor(features.nan_to_num())


class NanActorPolicy(ActorCriticPolicy):
    def _build_mlp_extractor(self) -> None:
        self.mlp_extractor = NanActorBody(self.features_dim, self.net_arch, self.activation_fn, self.device)


def test_nan_value_is_refused() -> None:
    """If only the actor handles NaN, the critic's values are NaN, and training stops before the weights change."""
    model = make_model(NanActorPolicy, sensors(VECTOR), policy_kwargs={"share_features_extractor": False})
    before = model.policy.action_net.weight.clone()
    with pytest.raises(ValueError, match="loss of the policy is nan"):
        model.learn(96)
    assert th.equal(model.policy.action_net.weight, before)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_nan_is_refused_if_vec_normalize_computes_statistics(kind: Kind) -> None:
    """NaN is refused with every policy if VecNormalize normalises it: all later observations would be NaN."""
    env = VecNormalize(sensors(kind[3]))
    with pytest.raises(ValueError, match=r"\(entry 1\) of environment [01] is nan"):
        build(VPG, kind, env).learn(96)


def test_nan_reward_is_refused() -> None:
    """A NaN reward is refused, although the policy handles NaN observations."""

    class NanRewardEnv(SensorEnv):
        def step(self, action: Any) -> Any:
            observation, _, *rest = super().step(action)
            return observation, np.nan, *rest

    model = build(VPG, KINDS["extractor"], DummyVecEnv([NanRewardEnv]))
    silence(model)
    with pytest.raises(ValueError, match=r"reward of environment 0 is nan at step 1"):
        model.learn(96)
