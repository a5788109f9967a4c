"""Check the arguments of constructors. Every error names the argument, its value and how to correct it."""

import inspect
import math
import operator
import os
import sys
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from functools import partial
from typing import Any, TypedDict

import numpy as np
import torch as th
from stable_baselines3 import DQN, SAC, TD3
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.common.utils import FloatSchedule, LinearSchedule, get_device

_MAX_ROLLOUT_STEPS = 2**31
_MAX_FLOAT32 = float(np.finfo(np.float32).max)
ScheduleLike = float | str | Schedule
"""A number, a function of the remaining progress (1 at the start, 0 at the end), or the zoo's ``"lin_0.001"``."""


class OnPolicyKwargs(TypedDict, total=False):
    """The arguments of SB3's ``OnPolicyAlgorithm`` that our algorithms pass on unchanged."""

    rollout_buffer_class: type[RolloutBuffer] | None
    rollout_buffer_kwargs: dict[str, Any] | None
    stats_window_size: int
    tensorboard_log: str | None
    monitor_wrapper: bool
    policy_kwargs: dict[str, Any] | None
    verbose: int
    seed: int | None
    device: th.device | str


_ONE_STEP = "VPG takes one policy step per rollout, so there is nothing to bound; lower 'learning_rate' to make it smaller"
_SEARCH = "VPG takes a plain gradient step without a line search; set its size with 'learning_rate'"
_OFF_POLICY = "it is an argument of off-policy algorithms; VPG has no replay buffer; the rollout length is 'n_steps'"
_RMS_PROP = "use policy_kwargs={'optimizer_class': torch.optim.RMSprop, 'optimizer_kwargs': {'eps': 1e-5}}"
_COUNTERPARTS = {
    "vf_coef": "the critic has its own optimiser; set its step size with 'vf_learning_rate' and its number of passes with "
    "'n_critic_updates'",
    "lr": "the step size of the policy is 'learning_rate', that of the critic 'vf_learning_rate'",
    "n_epochs": "the policy takes one step per rollout; the critic's number of passes is 'n_critic_updates'",
    **dict.fromkeys(("clip_range", "clip_range_vf", "target_kl"), _ONE_STEP),
    **dict.fromkeys(("use_rms_prop", "rms_prop_eps"), _RMS_PROP),
    **dict.fromkeys(("cg_max_steps", "cg_damping", "line_search_shrinking_factor", "line_search_max_iter"), _SEARCH),
    "sub_sampling_factor": "the policy gradient uses all steps of a rollout; 'batch_size' sets the critic's minibatch size",
}
"""Arguments of A2C, PPO and TRPO that VPG does not take, and what to use instead."""


def refuse_unknown(algorithm: str, given: Iterable[str], known: Iterable[str]) -> None:
    """
    :param algorithm: its name, for the error
    :param given: the keywords of a call
    :param known: the keywords that the algorithm takes
    :raises TypeError: if a keyword is unknown; the message names the counterpart of an argument of another algorithm, or
        suggests the most similar keyword
    """
    known = list(known)
    for name in given:
        if name not in known:
            raise TypeError(f"{algorithm}() got an unexpected keyword argument {name!r}{_hint(name, known)}")


def _hint(name: str, known: list[str]) -> str:
    """:return: what to use instead of an unknown keyword; empty if there is no good guess"""
    if name == "n_envs":
        return ": create a vectorized environment, with stable_baselines3.common.env_util.make_vec_env(env_id, n_envs=...)"
    # RandomSearch has no gradient step, so learning arguments have no counterpart in it
    if "learning_rate" in known:
        if name in _COUNTERPARTS:
            return f": {_COUNTERPARTS[name]}"
        # Only after a mistake, because it takes time
        from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy

        if any(name in inspect.signature(policy).parameters for policy in (ActorCriticPolicy, RecurrentActorCriticPolicy)):
            return f": it is an argument of the policy; pass policy_kwargs={{{name!r}: ...}}"
        if any(name in inspect.signature(algorithm).parameters for algorithm in (DQN, SAC, TD3)):
            return f": {_OFF_POLICY}"
    close = get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def check_keywords(algorithm: str, given: Any, known: Iterable[str]) -> None:
    """
    Check the keywords of ``OnPolicyKwargs``, which SB3 itself does not check.

    :param algorithm: its name, for the error
    :param given: a dict of keywords. Its values are converted in place to plain ones, such as NumPy's integers to ints
    :param known: the keywords that the algorithm takes
    :raises TypeError: as ``refuse_unknown``
    :raises ValueError: for a value that SB3 cannot use
    """
    refuse_unknown(algorithm, given, known)
    for name in given.keys() & _KEYWORD_CHECKS.keys():
        given[name] = _KEYWORD_CHECKS[name](name, given[name])


def whole_number(name: str, value: Any, at_least: int) -> int:
    """
    :raises ValueError: if ``value`` is not an integer (a float such as 64.0 is not) or is below ``at_least``
    """
    try:
        number = operator.index(value)
    except TypeError:
        raise ValueError(f"{name} must be a whole number, but is {value!r:.200} ({type(value).__name__})") from None
    if number < at_least:
        raise ValueError(f"{name} must be at least {at_least}, but is {number}")
    if number > sys.maxsize:
        raise ValueError(f"{name} must be at most {sys.maxsize}, but has {number.bit_length()} bits")
    return number


