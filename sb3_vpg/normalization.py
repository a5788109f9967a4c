"""
The statistics of a ``VecNormalize`` as plain values. A policy that learnt from normalised observations is worth nothing
without them, and SB3's ``VecNormalize.save`` is a pickle.
"""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from sb3_vpg.archives import STATISTICS, RefusedFileError, name_of, read_archive
from sb3_vpg.arguments import flag, real_number
from sb3_vpg.limits import loads
from sb3_vpg.plain import decode

_ARGUMENTS = ("norm_obs", "norm_reward", "clip_obs", "clip_reward", "gamma", "epsilon", "norm_obs_keys")


def describe(env: VecNormalize) -> dict[str, Any]:
    """:return: the arguments of ``VecNormalize`` and its running means and variances"""
    observations: Any = getattr(env, "obs_rms", None)
    if isinstance(observations, dict):
        observations = {key: _numbers(rms) for key, rms in observations.items()}
    elif observations is not None:
        observations = _numbers(observations)
    return {**{name: getattr(env, name) for name in _ARGUMENTS}, "obs_rms": observations, "ret_rms": _numbers(env.ret_rms)}


def has_statistics(path: str | os.PathLike[str]) -> bool:
    """:return: whether a model's file holds statistics of a ``VecNormalize``; False for files that we have not written"""
    try:
        return STATISTICS in read_archive(path)
    except RefusedFileError:
        return False


def load_vec_normalize(path: str | os.PathLike[str] | io.BufferedIOBase, venv: VecEnv) -> VecNormalize:
    """
    Normalise as the model in this file was used to, without unpickling anything.

    :param path: of a model that ``VPG.save`` has written while it was trained on a ``VecNormalize``
    :param venv: the environment to wrap
    :return: it, normalised, to go on training; for playing set ``training`` and ``norm_reward`` to False
    :raises RefusedFileError: for a file that is damaged or holds no such statistics, or none for this environment
    :raises FileNotFoundError: if there is no such file
    """
    name = name_of(path)
    members = read_archive(path)
    if STATISTICS not in members:
        raise RefusedFileError(
            f"{name} holds no statistics of a VecNormalize: its model was trained without, or not saved by us"
        )
    with _fitting(name):
        state = decode(loads(members[STATISTICS]))
        arguments = _arguments(state)
    try:
        env = VecNormalize(venv, **arguments)
    except (ValueError, KeyError) as error:
        raise RefusedFileError(f"{name}: {STATISTICS!r} does not fit this environment: {error}") from error
    with _fitting(name):
        _restore(env, state)
    return env


@contextmanager
def _fitting(name: str) -> Iterator[None]:
    """Around what is done with the file's values alone: whatever goes wrong is the file's fault."""
    try:
        yield
    except (ValueError, TypeError, LookupError, AttributeError, AssertionError, ArithmeticError, RecursionError) as error:
        raise RefusedFileError(f"{name}: {STATISTICS!r} does not fit this environment: {error}") from error


def _arguments(state: dict[str, Any]) -> dict[str, Any]:
    keys = state["norm_obs_keys"]
    return {
        **{name: flag(name, state[name]) for name in ("norm_obs", "norm_reward")},
        **{name: real_number(name, state[name]) for name in ("clip_obs", "clip_reward", "epsilon")},
        "gamma": real_number("gamma", state["gamma"], high=1.0),
        "norm_obs_keys": None if keys is None else [str(key) for key in keys],
    }


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
