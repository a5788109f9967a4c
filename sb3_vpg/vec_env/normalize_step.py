"""
``VecNormalize.step_wait`` with less overhead. The arithmetic and its order are the same, so all numbers are the same to the
last bit. What is left out are copies of observations, and NumPy's functions that are written in Python, which take most of
the time with few environments.
"""

from typing import Any

import numpy as np
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecNormalize
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn

METHODS = {"normalize_obs", "normalize_reward", "_normalize_obs", "_update_reward"}
"""Methods that ``normalized`` replaces. A ``VecNormalize`` on which a user has set one of them keeps its own step."""
_N_NUMBERS = len(vars(RunningMeanStd()))
"""More attributes than these mean that a method was replaced on the object."""


def can_normalize(env: VecNormalize) -> bool:
    """Return whether SB3's own methods update all statistics of the environment."""
    of_observations: Any = env.obs_rms if env.norm_obs else {}
    parts = of_observations.values() if isinstance(of_observations, dict) else [of_observations]
    return all(type(rms) is RunningMeanStd and len(vars(rms)) == _N_NUMBERS for rms in (env.ret_rms, *parts))


def normalized(env: VecNormalize, result: VecEnvStepReturn) -> VecEnvStepReturn:
    """
    Do what ``env.step_wait`` does after the step of the environment inside.

    :param env: an environment for which ``can_normalize`` is True
    :param result: what the step of the environment inside returned; its infos are changed in place, as SB3 does
    :return: the result with normalised observations and rewards
    """
    observations: Any
    observations, rewards, dones, infos = result
    env.old_obs, env.old_reward = observations, rewards
    observations = _normalize_observations(env, observations) if env.norm_obs else env.normalize_obs(observations)
    if env.training:
        env.returns = env.returns * env.gamma + rewards
        _update(env.ret_rms, env.returns)
    if env.norm_reward:
        rewards = _scaled(rewards, env.ret_rms.var + env.epsilon, env.clip_reward)
    else:
        rewards = rewards.astype(np.float32)
    for index in np.flatnonzero(dones) if dones.any() else ():
        if "terminal_observation" in infos[index]:
            infos[index]["terminal_observation"] = env.normalize_obs(infos[index]["terminal_observation"])
        env.returns[index] = 0
    return observations, rewards, dones, infos


def _normalize_observations(env: VecNormalize, observations: Any) -> Any:
    statistics: Any = env.obs_rms
    if not isinstance(observations, dict):
        if env.training:
            _update(statistics, observations)
        return _scaled(observations - statistics.mean, statistics.var + env.epsilon, env.clip_obs)
    if env.training:
        for key, rms in statistics.items():
            _update(rms, observations[key])
    normalized = {key: array.copy() for key, array in observations.items()}
    for key in env.norm_obs_keys or ():
        rms = statistics[key]
        normalized[key] = _scaled(observations[key] - rms.mean, rms.var + env.epsilon, env.clip_obs)
    return normalized


def _scaled(numbers: np.ndarray, variance: Any, limit: float) -> np.ndarray:
    """Return the numbers divided by the standard deviation, clipped, in float32."""
    scaled: np.ndarray = numbers / np.sqrt(variance)
    np.maximum(scaled, -limit, out=scaled)
    np.minimum(scaled, limit, out=scaled)
    result: np.ndarray = scaled.astype(np.float32)
    return result


def _update(rms: RunningMeanStd, batch: np.ndarray) -> None:
    """Do what ``rms.update`` does: combine its mean and variance with those of the batch."""
    if batch.dtype not in (np.float32, np.float64):
        # np.mean converts the others
        rms.update(batch)
        return
    n, count = len(batch), rms.count
    mean = np.add.reduce(batch, axis=0) / n
    deviation = batch - mean
    deviation *= deviation
    variance = np.add.reduce(deviation, axis=0) / n
    delta = mean - rms.mean
    total = count + n
    sum_of_squares = rms.var * count + variance * n + delta * delta * count * n / total
    rms.mean = rms.mean + delta * n / total
    rms.var = sum_of_squares / total
    rms.count = n + count