def real_number(name: str, value: Any, low: float = 0.0, high: float = math.inf) -> float:
    """
    :raises ValueError: if ``value`` is not a number, is NaN, or lies outside ``[low, high]`` (``high`` may be infinite)
    """
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{name} must be a number, but is {value!r:.200} ({type(value).__name__})") from None
    if not low <= number <= high:
        span = f"between {low:g} and {high:g}" if math.isfinite(high) else f"at least {low:g}"
        raise ValueError(f"{name} must be {span}, but is {number}")
    return number


def flag(name: str, value: Any) -> bool:
    """
    :raises ValueError: if ``value`` is not a bool, such as the text "False", which Python counts as true
    """
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(f"{name} must be True or False, but is {value!r:.200} ({type(value).__name__})")
    return bool(value)


def _path(name: str, value: Any) -> str | None:
    path = os.fspath(value) if isinstance(value, (str, os.PathLike)) else value
    if path is not None and not isinstance(path, str):
        raise ValueError(f"{name} must be a path or None, but is {value!r:.200} ({type(value).__name__})")
    # A subclass of str, such as NumPy's, could not be saved as JSON
    return None if path is None else str(path)


def _keywords(name: str, value: Any) -> Any:
    if value is not None and not (isinstance(value, dict) and all(isinstance(key, str) for key in value)):
        raise ValueError(f"{name} must be a dict of keyword arguments or None, but is {value!r:.200}")
    return value


def _buffer(name: str, value: Any) -> Any:
    if value is not None and not (isinstance(value, type) and issubclass(value, RolloutBuffer)):
        raise ValueError(f"{name} must be a subclass of RolloutBuffer or None, but is {value!r:.200}")
    return value


def _device(name: str, value: Any) -> Any:
    try:
        return get_device(value)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"{name} must be a device such as 'auto', 'cpu' or 'cuda', but is {value!r:.200}: {error}") from error


_KEYWORD_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "verbose": partial(whole_number, at_least=0),
    "stats_window_size": partial(whole_number, at_least=1),
    "monitor_wrapper": flag,
    "policy_kwargs": _keywords,
    "rollout_buffer_kwargs": _keywords,
    "tensorboard_log": _path,
    "rollout_buffer_class": _buffer,
    "device": _device,
}


class CheckedSchedule(FloatSchedule):
    """
    SB3's ``FloatSchedule`` with two differences: it refuses values that are negative, NaN or infinite, and it treats a
    progress below 0 as 0. SB3's progress falls a little below 0 when the last rollout overshoots ``total_timesteps``; a linear
    schedule would then be negative, and the last update would go backwards.

    :param name: of the argument, for the error
    :param value: number, schedule, or ``"lin_0.001"`` (from 0.001 at the start to 0 at the end of training)
    :raises ValueError: for an invalid constant or text; a call raises it if the schedule returns an invalid value
    """

    def __init__(self, name: str, value: ScheduleLike) -> None:
        self.name = name
        super().__init__(_parse_schedule(name, value))
        try:
            self(1.0)
        except TypeError as error:
            raise TypeError(f"{name} must be a function of the remaining progress that returns a number: {error}") from error

    def __call__(self, progress_remaining: float) -> float:
        progress = max(progress_remaining, 0.0)
        value = real_number(f"{self.name} (at progress {progress:.3g})", super().__call__(progress))
        if value > _MAX_FLOAT32:
            raise ValueError(f"{self.name} must be finite in single precision, but is {value} at progress {progress:.3g}")
        return value


def _parse_schedule(name: str, value: ScheduleLike) -> float | Callable[[float], float]:
    if isinstance(value, str):
        start = value.removeprefix("lin_")
        try:
            number = float(start)
        except ValueError:
            raise ValueError(
                f"{name} must be a number, a schedule or 'lin_<start>' such as 'lin_0.001', but is {value!r}"
            ) from None
        number = real_number(name, number)
        # A number may come as a text, because YAML reads 1e-3 as one
        return number if start == value else LinearSchedule(number, 0.0, 1.0)
    # Calling a class would create an object instead of a value
    if callable(value) and not isinstance(value, type):
        return value
    return real_number(name, value)


def check_arguments(model: Any) -> None:
    """
    Check the constructor arguments that a ``VPG`` has as attributes, and convert them to plain ints, floats and bools.

    :raises ValueError: for the first one that is invalid
    """
    if not hasattr(model, "n_envs"):
        raise ValueError("env must be an environment or its id; only load accepts None, for models that only predict")
    if not isinstance(model.baseline, str):
        raise ValueError(f"baseline must be a name, but is {model.baseline!r:.200}")
    for name in ("normalize_advantage", "reward_to_go", "discount_steps", "use_sde"):
        setattr(model, name, flag(name, getattr(model, name)))
    for name, least in (("n_steps", 1), ("n_critic_updates", 1), ("batch_size", 1), ("sde_sample_freq", -1), ("seed", 0)):
        if getattr(model, name) is not None or name not in ("batch_size", "seed"):
            setattr(model, name, whole_number(name, getattr(model, name), least))
    if model.seed is not None and model.seed >= 2**32:
        raise ValueError(f"seed must be below 2**32, but is {model.seed}")
    if model.n_steps * whole_number("n_envs", model.n_envs, at_least=1) > _MAX_ROLLOUT_STEPS:
        raise ValueError(
            f"n_steps must be at most {_MAX_ROLLOUT_STEPS:,} for all environments together, but is {model.n_steps:,}"
        )
    # With a max_grad_norm of 0 nothing would be learnt
    for name, low, high in (("gamma", 0.0, 1.0), ("gae_lambda", 0.0, 1.0), ("max_grad_norm", 1e-12, math.inf)):
        setattr(model, name, real_number(name, getattr(model, name), low, high))
    CheckedSchedule("ent_coef", model.ent_coef)
