"""
The user's own modules that a trained agent needs: those of its environment, its policy and its networks.

Loading a model imports no module that the file names, because the file may be untrusted. The folder of a run is the user's
own: ``train`` has imported the modules in ``args.yml`` and ``config.yml``, and commands that play the agent import them again.
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

from sb3_vpg.common.libraries import is_library
from sb3_vpg.zoo.advice import IMPORT_ADVICE
from sb3_vpg.zoo.hyperparams_schema import evaluated
from sb3_vpg.zoo.safe_yaml import read_yaml

_CLASS_KEYS = ("policy", "env_wrapper", "vec_env_wrapper", "callback")


def import_modules_of(settings: Path) -> list[str]:
    """
    Import the modules that a run was trained with.

    :param settings: the folder of ``args.yml`` and ``config.yml``; without these files, nothing is imported
    :return: the ``--gym-packages`` of the run that could be imported; a warning names the others
    :raises ValueError: if the policy or one of its networks cannot be imported
    """
    args = settings / "args.yml"
    packages = []
    for package in (read_yaml(args).get("gym_packages") if args.is_file() else None) or ():
        try:
            import_module(package)
            packages.append(package)
        except ImportError as error:
            # The user may have renamed the module and given the new name with --gym-packages
            warnings.warn(
                f"{args} names gym_packages {package}, which cannot be imported here: {error}; {IMPORT_ADVICE}", stacklevel=2
            )
    config = settings / "config.yml"
    try:
        # The zoo's loader imports classes that the file names as Python objects
        hyperparams, _ = get_saved_hyperparams(str(settings))
    except yaml.YAMLError as error:
        raise ValueError(
            f"{config} cannot be read, or names a class that cannot be imported here: {error}; {IMPORT_ADVICE}"
        ) from error
    check_classes(hyperparams, str(config), ("policy",))
    evaluated(hyperparams, ("policy_kwargs",), str(config))
    return packages


def check_classes(hyperparams: dict[str, Any], where: str, keys: Sequence[str] = _CLASS_KEYS) -> None:
    """
    Import the classes that an entry names. The zoo imports them later, but its errors do not say which key named them.

    :param hyperparams: the entry
    :param where: name of the entry in error messages
    :param keys: the keys whose classes are imported
    :raises ValueError: if a class cannot be imported
    """
    for key in keys:
        value = hyperparams.get(key)
        for item in value if isinstance(value, (list, tuple)) else [value]:
            # A wrapper with arguments is a dict from its name to them
            name = next(iter(item), None) if isinstance(item, dict) else item
            module, _, attribute = name.rpartition(".") if isinstance(name, str) else ("", "", "")
            if not module:
                continue
            try:
                exists = hasattr(import_module(module), attribute)
            except ImportError as error:
                raise ValueError(f"{where}: {key} {name} cannot be imported here ({error}); {IMPORT_ADVICE}") from error
            if not exists:
                raise ValueError(f"{where}: {key} is {name}, but the module {module} has no {attribute}")


def check_registered(env_id: str) -> None:
    """:raises ValueError: if the environment is not registered; the message names the most similar one"""
    if env_id in gym.registry or ":" in env_id:
        return
    close = get_close_matches(env_id, gym.registry, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else "."
    raise ValueError(
        f"{env_id} not found in gym registry{hint} To import the module that registers your own environment, add "
        "--gym-packages MODULE"
    )


def modules_named_by(data: bytes) -> list[str]:
    """
    :param data: the JSON settings in a model's archive
    :return: the modules of the user's own classes in the settings; they must be imported before the model is loaded
    """
    modules = [name.partition(":")[0] for name in _class_names(json.loads(data))]
    return [module for module in dict.fromkeys(modules) if not is_library(module)]


def _class_names(value: Any) -> Iterator[str]:
    """:return: the class names in decoded JSON, in the form that ``sb3_vpg.persistence.json_codec.encode`` writes"""
    if isinstance(value, dict) and isinstance(value.get("!class"), str):
        yield value["!class"]
    elif isinstance(value, (dict, list)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _class_names(item)


def command_of(module: str) -> list[str]:
    """
    :param module: a module of ours that can be run as a program
    :return: the command that runs it in a new process with this process's ``sys.path``, so that it finds the same modules
    """
    path = [str(entry) or os.getcwd() for entry in sys.path]
    run = f"runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
    return [sys.executable, "-c", f"import runpy, sys; sys.path[:] = {path!r}; {run}"]
