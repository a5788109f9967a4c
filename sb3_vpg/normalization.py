"""
The statistics of a ``VecNormalize`` as plain values. A policy that learnt from normalised observations is worth nothing
without them, and SB3's ``VecNormalize.save`` is a pickle.
"""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from sb3_vpg.common.arguments import flag, real_number
from sb3_vpg.exceptions import RefusedFileError
from sb3_vpg.persistence.archives import STATISTICS, name_of, read_archive
from sb3_vpg.persistence.json_codec import decode
from sb3_vpg.persistence.memory_limit import loads
from sb3_vpg.vec_env.vec_normalize import _restore


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
