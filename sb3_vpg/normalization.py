"""
Read the statistics of a ``VecNormalize`` from a model's file. A policy that was trained on normalised observations needs
them, and SB3's ``VecNormalize.save`` writes a pickle.
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
from sb3_vpg.vec_env.vec_normalize import fill_statistics


def has_statistics(path: str | os.PathLike[str]) -> bool:
    """
    Return True if a model's file holds statistics of a ``VecNormalize``; False also for files of other programs.

    :raises FileNotFoundError: if there is no such file
    """
    try:
        return STATISTICS in read_archive(path)
    except RefusedFileError:
        return False


def load_vec_normalize(path: str | os.PathLike[str] | io.BufferedIOBase, venv: VecEnv) -> VecNormalize:
    """
    Wrap an environment in the ``VecNormalize`` of the model in this file. Nothing is unpickled.

    :param path: of a model that was trained on a ``VecNormalize`` and saved by ``VPG.save`` or ``RandomSearch.save``
    :param venv: the environment to wrap
    :return: the wrapped environment, for further training; to evaluate, set ``training`` and ``norm_reward`` to False
    :raises RefusedFileError: if the file is damaged, holds no statistics, or holds those of another observation space
    :raises FileNotFoundError: if there is no such file
    """
    name = name_of(path)
    members = read_archive(path)
    if STATISTICS not in members:
        raise RefusedFileError(
            f"{name} holds no statistics of a VecNormalize: its model was trained without one, or not saved by sb3_vpg"
        )
    with _refusing(name):
        state = decode(loads(members[STATISTICS]))
        arguments = _arguments(state)
    with _refusing(name, (ValueError, KeyError)):
        env = VecNormalize(venv, **arguments)
    with _refusing(name):
        fill_statistics(env, state)
    return env


# For code that uses nothing but the file's values
_ERRORS = (ValueError, TypeError, LookupError, AttributeError, AssertionError, ArithmeticError, RecursionError)


@contextmanager
def _refusing(name: str, errors: tuple[type[Exception], ...] = _ERRORS) -> Iterator[None]:
    """Turn errors into ``RefusedFileError``."""
    try:
        yield
    except errors as error:
        raise RefusedFileError(f"{name}: {STATISTICS!r} does not fit this environment: {error}") from error


def _arguments(state: dict[str, Any]) -> dict[str, Any]:
    keys = state["norm_obs_keys"]
    return {
        **{name: flag(name, state[name]) for name in ("norm_obs", "norm_reward")},
        **{name: real_number(name, state[name]) for name in ("clip_obs", "clip_reward", "epsilon")},
        "gamma": real_number("gamma", state["gamma"], high=1.0),
        "norm_obs_keys": None if keys is None else [str(key) for key in keys],
    }
