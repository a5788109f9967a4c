"""
Finding the owner of each parameter: with members of the spaces or the first rollout, without side effects, and from files.
"""

import random
from copy import deepcopy
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from helpers import CONTINUOUS, DICT, DISCRETE, IMAGE, VECTOR, RandomEnv, differing, make_model, vector_env, weights
from resumption import Crash, CrashAt, assert_same, disturb
from stable_baselines3 import A2C
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

from sb3_vpg import VPG
from sb3_vpg.checkpoints.callback import TrainingCheckpoint
from sb3_vpg.policies import MlpPolicy, MultiInputPolicy

LENGTHS = spaces.Dict(seq=spaces.Box(-1, 1, (5, 2)), length=spaces.Box(1, 5, (1,), np.int64))
SPACES = {
    "vector": VECTOR,
    "unbounded": spaces.Box(-np.inf, np.inf, (3,)),
    "far_from_zero": spaces.Box(np.array([1, -5, 2], np.float32), np.array([2, -4, np.inf], np.float32)),
    "whole_numbers": spaces.Box(1, 5, (3,), np.int64),
    "image": IMAGE,
    "discrete": DISCRETE,
    "multi_discrete": spaces.MultiDiscrete([2, 3]),
    "multi_binary": spaces.MultiBinary(4),
    "dict": DICT,
    "dict_of_lengths": LENGTHS,
}
ACTIONS = {
    "discrete": DISCRETE,
    "box": CONTINUOUS,
    "box_far_from_zero": spaces.Box(1.0, 2.0, (2,)),
    "multi_discrete": spaces.MultiDiscrete([2, 3]),
    "multi_binary": spaces.MultiBinary(4),
}


class Recording(ActorCriticPolicy):
    """Records the arguments of ``evaluate_actions``."""

    calls: list[tuple[Any, Any]]

    def evaluate_actions(self, obs, actions):
        vars(self).setdefault("calls", []).append((deepcopy(obs), deepcopy(actions)))
        return super().evaluate_actions(obs, actions)


class RecordingDict(Recording, MultiInputPolicy):
    pass


def rows(observations):
    if isinstance(observations, dict):
        return [{key: value[i].numpy() for key, value in observations.items()} for i in range(2)]
    return list(observations.numpy())


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES.keys())
def test_the_policy_is_probed_with_members_of_the_observation_space(space):
    """The observations that find the owners are members of the space, also of one without zero."""
    model = make_model(RecordingDict if isinstance(space, spaces.Dict) else Recording, RandomEnv(space))
    assert len(model.policy.calls) == 1
    for observation in rows(model.policy.calls[0][0]):
        if isinstance(observation, dict):
            own = model.observation_space
            # A discrete number has no dimension
            observation = {k: v.astype(own[k].dtype).reshape(own[k].shape)[()] for k, v in observation.items()}
        assert model.observation_space.contains(observation)
    assert model.critic_optimizer is not None


@pytest.mark.parametrize("space", ACTIONS.values(), ids=ACTIONS.keys())
def test_the_policy_is_probed_with_members_of_the_action_space(space):
    """The actions that find the owners are members of the space, counted from 0 as SB3's policies do."""
    model = make_model(Recording, vector_env(1, action_space=space))
    for action in model.policy.calls[0][1].numpy():
        member = action.astype(space.dtype) + getattr(space, "start", 0)
        assert space.contains(member)


class Packed(BaseFeaturesExtractor):
    """Reads sequences, and raises for a length of 0."""

    def __init__(self, space):
        super().__init__(space, 8)
        self.gru = nn.GRU(2, 8, batch_first=True)

    def forward(self, observations):
        lengths = observations["length"].flatten().cpu()
        packed = nn.utils.rnn.pack_padded_sequence(observations["seq"], lengths, batch_first=True, enforce_sorted=False)
        return self.gru(packed)[1][0]


