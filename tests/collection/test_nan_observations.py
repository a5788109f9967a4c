"""A sensor without a reading sends NaN. Where the user's own layers read it, VPG trains as A2C does; where SB3's do, not."""

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


class Sensors(RandomEnv):
    """Some readings, and the last one of every episode, are missing."""

    def __init__(self, observation_space: spaces.Space[Any] = VECTOR, missing: Any = np.nan, key: str = "sensor") -> None:
        super().__init__(observation_space, CONTINUOUS)
        self.missing, self.key = missing, key

    def reset(self, **kwargs: Any) -> Any:
        observation, info = super().reset(**kwargs)
        return self._without(observation, False), info

    def step(self, action: Any) -> Any:
        observation, reward, terminated, truncated, info = super().step(action)
        return self._without(observation, truncated), reward, terminated, truncated, info

    def _without(self, observation: Any, always: bool) -> Any:
        readings = observation[self.key] if isinstance(observation, dict) else observation
        if always or self.np_random.random() < 0.4:
            readings[1] = self.missing
        return observation


class Known(FlattenExtractor):
    """Nothing in the place of what is missing."""

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return super().forward(observations).nan_to_num(0.0, 1.0, -1.0)


class Ignorant(BaseFeaturesExtractor):
    """Looks at one key alone."""

    def __init__(self, space: spaces.Dict) -> None:
        super().__init__(space, 3)

    def forward(self, observations: Any) -> th.Tensor:
        return observations["vector"]


class KnownKey(CombinedExtractor):
    """SB3's, but for one of its parts."""

    def __init__(self, space: spaces.Dict) -> None:
        super().__init__(space)
        self.extractors["sensor"] = Known(space["sensor"])


class KnownBody(MlpExtractor):
    def forward_actor(self, features: th.Tensor) -> th.Tensor:
        return super().forward_actor(features.nan_to_num())

    def forward_critic(self, features: th.Tensor) -> th.Tensor:
        return super().forward_critic(features.nan_to_num())


class ReadsInItsBody(ActorCriticPolicy):
    def _build_mlp_extractor(self) -> None:
        self.mlp_extractor = KnownBody(self.features_dim, self.net_arch, self.activation_fn, self.device)


class ReadsItself(ActorCriticPolicy):
    def extract_features(self, obs: Any, features_extractor: Any = None) -> Any:
        return super().extract_features(obs.nan_to_num(), features_extractor)

    def get_distribution(self, obs: Any) -> Any:
        return super().get_distribution(obs.nan_to_num())

    def predict_values(self, obs: Any) -> th.Tensor:
        return super().predict_values(obs.nan_to_num())


def hooked(policy: Any) -> None:
    policy.features_extractor.register_forward_pre_hook(lambda _, inputs: (inputs[0].nan_to_num(),))


class ReadsInALayer(ActorCriticPolicy):
    """The first layer of both networks is the user's."""

    def _build_mlp_extractor(self) -> None:
        super()._build_mlp_extractor()
        for name in ("policy_net", "value_net"):
            setattr(self.mlp_extractor, name, nn.Sequential(Filled(3, 8), nn.Tanh()))


class Filled(nn.Linear):
    def forward(self, x: th.Tensor) -> th.Tensor:
        return super().forward(x.nan_to_num())


def with_extractor(extractor: Any, policy: Any = "MlpPolicy") -> tuple[Any, dict[str, Any]]:
    return policy, {"features_extractor_class": extractor}


Kind = tuple[Any, dict[str, Any], Callable[[Any], None], spaces.Space[Any]]


def nothing(_: Any) -> None:
    """No change."""


KINDS: dict[str, Kind] = {
    "extractor": (*with_extractor(Known), nothing, VECTOR),
    "extractor_that_ignores_a_key": (*with_extractor(Ignorant, "MultiInputPolicy"), nothing, PAIR),
    "part_of_sb3s_extractor": (*with_extractor(KnownKey, "MultiInputPolicy"), nothing, PAIR),
    "body": (ReadsInItsBody, {}, nothing, VECTOR),
    "policy": (ReadsItself, {}, nothing, VECTOR),
    "layer": (ReadsInALayer, {}, nothing, VECTOR),
    "hook": (ActorCriticPolicy, {}, hooked, VECTOR),
}


def build(cls: Any, kind: Kind, env: VecEnv, **options: Any) -> Any:
    policy, policy_kwargs, change, _ = kind
    model = cls(
        policy, env, policy_kwargs={"net_arch": [8], **policy_kwargs}, seed=0, device="cpu", **{"n_steps": 16, **options}
    )
    change(model.policy)
    return model


def sensors(space: spaces.Space[Any], n_envs: int = 2, **kwargs: Any) -> DummyVecEnv:
    return DummyVecEnv([lambda: Sensors(space, **kwargs)] * n_envs)


def bare(env: VecEnv) -> VecEnv:
    return env


