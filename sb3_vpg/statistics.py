"""The running statistics of a ``VecNormalize``, which one NaN spoils for good."""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import numpy as np
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
