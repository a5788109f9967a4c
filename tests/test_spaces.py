"""VPG learns on every space that SB3's on-policy algorithms support, and with SB3's wrappers of environments."""

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from gymnasium.envs.registration import register, registry
from helpers import CONTINUOUS, DICT, IMAGE, VECTOR, RandomEnv, differing, make_model, vector_env, weights
from stable_baselines3 import A2C
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecNormalize

from sb3_vpg import VPG
from sb3_vpg.random_search import RandomSearch

ACTIONS = {
    "discrete": spaces.Discrete(3),
    "box": CONTINUOUS,
    "box_asymmetric": spaces.Box(np.array([-2.0, 0.0], np.float32), np.array([0.5, 8.0], np.float32)),
    "box_2d": spaces.Box(-1.0, 1.0, (2, 3), np.float32),
    "multi_discrete": spaces.MultiDiscrete([2, 3]),
    "multi_binary": spaces.MultiBinary(3),
}
OBSERVATIONS = {
    "box": VECTOR,
    "box_2d": spaces.Box(-1.0, 1.0, (2, 3), np.float32),
    "box_integer": spaces.Box(0, 9, (4,), np.int64),
    "discrete": spaces.Discrete(4),
    "multi_discrete": spaces.MultiDiscrete([2, 3]),
    "multi_binary": spaces.MultiBinary(4),
    "multi_binary_2d": spaces.MultiBinary([2, 2]),
    "dict": DICT,
    "image": IMAGE,
    "image_channel_first": spaces.Box(0, 255, (3, 36, 36), np.uint8),
}


def policy_for(observation_space):
    if isinstance(observation_space, spaces.Dict):
        return "MultiInputPolicy"
    return "CnnPolicy" if len(observation_space.shape or ()) == 3 else "MlpPolicy"


def assert_learns(model, steps=96):
    """Learning changes every weight and keeps it finite, and predictions are actions of the space."""
    before = weights(model)
    model.learn(steps)
    after = weights(model)
    assert differing(before, after) == set(before)
    assert all(th.isfinite(tensor).all() for tensor in after.values())
    observations = model.env.reset()
    for deterministic in (False, True):
        actions, _ = model.predict(observations, deterministic=deterministic)
        assert len(actions) == model.n_envs
        assert all(model.action_space.contains(action) for action in actions)


@pytest.mark.parametrize("action_space", ACTIONS.values(), ids=ACTIONS.keys())
@pytest.mark.parametrize("observation_space", OBSERVATIONS.values(), ids=OBSERVATIONS.keys())
def test_learns_and_predicts_on_every_combination_of_spaces(observation_space, action_space):
    """VPG learns, with minibatches for the critic, which must split each kind of observation."""
    env = RandomEnv(observation_space, action_space)
    assert_learns(make_model(policy_for(observation_space), env, batch_size=5))


@pytest.mark.parametrize("n_steps", [1, 7], ids=["one_step", "seven_steps"])
@pytest.mark.parametrize("policy", ["MlpPolicy", "MultiInputPolicy"])
def test_learns_from_several_environments(policy, n_steps):
    """Each iteration has n_steps * n_envs steps, all of which are counted."""
    space = DICT if policy == "MultiInputPolicy" else VECTOR
    model = make_model(policy, vector_env(3, observation_space=space), n_steps=n_steps, batch_size=4)
    assert_learns(model, steps=42)
    assert model.num_timesteps == 42
    assert model._n_updates == 42 // (3 * n_steps)


def test_learns_from_environments_in_subprocesses():
    """VPG learns from a SubprocVecEnv."""
    env = SubprocVecEnv([RandomEnv, RandomEnv])
    try:
        assert_learns(make_model(env=env))
    finally:
        env.close()


@pytest.mark.parametrize("sde_sample_freq", [-1, 3], ids=["once_per_rollout", "every_3_steps"])
@pytest.mark.parametrize("squash_output", [False, True], ids=["plain", "squashed"])
def test_learns_with_state_dependent_exploration(squash_output, sde_sample_freq):
    """VPG learns with gSDE, also squashed, where the entropy of the bonus has no closed form."""
    env = RandomEnv(action_space=spaces.Box(-2.0, 2.0, (2,), np.float32))
    policy_kwargs = {"squash_output": squash_output}
    assert_learns(
        make_model(env=env, use_sde=True, sde_sample_freq=sde_sample_freq, policy_kwargs=policy_kwargs, ent_coef=0.01)
    )


