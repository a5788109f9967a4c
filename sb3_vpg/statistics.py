"""The running statistics of a ``VecNormalize``, which one NaN spoils for good."""

from copy import deepcopy
from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import VecNormalize

_STATISTICS = ("obs_rms", "ret_rms", "returns")


def copy_statistics(env: VecNormalize | None) -> dict[str, Any]:
    """:return: what ``restore_statistics`` takes; empty without a ``VecNormalize``"""
    return deepcopy(_statistics_of(env))


def are_statistics_finite(env: VecNormalize | None) -> bool:
    """:return: whether a later observation or reward can still be normalised"""
    runs = []
    for value in _statistics_of(env).values():
        for run in value.values() if isinstance(value, dict) else [value]:
            runs += [run] if isinstance(run, np.ndarray) else [run.mean, run.var]
    return all(np.isfinite(run).all() for run in runs)


def restore_statistics(env: VecNormalize | None, statistics: dict[str, Any]) -> None:
    """Give the environment back what ``copy_statistics`` has kept."""
    for name, value in statistics.items():
        setattr(env, name, value)


def _statistics_of(env: VecNormalize | None) -> dict[str, Any]:
    """:return: the running ones themselves"""
    return {} if env is None else {name: getattr(env, name) for name in _STATISTICS if hasattr(env, name)}
