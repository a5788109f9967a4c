"""Checks of hyperparameters: which keys an entry of a file must and may have, and which values can be evaluated."""

import inspect
from collections.abc import Sequence
from typing import Any

import rl_zoo3.exp_manager
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from sb3_vpg.common.arguments import OnPolicyKwargs, real_number, refuse_unknown, whole_number
from sb3_vpg.random_search import BaseKwargs
from sb3_vpg.zoo.advice import PYTHON_CONF
from sb3_vpg.zoo.algorithms import algorithm_class

_READ_BY_THE_ZOO = (
    "n_timesteps",
    "n_envs",
    "normalize",
    "frame_stack",
    "env_wrapper",
    "vec_env_wrapper",
    "callback",
    "monitor_kwargs",
    "env_kwargs",
)
WRITTEN_IN_PYTHON = ("normalize", "policy_kwargs", "replay_buffer_class", "replay_buffer_kwargs", "monitor_kwargs")
"""Keys whose value the zoo evaluates as Python if it is a string."""
_NOT_IN_ENTRIES = ("env", "seed", "verbose", "device", "tensorboard_log", "_init_setup_model", "kwargs")


def check_entry(config: str, algo: str, env_id: str, hyperparams: dict[str, Any]) -> None:
    """
    :param config: the file, for error messages
    :param algo: name of one of our algorithms
    :param env_id: environment id
    :param hyperparams: the entry; its ``n_timesteps`` is converted to a number in place
    :raises ValueError: if a key is missing or unknown, or if ``n_timesteps`` or ``n_envs`` is not a valid number
    """
    for key in ("n_timesteps", "policy"):
        if key not in hyperparams:
            raise ValueError(f"{config}: the entry for {env_id} needs {key!r}")
    hyperparams["n_timesteps"] = real_number(f"{config}: n_timesteps", hyperparams["n_timesteps"], low=1.0)
    whole_number(f"{config}, or -params: n_envs", hyperparams.get("n_envs", 1), at_least=1)
    try:
        refuse_unknown(algorithm_class(algo).__name__, hyperparams, known_keys(algo))
    except TypeError as error:
        raise ValueError(f"{config}, or -params: {error}") from None


def known_keys(algo: str) -> list[str]:
    """:return: the keys that an entry for one of our algorithms may have"""
    algorithm = algorithm_class(algo)
    inherited = OnPolicyKwargs if issubclass(algorithm, OnPolicyAlgorithm) else BaseKwargs
    accepted = {*inspect.signature(algorithm).parameters, *inherited.__annotations__, *_READ_BY_THE_ZOO}
    return sorted(accepted.difference(_NOT_IN_ENTRIES))


def evaluated(hyperparams: dict[str, Any], keys: Sequence[str], where: str) -> dict[str, Any]:
    """
    Evaluate strings as Python, with the same names that they can use in the zoo, such as ``nn``.

    :param hyperparams: an entry
    :param keys: the keys whose strings are evaluated
    :param where: name of the entry in error messages
    :return: a copy of the entry with the values of these strings
    :raises ValueError: if a string cannot be evaluated
    """
    evaluated_entry = dict(hyperparams)
    for key in keys:
        text = evaluated_entry.get(key)
        if isinstance(text, str):
            try:
                evaluated_entry[key] = eval(text, {**vars(rl_zoo3.exp_manager)})
            except NameError as error:
                raise ValueError(
                    f"{where}: {key} is {text!r}, where the name {error.name!r} is unknown: the text can use nn and the other "
                    f"names that the zoo imports. Write classes and functions of your own {PYTHON_CONF}"
                ) from error
            except Exception as error:
                raise ValueError(
                    f"{where}: {key} is {text!r}, which Python cannot evaluate ({type(error).__name__}: {error}); write it "
                    "like dict(name=value), or leave it out"
                ) from error
    return evaluated_entry