@pytest.mark.parametrize(("sde_sample_freq", "draws"), [(-1, 2), (4, 2 * (1 + 4))], ids=["once_per_rollout", "every_4_steps"])
def test_exploration_noise_is_drawn_at_sde_sample_freq(sde_sample_freq, draws):
    """Noise is drawn once per rollout, or at its start and then every fourth of its 16 steps."""
    model = make_model(env=RandomEnv(action_space=CONTINUOUS), use_sde=True, sde_sample_freq=sde_sample_freq)
    reset_noise, calls = model.policy.reset_noise, []
    model.policy.reset_noise = lambda *args: (calls.append(1), reset_noise(*args))
    model.learn(32)
    assert len(calls) == draws


def test_learns_behind_vec_normalize():
    """VecNormalize updates its statistics while the model learns, and the buffer holds normalised rewards."""
    env = VecNormalize(vector_env(2, rewards=lambda step: 1e4 * (step % 3)), gamma=0.9)
    model = make_model(env=env)
    assert_learns(model)
    assert model.get_vec_normalize_env() is env
    assert env.obs_rms.count > 96
    assert np.abs(model.rollout_buffer.rewards).max() <= env.clip_reward


@pytest.mark.parametrize("action_space", [ACTIONS["discrete"], CONTINUOUS], ids=["discrete", "box"])
@pytest.mark.parametrize("normalize_advantage", [False, True], ids=["raw", "normalized"])
def test_learns_from_one_step_of_one_environment(normalize_advantage, action_space):
    """A single advantage has no standard deviation, but normalising it does not make the weights NaN."""
    env = RandomEnv(action_space=action_space)
    model = make_model(env=env, n_steps=1, normalize_advantage=normalize_advantage, batch_size=3)
    assert_learns(model, steps=20)
    assert model._n_updates == 20


def test_equal_advantages_do_not_change_the_policy():
    """If all advantages of a rollout are equal, normalised advantages do not change the policy."""
    model = make_model(env=RandomEnv(rewards=lambda _: 0.1), n_steps=30, gamma=0.0, normalize_advantage=True)
    critic = [name for name in weights(model) if "value" in name]
    with th.no_grad():
        for name, parameter in model.policy.named_parameters():
            if name in critic:
                parameter.zero_()  # each advantage is 0.1 then
    before = weights(model)
    model.learn(30)
    assert differing(before, weights(model)) == {"value_net.bias"}


FLAT = "SB3 takes a Box, Discrete, MultiDiscrete or MultiBinary"
TWO_DIMENSIONS = spaces.MultiDiscrete([[2, 3], [2, 2]])
NO_OBSERVATIONS = {
    "multi_discrete_2d": (TWO_DIMENSIONS, r"shape \(2, 2\).*one dimension.*TransformObservation"),
    "graph": (spaces.Graph(VECTOR, None), f"observation space Graph.*{FLAT}.*a wrapper"),
    "text": (spaces.Text(5), f"observation space Text.*{FLAT}.*a wrapper"),
    "sequence": (spaces.Sequence(spaces.Discrete(2)), f"observation space Sequence.*{FLAT}.*a wrapper"),
    "one_of": (spaces.OneOf((VECTOR, CONTINUOUS)), f"observation space OneOf.*{FLAT}.*a wrapper"),
    "tuple": (spaces.Tuple((VECTOR, VECTOR)), f"observation space Tuple.*{FLAT}.*FlattenObservation"),
    "nested": (spaces.Dict(a=spaces.Dict(b=VECTOR)), f"observation space Dict.*{FLAT}.*FlattenObservation"),
    "tuple_in_dict": (spaces.Dict(a=spaces.Tuple((VECTOR, VECTOR))), f"observation space Dict.*{FLAT}.*FlattenObservation"),
    "text_in_dict": (spaces.Dict(a=spaces.Text(5)), f"observation space Dict.*{FLAT}.*a wrapper"),
    "2d_in_dict": (spaces.Dict(a=TWO_DIMENSIONS, b=VECTOR), "one dimension.*TransformObservation"),
    "no_dimension": (spaces.Box(-1, 1, ()), r"of the shape \(\).*ReshapeObservation"),
    "no_dimension_in_dict": (spaces.Dict(a=spaces.Box(-1, 1, ())), r"of the shape \(\).*ReshapeObservation"),
    "no_entry": (spaces.Box(-1, 1, (2, 0)), r"observations .* of the shape \(2, 0\), which have no elements"),
    "no_part": (spaces.Dict({}), "at least one entry"),
}
NO_ACTIONS = {
    "multi_discrete_2d": (TWO_DIMENSIONS, r"shape \(2, 2\).*one dimension.*TransformAction"),
    "multi_binary_2d": (spaces.MultiBinary([2, 2]), "MultiBinary of one dimension.*TransformAction"),
    "no_entry": (spaces.Box(-1, 1, (0,)), r"actions .* of the shape \(0,\), which have no elements"),
    "infinite": (spaces.Box(-np.inf, np.inf, (2,)), "needs finite bounds"),
    "half_infinite": (spaces.Box(0, np.inf, (2,)), "needs finite bounds"),
    "dict": (spaces.Dict(a=spaces.Discrete(2)), f"action space Dict.*{FLAT}.*no Dict and no Tuple.*a wrapper"),
    "tuple": (spaces.Tuple((spaces.Discrete(2),)), f"action space Tuple.*{FLAT}.*no Dict and no Tuple.*a wrapper"),
    "text": (spaces.Text(3), f"action space Text.*{FLAT}"),
    "graph": (spaces.Graph(VECTOR, None), f"action space Graph.*{FLAT}"),
    "sequence": (spaces.Sequence(spaces.Discrete(2)), f"action space Sequence.*{FLAT}"),
    "one_of": (spaces.OneOf((VECTOR, CONTINUOUS)), f"action space OneOf.*{FLAT}"),
}
REFUSED = [
    *(
        pytest.param({"observation_space": space}, message, id=f"observe_{name}")
        for name, (space, message) in NO_OBSERVATIONS.items()
    ),
    *(pytest.param({"action_space": space}, message, id=f"act_{name}") for name, (space, message) in NO_ACTIONS.items()),
]