def test_a_policy_that_cannot_read_zeros_is_trained_as_with_a2c():
    """If the policy raises for zeros, here for a sequence of length 0, the owners are found with other members."""
    kwargs = {"policy_kwargs": {"features_extractor_class": Packed}}
    A2C("MultiInputPolicy", RandomEnv(LENGTHS), **deepcopy(kwargs)).learn(10)
    model = make_model("MultiInputPolicy", RandomEnv(LENGTHS), **kwargs)
    before = weights(model)
    model.learn(32)
    assert differing(before, weights(model)) == set(before)


class Drawing(BaseFeaturesExtractor):
    """Draws from each random stream, has dropout, batch norm, a buffer that changes, and a frozen parameter."""

    def __init__(self, space):
        super().__init__(space, 3)
        self.layer = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5), nn.BatchNorm1d(3))
        self.register_buffer("mean", th.zeros(3))
        self.layer[0].bias.requires_grad_(False)

    def forward(self, observations):
        if (observations == 1.0).all():
            raise ValueError("refused at the lower bound")
        noise = float(th.rand(1)) + np.random.random() + random.random()
        self.mean = 0.9 * self.mean + 0.1 * observations.mean(dim=0)
        return self.layer(observations) + noise + self.mean


def test_finding_the_owners_has_no_side_effect():
    """After the constructor, random streams, buffers, frozen parameters and spaces are in the same state as with A2C."""
    states = []
    for cls in (A2C, VPG):
        env = RandomEnv(spaces.Box(1.0, 2.0, (3,)))
        env.observation_space.seed(3)
        env.action_space.seed(3)
        kwargs = {"share_features_extractor": True, "features_extractor_class": Drawing}
        model = cls("MlpPolicy", env, seed=7, policy_kwargs=kwargs)
        streams = [th.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()]
        streams += [str(one.np_random.bit_generator.state) for one in (model.observation_space, model.action_space)]
        frozen = {name for name, one in model.policy.named_parameters() if not one.requires_grad}
        modes = {name: one.training for name, one in model.policy.named_modules()}
        states.append((streams, frozen, modes, {name: value.tolist() for name, value in model.policy.state_dict().items()}))
    assert states[0] == states[1]


class UnitEnv(RandomEnv):
    """Observations of length 1, which no space of gymnasium can require."""

    def reset(self, **kwargs):
        observation, info = super().reset(**kwargs)
        return observation / np.linalg.norm(observation), info

    def step(self, action):
        observation, *rest = super().step(action)
        return (observation / np.linalg.norm(observation), *rest)


class AnyLength(BaseFeaturesExtractor):
    """A linear layer."""

    def __init__(self, space):
        super().__init__(space, 3)
        self.layer = nn.Linear(3, 3)

    def forward(self, observations):
        return self.layer(observations)


class UnitLength(AnyLength):
    """The same layer; raises for observations that are not of length 1."""

    def forward(self, observations):
        assert th.allclose(observations.norm(dim=1), th.ones(len(observations))), "not of length 1"
        return super().forward(observations)


def assert_same_parameters(first, second, tolerance=0.0):
    """Compare weights, the optimisers' states and options, and the owners of the parameters."""
    one, other = deepcopy(first.get_parameters()), deepcopy(second.get_parameters())
    assert one["policy.optimizer"].pop("split") == other["policy.optimizer"].pop("split")
    th.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


def make_unit_model(extractor, **kwargs):
    env = kwargs.pop("env", None)
    return make_model(env=UnitEnv() if env is None else env, policy_kwargs={"features_extractor_class": extractor}, **kwargs)


@pytest.mark.parametrize("mode", [{}, {"n_episodes": 2}, {"n_episodes": 2, "baseline": "optimal"}], ids=str)
def test_if_no_probe_works_the_first_rollout_finds_the_owners(mode):
    """If the policy raises for all probes, the first rollout finds the owners, and training gives the same weights."""
    probed, late = make_unit_model(AnyLength, **mode), make_unit_model(UnitLength, **mode)
    assert probed.critic_optimizer is not None
    assert late.critic_optimizer is None
    probed.learn(48)
    late.learn(48)
    # The optimal constant is a ratio of sums, which here include the critic's gradients of zero
    tolerance = 1e-5 if mode.get("baseline") == "optimal" else 0
    assert_same_parameters(probed, late, tolerance)


