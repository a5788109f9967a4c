"""The running statistics of a ``VecNormalize``, which one NaN spoils for good."""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import numpy as np
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, VecNormalize

_STATISTICS = ("obs_rms", "ret_rms", "returns")


def normalizers(env: VecEnv | None) -> list[VecNormalize]:
    """:return: those among the wrappers of ``env``, from the outermost in"""
    found = []
    while isinstance(env, VecEnvWrapper):
        if isinstance(env, VecNormalize):
            found.append(env)
        env = env.venv
    return found


def copy_statistics(layers: Sequence[VecNormalize]) -> list[dict[str, Any]]:
    """:return: what ``restore_statistics`` takes, for each of ``layers``"""
    return [deepcopy(_statistics_of(layer)) for layer in layers]


def are_statistics_finite(layers: Sequence[VecNormalize]) -> bool:
    """:return: whether a later observation or reward can still be normalised"""
    runs = []
    for value in (value for layer in layers for value in _statistics_of(layer).values()):
        for run in value.values() if isinstance(value, dict) else [value]:
            runs += [run] if isinstance(run, np.ndarray) else [run.mean, run.var]
    return all(np.isfinite(run).all() for run in runs)


def restore_statistics(layers: Sequence[VecNormalize], statistics: list[dict[str, Any]]) -> None:
    """Give the wrappers back what ``copy_statistics`` has kept."""
    for layer, kept in zip(layers, statistics, strict=True):
        for name, value in kept.items():
            setattr(layer, name, value)


def _statistics_of(layer: VecNormalize) -> dict[str, Any]:
    """:return: the running ones themselves"""
    return {name: getattr(layer, name) for name in _STATISTICS if hasattr(layer, name)}


_ARGUMENTS = ("norm_obs", "norm_reward", "clip_obs", "clip_reward", "gamma", "epsilon", "norm_obs_keys")


def describe(env: VecNormalize) -> dict[str, Any]:
    """:return: the arguments of ``VecNormalize`` and its running means and variances"""
    observations: Any = getattr(env, "obs_rms", None)
    if isinstance(observations, dict):
        observations = {key: _numbers(rms) for key, rms in observations.items()}
    elif observations is not None:
        observations = _numbers(observations)
    return {**{name: getattr(env, name) for name in _ARGUMENTS}, "obs_rms": observations, "ret_rms": _numbers(env.ret_rms)}


def _restore(env: VecNormalize, state: dict[str, Any]) -> None:
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