class PlainVecEnv(DummyVecEnv):
    """A VecEnv with spaces for which DummyVecEnv cannot allocate its buffers."""

    def __init__(self, env):
        super().__init__([RandomEnv])
        self.observation_space, self.action_space = env.observation_space, env.action_space


def make_env(how, kwargs):
    if how == "id":
        name = f"Odd{len(registry)}-v0"
        register(name, lambda: RandomEnv(**kwargs), disable_env_checker=True)
        return name
    return RandomEnv(**kwargs) if how == "env" else PlainVecEnv(RandomEnv(**kwargs))


@pytest.mark.parametrize("how", ["env", "id", "vec_env"])
@pytest.mark.parametrize(("kwargs", "message"), REFUSED)
def test_spaces_that_sb3_does_not_support_are_refused(kwargs, message, how):
    """Both algorithms refuse spaces that A2C refuses too, and name the space and a wrapper that helps."""
    env = make_env(how, kwargs)
    multi = isinstance(kwargs.get("observation_space"), spaces.Dict)
    policy = "MultiInputPolicy" if multi else "MlpPolicy"
    with pytest.raises(Exception):  # noqa: B017, PT011  # of many classes
        A2C(policy, make_env(how, kwargs), n_steps=4).learn(8)
    with pytest.raises(ValueError, match=f"(?s){message}"):
        VPG(policy, env)
    with pytest.raises(ValueError, match=f"(?s){message}"):
        RandomSearch("LinearPolicy", env)


@pytest.mark.parametrize("how", ["set_env", "load"])
@pytest.mark.parametrize("model", [VPG("MlpPolicy", RandomEnv()), RandomSearch("LinearPolicy", RandomEnv())], ids=type)
def test_set_env_and_load_refuse_them(model, how, tmp_path):
    model.save(tmp_path / "model")
    for env, message in (
        (RandomEnv(spaces.Tuple((VECTOR,))), "observation space Tuple"),
        (gym.make_vec("CartPole-v1", 2), r"wrap it in sb3_vpg\.vec_env\.GymVecEnv"),
        (RandomEnv, "which makes one: call it"),
    ):
        with pytest.raises(ValueError, match=message):
            model.set_env(env) if how == "set_env" else type(model).load(tmp_path / "model", env=env)


