"""
Classes in files are stored by name. Reading looks a name up among the modules that the program has already imported, and
imports nothing.
"""

import sys
from contextlib import suppress
from types import ModuleType
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor

from sb3_vpg.exceptions import UnknownClassError

_KINDS = (BasePolicy, BaseFeaturesExtractor, th.nn.Module, th.optim.Optimizer, RolloutBuffer, np.generic)
# Old files name these classes by the modules in which they were once defined
_RENAMED = {
    "sb3_vpg.buffers:EpisodeRolloutBuffer": "sb3_vpg.collection.buffers:EpisodeRolloutBuffer",
    "sb3_vpg.buffers:EpisodeDictRolloutBuffer": "sb3_vpg.collection.buffers:EpisodeDictRolloutBuffer",
    "sb3_vpg.linear_decision:LinearDecisionPolicy": "sb3_vpg.policies:LinearDecisionPolicy",
}


def class_name(cls: type) -> str:
    """:return: ``"module:name"``"""
    return f"{cls.__module__}:{cls.__qualname__}"


def with_current_names(value: Any) -> Any:
    """:return: the same JSON with the present name of each class that was renamed; for comparing settings"""
    if isinstance(value, list):
        return [with_current_names(item) for item in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"!class"} and isinstance(value["!class"], str):
        return {"!class": _RENAMED.get(value["!class"], value["!class"])}
    return {key: with_current_names(item) for key, item in value.items()}


def find_class(name: str) -> Any:
    """:raises UnknownClassError: if the module in ``name`` (see ``class_name``) is not imported or has no such class"""
    name = _RENAMED.get(name, name)
    module, _, path = name.partition(":")
    found: Any = sys.modules.get(module)
    for part in path.split("."):
        # getattr could make a module import something lazily
        names = object.__getattribute__(found, "__dict__") if isinstance(found, (ModuleType, type)) else {}
        found = names.get(part)
    # The running script may have imported a class that the script which saved the model had defined
    if isinstance(found, type) and (class_name(found) == name or module == "__main__"):
        return found
    if module == "__main__":
        raise UnknownClassError(
            f"the file names the class {name}, of the script that saved it: import {path} into the script that you run, from "
            "that script or from a module"
        )
    raise UnknownClassError(
        f"the file names the class {name}, which this program has not imported; import its module first (on the command line: "
        f"--gym-packages {module})"
    )


def _is_allowed(cls: type) -> bool:
    """:return: True if a file may name the class; of torch only layers and optimisers, since other modules may run code"""
    safe = "torch.optim." if issubclass(cls, th.optim.Optimizer) else "torch.nn.modules."
    of_torch = cls.__module__.partition(".")[0] == "torch"
    return issubclass(cls, _KINDS) and (not of_torch or f"{cls.__module__}.".startswith(safe))


def read_class(name: str) -> type:
    """As ``find_class``. :raises ValueError: also for a class that a file may not name"""
    cls: type = find_class(name)
    if not _is_allowed(cls):
        raise ValueError(f"the file names {name}, which is no policy, extractor, layer, optimiser, buffer or number type")
    return cls


def is_nameable(value: Any) -> bool:
    """:return: True for a class that ``read_class`` finds by its name"""
    if not isinstance(value, type) or not _is_allowed(value):
        return False
    with suppress(ValueError):
        return find_class(class_name(value)) is value
    return False
