"""
Modules of the user's own that a trained agent needs: those of its environment, its policy and its networks.

A model's file names its classes, but loading it imports nothing, because the file may come from a stranger. The folder of a
run is the user's own: ``train`` has imported what ``args.yml`` and ``config.yml`` name, and whoever plays it imports it too.
"""

import json
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any

import gymnasium as gym
import yaml
from rl_zoo3 import get_saved_hyperparams

from sb3_vpg.zoo.commands import IMPORT_ADVICE
from sb3_vpg.zoo.hyperparams_schema import evaluated
from sb3_vpg.zoo.safe_yaml import read_yaml

_CLASSES = ("policy", "env_wrapper", "vec_env_wrapper", "callback")
# Every process of ours has imported these
_LIBRARIES = {"numpy", "torch", "stable_baselines3", "sb3_contrib", "rl_zoo3", "sb3_vpg"}


def import_modules_of(settings: Path) -> list[str]:
    """
    Import the modules that a run was trained with.

    :param settings: the folder of ``args.yml`` and ``config.yml``; where there is none, nothing is imported
    :return: the ``--gym-packages`` of the run, without those that are not there
    :raises ValueError: if the policy, or a network of it, cannot be imported
    """
    args = settings / "args.yml"
    packages = []
    for package in (read_yaml(args).get("gym_packages") if args.is_file() else None) or ():
        try:
            import_module(package)
            packages.append(package)
        except ImportError as error:
            # It may have another name by now, which the user has given with --gym-packages
            warnings.warn(
                f"{args} names gym_packages {package}, which cannot be imported here: {error}; {IMPORT_ADVICE}", stacklevel=2
            )
    config = settings / "config.yml"
    try:
        # The zoo's loader imports the classes that stand there as Python objects
        hyperparams, _ = get_saved_hyperparams(str(settings))
    except yaml.YAMLError as error:
        raise ValueError(
            f"{config} cannot be read, or names a class that cannot be imported here: {error}; {IMPORT_ADVICE}"
        ) from error
    check_classes(hyperparams, str(config), ("policy",))
    evaluated(hyperparams, ("policy_kwargs",), str(config))
    return packages


def check_classes(hyperparams: dict[str, Any], where: str, keys: Sequence[str] = _CLASSES) -> None:
    """
    Import the classes that an entry names, which the zoo imports later without a word about where they were named.

    :param hyperparams: the entry
    :param where: what to call it in an error
    :param keys: those that are looked at
    :raises ValueError: if one cannot be imported
    """
    for key in keys:
        value = hyperparams.get(key)
        for one in value if isinstance(value, (list, tuple)) else [value]:
            name = next(iter(one), None) if isinstance(one, dict) else one
            module, _, attribute = name.rpartition(".") if isinstance(name, str) else ("", "", "")
            try:
                found = bool(module) and hasattr(import_module(module), attribute)
            except ImportError as error:
                raise ValueError(f"{where}: {key} {name} cannot be imported here ({error}); {IMPORT_ADVICE}") from error
            if module and not found:
                raise ValueError(f"{where}: {key} is {name}, but the module {module} has no {attribute}")


def check_registered(env_id: str) -> None:
    """:raises ValueError: for an environment that nobody has registered"""
    if env_id in gym.registry or ":" in env_id:
        return
    close = get_close_matches(env_id, gym.registry, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else "."
    raise ValueError(
        f"{env_id} not found in gym registry{hint} An environment of your own is registered by its module: "
        "--gym-packages MODULE"
    )


def modules_named_by(data: bytes) -> list[str]:
    """
    :param data: the settings of a model, as its archive holds them
    :return: the modules of the user's own classes in it, which must be imported before the model is loaded
    """
    modules = [name.partition(":")[0] for name in _class_names(json.loads(data))]
    return [module for module in dict.fromkeys(modules) if module.partition(".")[0] not in _LIBRARIES]


def _class_names(value: Any) -> Iterator[str]:
    """See ``sb3_vpg.persistence.json_codec.encode``, which has written them."""
    if isinstance(value, dict) and isinstance(value.get("!class"), str):
        yield value["!class"]
    elif isinstance(value, (dict, list)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _class_names(item)


def command_of(module: str) -> list[str]:
    """
    :param module: of ours, which can be run as a program
    :return: the command for a process of its own, which finds every module that this process finds: also those in the folder
        of a script, and those that were put on ``sys.path``
    """
    path = [str(entry) or os.getcwd() for entry in sys.path]
    run = f"runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
    return [sys.executable, "-c", f"import runpy, sys; sys.path[:] = {path!r}; {run}"]
