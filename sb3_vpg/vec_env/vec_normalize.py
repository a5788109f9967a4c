"""The running statistics of ``VecNormalize``: copies, checks for NaN (one NaN stays in them for ever), and plain values."""

from copy import deepcopy
from typing import Any

import numpy as np
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, VecNormalize

_STATISTICS = ("obs_rms", "ret_rms", "returns")


def wrappers_of(env: VecEnv | None) -> list[VecEnvWrapper]:
    """:return: the wrappers around a vector environment, the outermost first"""
    wrappers = []
    while isinstance(env, VecEnvWrapper):
        wrappers.append(env)
        env = env.venv
    return wrappers


def normalizers(env: VecEnv | None) -> list[VecNormalize]:
    """:return: the ``VecNormalize`` wrappers of ``env``, the outermost first"""
    return [wrapper for wrapper in wrappers_of(env) if isinstance(wrapper, VecNormalize)]


def are_statistics_finite(layer: VecNormalize) -> bool:
    """:return: True if all means, variances and returns are finite"""
    arrays = []
    for value in _statistics_of(layer).values():
        for part in value.values() if isinstance(value, dict) else [value]:
            arrays += [part] if isinstance(part, np.ndarray) else [part.mean, part.var]
    return all(np.isfinite(array).all() for array in arrays)


class StatisticsSnapshot:
    """
    A copy of the statistics of all ``VecNormalize`` of an environment, to restore them after an error.

    :param env: with any number of ``VecNormalize``
    """

    def __init__(self, env: VecEnv | None) -> None:
        self._layers = normalizers(env)
        self._copies = [deepcopy(_statistics_of(layer)) for layer in self._layers]

    def are_still_finite(self) -> bool:
        """Return whether the statistics of the environment, not those of the copy, are finite now."""
        return all(map(are_statistics_finite, self._layers))

    def restore(self) -> None:
        """Put the copy back into the wrappers."""
        for layer, copied in zip(self._layers, self._copies, strict=True):
            for name, value in copied.items():
                setattr(layer, name, value)


def _statistics_of(layer: VecNormalize) -> dict[str, Any]:
    """:return: the statistics themselves, not copies, by the name of the attribute"""
    return {name: getattr(layer, name) for name in _STATISTICS if hasattr(layer, name)}


_ARGUMENTS = ("norm_obs", "norm_reward", "clip_obs", "clip_reward", "gamma", "epsilon", "norm_obs_keys")


def normalizer_state(env: VecNormalize) -> dict[str, Any]:
    """:return: the arguments of ``VecNormalize`` and its running means and variances"""
    observations: Any = getattr(env, "obs_rms", None)
    if isinstance(observations, dict):
        observations = {key: _numbers(rms) for key, rms in observations.items()}
    elif observations is not None:
        observations = _numbers(observations)
    return {**{name: getattr(env, name) for name in _ARGUMENTS}, "obs_rms": observations, "ret_rms": _numbers(env.ret_rms)}


def fill_statistics(env: VecNormalize, state: dict[str, Any]) -> None:
    """Set the statistics from ``normalizer_state``. :raises ValueError: if a shape or key differs, or a number is invalid"""
    own, given = getattr(env, "obs_rms", None), state["obs_rms"]
    if isinstance(own, dict):
        if own.keys() != given.keys():
            raise ValueError(f"it has statistics of {sorted(given)}, but the observations are {sorted(own)}")
        for key, rms in own.items():
            _fill(rms, given[key], key)
    elif own is not None:
        _fill(own, given, "observations")
    _fill(env.ret_rms, state["ret_rms"], "returns")


def _numbers(rms: RunningMeanStd) -> dict[str, Any]:
    return {"mean": rms.mean, "var": rms.var, "count": rms.count}


def _fill(rms: RunningMeanStd, numbers: dict[str, Any], what: str) -> None:
    mean, var, count = (np.asarray(numbers[name], dtype=np.float64) for name in ("mean", "var", "count"))
    shape = np.shape(rms.mean)
    if mean.shape != shape or var.shape != shape:
        raise ValueError(f"the statistics of the {what} have the shapes {mean.shape} and {var.shape}, but need {shape}")
    if not (np.isfinite(mean).all() and np.isfinite(var).all() and (var >= 0).all() and 0 < count < np.inf):
        raise ValueError(f"the statistics of the {what} hold numbers that are NaN, infinite or negative")
    rms.mean, rms.var, rms.count = mean, var, float(count)
