"""VPG learns on every space that SB3's on-policy algorithms support, and with SB3's wrappers of environments."""

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from helpers import CONTINUOUS, DICT, IMAGE, VECTOR, RandomEnv, differing, make_model, vector_env, weights
from stable_baselines3 import A2C
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import SubprocVecEnv, VecNormalize

from sb3_vpg import VPG

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
