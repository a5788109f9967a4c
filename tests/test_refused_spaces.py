"""Spaces and environments that VPG and RandomSearch refuse, with the way to convert them."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.registration import register, registry
from helpers import CONTINUOUS, DICT, VECTOR, RandomEnv
from stable_baselines3 import A2C
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_vpg import VPG
from sb3_vpg.random_search import RandomSearch

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


def policy_for(observation_space):
    return "MultiInputPolicy" if isinstance(observation_space, spaces.Dict) else "MlpPolicy"


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
    policy = policy_for(kwargs.get("observation_space"))
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
