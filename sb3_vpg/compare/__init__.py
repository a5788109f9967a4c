"""
Compares algorithms over several seeds: ``compare``, which the command ``sb3-vpg compare`` calls.

The runs are ordinary runs of rl-zoo3 with its tuned hyperparameters, on the cores of this machine or on a Ray cluster. A
comparison that was stopped can be continued. The report has confidence intervals (Agarwal et al. 2021, arXiv 2108.13264).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sb3_vpg.compare.api import compare
    from sb3_vpg.compare.results import Comparison

__all__ = ["Comparison", "compare"]

# Imported on first use, because ``sb3-vpg compare --help`` does not need torch
_HOMES = {"Comparison": "sb3_vpg.compare.results", "compare": "sb3_vpg.compare.api"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