def test_models_without_a_split_save_load_and_restart(model_path):
    """A model without a split is saved and loaded, and its parameters take a trained model back to its start."""
    model = make_unit_model(UnitLength)
    model.save(model_path)
    start = deepcopy(model.get_parameters())
    loaded = VPG.load(model_path, env=UnitEnv())
    assert loaded.critic_optimizer is None
    ends = []
    for trained in (model, loaded):
        trained.learn(32)
        ends.append(weights(trained))
    assert not differing(*ends)
    model.set_parameters(start)
    assert model.critic_optimizer is None
    assert not differing(start["policy"], weights(model))
    model.learn(32)
    assert model.critic_optimizer is not None


@pytest.mark.parametrize("how", ["load", "set_parameters_file", "set_parameters_dict"])
def test_the_split_comes_with_the_file(how, model_path):
    """The file holds the split, so a loaded model needs no rollout to find the owners."""
    model = make_unit_model(UnitLength).learn(32)
    model.save(model_path)
    if how == "load":
        loaded = VPG.load(model_path, env=UnitEnv())
    else:
        loaded = make_unit_model(UnitLength, seed=1)
        loaded.set_parameters(str(model_path) if how == "set_parameters_file" else model.get_parameters())
    assert_same_parameters(loaded, model)
    before = weights(loaded)
    loaded.learn(16)
    assert differing(before, weights(loaded)) == set(before)


@pytest.mark.parametrize("killed_at", [10, 60], ids=["before_the_first_update", "later"])
def test_a_killed_training_resumes_exactly_if_no_probe_works(killed_at, tmp_path):
    def script(callback, folder):
        model = make_unit_model(UnitLength, env=UnitEnv())
        model.env.seed(5)
        checkpoint = TrainingCheckpoint(folder, save_freq=16, verbose=0)
        return model.learn(96, [checkpoint, *callback])

    uninterrupted = script([], tmp_path / "whole")
    with pytest.raises(Crash):
        script([CrashAt(killed_at)], tmp_path / "killed")
    disturb()
    assert_same(uninterrupted, script([], tmp_path / "killed"))


class Broken(AnyLength):
    """Raises an error of the user."""

    def forward(self, observations):
        if th.is_grad_enabled():
            raise KeyError("my own mistake")
        return super().forward(observations)


def test_an_error_in_the_policy_reaches_the_user():
    """The user's error reaches the caller, with a note that says what VPG was doing."""
    with pytest.raises(KeyError, match="my own mistake") as error:
        make_unit_model(Broken).learn(16)
    notes = getattr(error.value, "__notes__", None)
    assert notes is None or "to find the parameters that only the critic uses" in notes[0]


class Branching(BaseFeaturesExtractor):
    """Uses one layer for observations that are all zero, and another one for the others."""

    def __init__(self, space):
        super().__init__(space, 3)
        self.nothing, self.something = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, observations):
        return (self.something if observations.any() else self.nothing)(observations)


def test_layers_that_no_probe_uses_are_assigned_by_the_first_rollout(model_path):
    """A layer that no probe has used is trained as by A2C, also the critic's, and the file holds its owner."""
    kwargs = {"policy_kwargs": {"features_extractor_class": Branching, "share_features_extractor": False}}
    moved = []
    for model in (A2C(MlpPolicy, RandomEnv(), n_steps=16, seed=0, **deepcopy(kwargs)), make_model(**kwargs)):
        before = weights(model)
        model.learn(32)
        moved.append({name for name in differing(before, weights(model)) if "extractor.something" in name})
    assert moved[0] == moved[1]
    assert "vf_features_extractor.something.weight" in moved[1]
    model.save(model_path)
    loaded = VPG.load(model_path)
    assert_same_parameters(loaded, model)


def test_the_probe_is_zero_if_the_space_contains_it():
    """If zero is a member of the space, it is used, so old files get the same split as before."""
    env = gym.make("CartPole-v1")
    model = VPG(Recording, env, device="cpu")
    assert model.policy.calls[0][0].abs().sum() == 0
