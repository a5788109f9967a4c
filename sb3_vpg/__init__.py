"""sb3-vpg: vanilla policy gradient (REINFORCE) for Stable-Baselines3, and random search to compare it with.

The names below are imported on first use, since importing torch takes seconds and ``sb3-vpg --help`` does not need it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sb3_vpg import moved_exceptions
from sb3_vpg.version import __version__

if TYPE_CHECKING:
    from sb3_vpg.maskable_vpg import MaskableVPG
    from sb3_vpg.policies import CnnPolicy, LinearPolicy, MlpPolicy, MultiInputPolicy
    from sb3_vpg.random_search import RandomSearch
    from sb3_vpg.recurrent_vpg import RecurrentVPG
    from sb3_vpg.vpg import VPG

moved_exceptions.install()

__all__ = [
    "VPG",
    "CnnPolicy",
    "LinearPolicy",
    "MaskableVPG",
    "MlpPolicy",
    "MultiInputPolicy",
    "RandomSearch",
    "RecurrentVPG",
    "__version__",
]

_HOMES = {
    "VPG": "sb3_vpg.vpg",
    "MaskableVPG": "sb3_vpg.maskable_vpg",
    "RandomSearch": "sb3_vpg.random_search",
    "RecurrentVPG": "sb3_vpg.recurrent_vpg",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES.get(name, "sb3_vpg.policies")), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
