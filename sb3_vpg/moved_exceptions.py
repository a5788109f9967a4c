"""Old import paths of the exceptions in ``sb3_vpg.exceptions``; they work, with a ``DeprecationWarning``."""

import sys
import warnings
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_HOME = "sb3_vpg.exceptions"
_MOVED = {
    "sb3_vpg.actors": ("DistributionError",),
    "sb3_vpg.archives": ("RefusedFileError",),
    "sb3_vpg.buffers": ("EndlessEpisodeError",),
    "sb3_vpg.checks": ("UnsoundNumberError",),
    "sb3_vpg.failures": ("EnvironmentFailedError",),
    "sb3_vpg.limits": ("TooLargeError",),
    "sb3_vpg.plain": ("NotPlainError",),
    "sb3_vpg.updates": ("DivergedError", "NotFiniteError"),
}


class _OldModules(MetaPathFinder, Loader):
    """Creates a module for each old path, which looks up its exceptions when they are used."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname in _MOVED else None

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__["__getattr__"] = partial(_moved, module.__name__)


def _moved(module: str, name: str) -> Any:
    if name not in _MOVED[module]:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    warnings.warn(f"{module}.{name} has moved: import it from {_HOME}", DeprecationWarning, stacklevel=2)
    return getattr(import_module(_HOME), name)


def install() -> None:
    """Add the old paths to Python's import system."""
    sys.meta_path.append(_OldModules())