def rewards_alone(env: VecEnv) -> VecEnv:
    return VecNormalize(env, norm_obs=False)


def other_key_alone(env: VecEnv) -> VecEnv:
    return VecNormalize(env, norm_obs_keys=["vector"])


def frozen(env: VecEnv) -> VecEnv:
    return VecNormalize(env, training=False, norm_reward=False)


LAYERS: dict[str, Callable[[VecEnv], VecEnv]] = {
    "bare": bare,
    "rewards_alone": rewards_alone,
    "other_key_alone": other_key_alone,
    "frozen": frozen,
}


@pytest.mark.parametrize("wrap", LAYERS.values(), ids=LAYERS.keys())
@pytest.mark.parametrize("missing", [np.nan, np.inf, 3e30], ids=["nan", "inf", "huge"])
@pytest.mark.parametrize("options", MODES.values(), ids=MODES.keys())
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
def test_what_the_user_reads_passes(kind: Kind, options: dict[str, Any], missing: float, wrap: Any) -> None:
    """Wherever it is read, and while VecNormalize makes no statistics of it."""
    if wrap is other_key_alone and kind[3] is VECTOR:
        pytest.skip("there is one key")
    if not np.isnan(missing) and isinstance(kind[0], type):
        pytest.skip("it knows NaN alone")
    model = build(VPG, kind, wrap(sensors(kind[3], missing=missing)), **options)
    before = model.policy.action_net.weight.clone()
    model.learn(96)
    assert model.policy.action_net.weight.isfinite().all()
    assert not th.equal(model.policy.action_net.weight, before)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
def test_a2c_is_the_oracle(kind: Kind) -> None:
    build(A2C, kind, sensors(kind[3])).learn(96)


@pytest.mark.parametrize("options", MODES.values(), ids=MODES.keys())
@pytest.mark.parametrize("policy", ["MlpPolicy", ActorCriticPolicy])
def test_what_sb3s_layers_read_is_refused_and_named(policy: Any, options: dict[str, Any]) -> None:
    model = make_model(policy, sensors(VECTOR), **options)
    with pytest.raises(ValueError, match=r"observation \(entry 1\) of environment [01] is nan"):
        model.learn(96)


@pytest.mark.parametrize("options", MODES.values(), ids=MODES.keys())
def test_the_keys_of_a_dict_are_judged_one_by_one(options: dict[str, Any]) -> None:
    """The part for the other key is SB3's."""
    kind = KINDS["part_of_sb3s_extractor"]
    model = build(VPG, kind, sensors(PAIR, key="vector"), **options)
    with pytest.raises(ValueError, match=r"observation 'vector' \(entry 1\) of environment [01] is nan"):
        model.learn(96)


class Careless(FlattenExtractor):
    """The user's, and no better than SB3's."""


@pytest.mark.parametrize("options", MODES.values(), ids=MODES.keys())
def test_what_comes_out_of_the_users_layers_is_judged(options: dict[str, Any]) -> None:
    """An extractor that hands NaN on makes no distribution."""

    model = make_model(env=sensors(VECTOR), policy_kwargs={"features_extractor_class": Careless}, **options)
    before = model.policy.action_net.weight.clone()
    with pytest.raises(ValueError, match=r"diverged in iteration 1 .*distribution over actions has NaN"):
        model.learn(96)
    assert th.equal(model.policy.action_net.weight, before)


class Half(MlpExtractor):
    def forward_actor(self, features: th.Tensor) -> th.Tensor:
        return super().forward_actor(features.nan_to_num())


class ReadsHalf(ActorCriticPolicy):
    def _build_mlp_extractor(self) -> None:
        self.mlp_extractor = Half(self.features_dim, self.net_arch, self.activation_fn, self.device)


def test_a_value_that_is_nan_is_not_learned_from() -> None:
    """The actor reads what is missing, the critic does not: the loss tells."""

    model = make_model(ReadsHalf, sensors(VECTOR), policy_kwargs={"share_features_extractor": False})
    before = model.policy.action_net.weight.clone()
    with pytest.raises(ValueError, match="loss of the policy is nan"):
        model.learn(96)
    assert th.equal(model.policy.action_net.weight, before)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_statistics_take_no_nan(kind: Kind) -> None:
    """Whoever reads it: one NaN would make all observations NaN for good."""
    env = VecNormalize(sensors(kind[3]))
    with pytest.raises(ValueError, match=r"\(entry 1\) of environment [01] is nan"):
        build(VPG, kind, env).learn(96)


def test_rewards_are_judged_all_the_same() -> None:
    class Broken(Sensors):
        def step(self, action: Any) -> Any:
            observation, _, *rest = super().step(action)
            return observation, np.nan, *rest

    model = build(VPG, KINDS["extractor"], DummyVecEnv([Broken]))
    silence(model)
    with pytest.raises(ValueError, match=r"reward of environment 0 is nan at step 1"):
        model.learn(96)
