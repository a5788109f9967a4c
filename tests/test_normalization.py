"""A model's file holds the statistics of its ``VecNormalize``, which ``load_vec_normalize`` restores."""

import json
import zipfile

import numpy as np
import pytest
from helpers import CONTINUOUS, DICT, RandomEnv, make_model, vector_env
from stable_baselines3.common.vec_env import VecFrameStack, VecNormalize

from sb3_vpg import VPG, RandomSearch
from sb3_vpg.exceptions import RefusedFileError
from sb3_vpg.normalization import load_vec_normalize


def statistics(env):
    observations = getattr(env, "obs_rms", None)
    parts = observations if isinstance(observations, dict) else {"": observations}
    return [
        (name, rms.mean, rms.var, rms.count) for name, rms in [*parts.items(), ("returns", env.ret_rms)] if rms is not None
    ]


VECTOR_ENVS = {
    "default": ({}, {}),
    "options": ({}, {"clip_obs": 3.0, "clip_reward": 2.0, "gamma": 0.5, "epsilon": 1e-3}),
    "rewards_alone": ({}, {"norm_obs": False}),
    "observations_alone": ({}, {"norm_reward": False}),
    "dict": ({"observation_space": DICT}, {"norm_obs_keys": ["vector"]}),
}


@pytest.mark.parametrize(("env_kwargs", "kwargs"), VECTOR_ENVS.values(), ids=VECTOR_ENVS.keys())
def test_statistics_are_restored_to_the_last_bit(env_kwargs, kwargs, model_path):
    """Statistics and arguments are restored, so the same observation and reward are normalised to the same numbers."""
    env = VecNormalize(vector_env(2, **env_kwargs), **kwargs)
    policy = "MultiInputPolicy" if env_kwargs else "MlpPolicy"
    make_model(policy, env).learn(64).save(model_path)
    restored = load_vec_normalize(model_path, vector_env(2, **env_kwargs))
    for first, second in zip(statistics(env), statistics(restored), strict=True):
        np.testing.assert_equal(first, second)
    for name in ("norm_obs", "norm_reward", "clip_obs", "clip_reward", "gamma", "epsilon", "norm_obs_keys"):
        assert getattr(restored, name) == getattr(env, name), name
    observation = vector_env(2, **env_kwargs).reset()
    np.testing.assert_equal(restored.normalize_obs(observation), env.normalize_obs(observation))
    np.testing.assert_equal(restored.normalize_reward(np.ones(2)), env.normalize_reward(np.ones(2)))


def test_statistics_are_json_and_fit_any_number_of_environments(model_path):
    make_model(env=VecNormalize(vector_env(2))).learn(64).save(model_path)
    with zipfile.ZipFile(model_path) as archive:
        assert json.loads(archive.read("vecnormalize.json"))["clip_obs"] == 10.0
    restored = load_vec_normalize(model_path, vector_env(5))
    VPG.load(model_path, env=restored, device="cpu").learn(80)
    assert restored.num_envs == 5


def test_statistics_below_another_wrapper_are_found(model_path):
    env = VecFrameStack(VecNormalize(vector_env(2)), 2)
    make_model(env=env).learn(64).save(model_path)
    assert load_vec_normalize(model_path, vector_env(2)).obs_rms.count == env.venv.obs_rms.count


def test_random_search_saves_statistics(model_path):
    env = VecNormalize(vector_env(2, action_space=CONTINUOUS))
    RandomSearch("LinearPolicy", env, seed=0).learn(64).save(model_path)
    np.testing.assert_array_equal(load_vec_normalize(model_path, vector_env(2)).obs_rms.mean, env.obs_rms.mean)


def test_a_model_without_statistics_is_refused(model_path):
    make_model().save(model_path)
    with pytest.raises(RefusedFileError, match=r"model\.zip holds no statistics of a VecNormalize"):
        load_vec_normalize(model_path, vector_env(1))


def test_another_environment_is_refused(model_path):
    make_model(env=VecNormalize(vector_env(2))).save(model_path)
    with pytest.raises(RefusedFileError, match=r"vecnormalize\.json.*observations have the shapes \(3,\) .* but need \(4,\)"):
        load_vec_normalize(model_path, four_numbers())
    with pytest.raises(RefusedFileError, match=r"vecnormalize\.json.*does not fit"):
        load_vec_normalize(model_path, vector_env(1, observation_space=DICT))


def four_numbers():
    space = RandomEnv().observation_space
    return vector_env(1, observation_space=type(space)(-1.0, 1.0, (4,), np.float32))


def test_a_missing_file_is_a_file_not_found_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_vec_normalize(tmp_path / "nowhere.zip", vector_env(1))


class BrokenVecEnv(VecFrameStack):
    """A user's VecEnv that raises an error."""

    broken = False

    def __getattribute__(self, name):
        if name == "num_envs" and BrokenVecEnv.broken:
            raise TypeError("mine")
        return super().__getattribute__(name)


def test_an_error_of_the_users_environment_is_raised_unchanged(model_path, monkeypatch):
    make_model(env=VecNormalize(vector_env(2))).learn(32).save(model_path)
    env = BrokenVecEnv(vector_env(2), 1)
    load_vec_normalize(model_path, env)
    monkeypatch.setattr(BrokenVecEnv, "broken", True)
    with pytest.raises(TypeError, match="mine"):
        load_vec_normalize(model_path, env)
