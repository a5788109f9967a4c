"""Tell the modules of libraries from the user's own."""

_LIBRARIES = frozenset(("builtins", "torch", "numpy", "gymnasium", "stable_baselines3", "sb3_contrib", "rl_zoo3", "sb3_vpg"))


def is_library(module: str) -> bool:
    """:return: True if the module of this name is part of sb3_vpg or of a library that it builds on"""
    return module.partition(".")[0] in _LIBRARIES