@pytest.mark.parametrize("algorithm", [VPG, RandomSearch])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: gym.make_vec("CartPole-v1", 2), r"vector environment of gymnasium.*GymVecEnv.*make_vec_env"),
        (lambda: gym.make_vec("Acrobot-v1", 2, vectorization_mode="sync"), "SyncVectorEnv.*GymVecEnv"),
        (lambda: RandomEnv, "env must be an environment, but is .*RandomEnv.*call it, or make several with .*make_vec_env"),
        (lambda: lambda: RandomEnv(), "which makes one: call it"),
        (lambda: [lambda: RandomEnv()], r"env must be an environment, but is \[.*DummyVecEnv.*make_vec_env\(id, n_envs"),
    ],
    ids=["native", "sync", "class", "function", "list"],
)
def test_other_objects_than_environments_are_refused(make, message, algorithm):
    policy = "MlpPolicy" if algorithm is VPG else "LinearPolicy"
    with pytest.raises(ValueError, match=message):
        algorithm(policy, make())


NOT_FROM_ZERO = {
    "discrete": spaces.Discrete(3, start=1),
    "negative": spaces.Discrete(3, start=-1),
    "multi_discrete": spaces.MultiDiscrete([2, 3], start=[0, 1]),
}


@pytest.mark.parametrize("how", ["env", "id", "vec_env"])
@pytest.mark.parametrize("space", NOT_FROM_ZERO.values(), ids=NOT_FROM_ZERO.keys())
def test_spaces_that_do_not_count_from_zero_are_refused(space, how):
    """SB3 accepts such spaces, but sends wrong actions and cannot encode the observations; VPG names a wrapper that helps."""
    with pytest.raises(AssertionError, match="is no action of"):
        A2C("MlpPolicy", make_env("env", {"action_space": space}), n_steps=50, seed=0).learn(50)
    with pytest.raises(ValueError, match=r"action space .*does not count from 0.*TransformAction add the start"):
        VPG("MlpPolicy", make_env(how, {"action_space": space}))
    for observations in (space, spaces.Dict(a=VECTOR, b=space)):
        for algorithm, policy in ((VPG, policy_for(observations)), (RandomSearch, "LinearPolicy")):
            with pytest.raises(ValueError, match=r"do not count from 0.*TransformObservation subtract the start"):
                algorithm(policy, make_env(how, {"observation_space": observations}))


@pytest.mark.parametrize(
    ("policy", "space", "message"),
    [
        ("MultiInputPolicy", VECTOR, r"MultiInputPolicy cannot read observations in Box.*use 'MlpPolicy' \(or 'CnnPolicy'"),
        (ActorCriticPolicy, DICT, "ActorCriticPolicy cannot read observations in Dict.*use 'MultiInputPolicy'"),
        ("LinearPolicy", DICT, "LinearPolicy cannot read observations in Dict.*use 'MultiInputPolicy'"),
        ("MlpPolicy", DICT, "use `MultiInputPolicy`"),
    ],
)
def test_a_policy_for_other_observations_is_refused(policy, space, message):
    """The constructor refuses such a policy and names one that fits."""
    with pytest.raises(ValueError, match=f"(?s){message}"):
        VPG(policy, RandomEnv(space))


class OneFeature(BaseFeaturesExtractor):
    """Features for observations that SB3's own extractors cannot flatten."""

    def __init__(self, observation_space):
        super().__init__(observation_space, 1)

    def forward(self, observations):
        return observations.reshape(len(observations), -1).sum(dim=1, keepdim=True)


class OwnPolicy(ActorCriticPolicy):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs, features_extractor_class=OneFeature)


@pytest.mark.parametrize("algorithm", [A2C, VPG])
@pytest.mark.parametrize("own", ["extractor", "policy"])
def test_a_users_extractor_may_support_other_spaces(own, algorithm):
    """VPG trains such policies, as A2C does."""
    options = {"policy_kwargs": {"features_extractor_class": OneFeature}} if own == "extractor" else {}
    policy = "MlpPolicy" if own == "extractor" else OwnPolicy
    algorithm(policy, RandomEnv(spaces.Box(-1, 1, ())), n_steps=4, device="cpu", **options).learn(16)


@pytest.mark.filterwarnings("ignore:.*Casting input x to numpy array:UserWarning")
@pytest.mark.parametrize("space", [spaces.Box(-1, 1, ()), spaces.Discrete(1)], ids=str)
@pytest.mark.parametrize("algorithm", [A2C, VPG])
def test_unusual_action_spaces_that_a2c_accepts_are_accepted(space, algorithm):
    algorithm("MlpPolicy", RandomEnv(action_space=space), n_steps=4, device="cpu").learn(16)
