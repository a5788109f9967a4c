"""
Environments with a purpose: one that needs memory, and those of sb3_contrib that need action masks. Importing this package
registers them in Gymnasium; sb3_contrib is imported when one of its environments is made.
"""

from typing import Any

import gymnasium as gym

from sb3_vpg.envs.t_maze import TMaze

__all__ = ["ENV_IDS", "TMaze"]

_OF_CONTRIB: dict[str, dict[str, Any]] = {
    "InvalidActionEnvDiscrete": {"dim": 20, "n_invalid_actions": 10},
    "InvalidActionEnvMultiDiscrete": {"dims": [8, 8], "n_invalid_actions": 8},
    "InvalidActionEnvMultiBinary": {"dims": 4, "n_invalid_actions": 2},
}
"""Classes of sb3_contrib, and their arguments. Each step gives 1 for the one right action; an episode has 100 steps."""
ENV_IDS = ("TMaze-v0", *(f"{name}-v0" for name in _OF_CONTRIB))
"""What this package registers."""

gym.register("TMaze-v0", entry_point="sb3_vpg.envs.t_maze:TMaze", max_episode_steps=100, reward_threshold=3.9)
for _name, _kwargs in _OF_CONTRIB.items():
    gym.register(f"{_name}-v0", entry_point=f"sb3_contrib.common.envs:{_name}", kwargs=_kwargs, reward_threshold=99.0)
