"""What an entry of a hyperparameter file must and may hold for our algorithms."""

import inspect
from collections.abc import Sequence
from typing import Any

import rl_zoo3.exp_manager
from rl_zoo3.utils import StoreDict
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from sb3_vpg.common.arguments import OnPolicyKwargs, real_number, refuse_unknown, whole_number
from sb3_vpg.random_search import BaseKwargs
from sb3_vpg.zoo.algorithms import algorithm_class
from sb3_vpg.zoo.commands import PYTHON_CONF

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
"""What the zoo evaluates as Python where it is a text."""
_SET_BY_FLAGS = ("env", "seed", "verbose", "device", "tensorboard_log", "_init_setup_model", "kwargs")


def check_entry(config: str, algo: str, env_id: str, hyperparams: dict[str, Any]) -> None:
    """
    :param config: the file, for the error's text
    :param algo: one of ours
    :param env_id: whose entry it is
    :param hyperparams: the entry; its ``n_timesteps`` becomes a number
    :raises ValueError: if it lacks a key or has one too many, or if a number is none
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
    """:return: the keys that an entry for one of ours may have"""
    algorithm = algorithm_class(algo)
    passed_on = OnPolicyKwargs if issubclass(algorithm, OnPolicyAlgorithm) else BaseKwargs
    accepted = {*inspect.signature(algorithm).parameters, *passed_on.__annotations__, *_READ_BY_THE_ZOO}
    return sorted(accepted.difference(_SET_BY_FLAGS))


def evaluated(hyperparams: dict[str, Any], keys: Sequence[str], where: str) -> dict[str, Any]:
    """
    :param hyperparams: of an entry
    :param keys: those whose texts are Python
    :param where: what to call the entry in an error
    :return: the same, with values in the place of these texts; they see the names that they see in the zoo, such as ``nn``
    :raises ValueError: if a text cannot be evaluated
    """
    found = dict(hyperparams)
    for key in keys:
        text = found.get(key)
        if isinstance(text, str):
            try:
                found[key] = eval(text, {**vars(rl_zoo3.exp_manager)})
            except NameError as error:
                raise ValueError(
                    f"{where}: {key} is {text!r}, where the name {error.name!r} is unknown: such a text knows nn and what "
                    f"else the zoo imports. Write classes and functions of your own {PYTHON_CONF}"
                ) from error
            except Exception as error:
                raise ValueError(
                    f"{where}: {key} is {text!r}, which Python cannot evaluate ({type(error).__name__}: {error}); write "
                    "it as in dict(name=value), or leave it out"
                ) from error
    return found


class NamedValues(StoreDict):
    """Its parent, which reads ``name:value`` with Python for a value, but an error names the one that cannot be evaluated."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        """
        See ``argparse.Action``.

        :raises ValueError: if a value cannot be evaluated
        """
        found: dict[str, Any] = {}
        for text in values:
            try:
                super().__call__(parser, namespace, [text], option_string)  # type: ignore[no-untyped-call]  # rl_zoo3's
            except NameError as error:
                raise ValueError(
                    f"{option_string} {text}: the name {error.name!r} is unknown. Put a text in quotes of its own, as in "
                    f"{option_string} \"policy:'MlpPolicy'\"; write classes and functions of your own {PYTHON_CONF}"
                ) from error
            except Exception as error:
                raise ValueError(
                    f"{option_string} {text}: the value is no Python ({type(error).__name__}: {error}); write name:value, and "
                    f"a text in quotes of its own: {option_string} \"policy:'MlpPolicy'\""
                ) from error
            found |= getattr(namespace, self.dest)
        setattr(namespace, self.dest, found)
