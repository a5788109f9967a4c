"""The step of SB3's ``DummyVecEnv`` without needless deep copies."""

from copy import deepcopy
from types import FrameType
from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import DummyVecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn

METHODS = {"step", "step_async", "step_wait", "_save_obs", "_obs_from_buf"}
"""Methods that ``step`` replaces. An environment on which a user has set one of them keeps its own ``step``."""
_UNCHANGING = {bool, int, float, str, type(None), np.float64, np.float32, np.bool_, np.int64}
"""Types whose objects never change, so they need no copy."""


def step(env: DummyVecEnv, actions: Any) -> VecEnvStepReturn:
    """Do what ``DummyVecEnv.step`` does, with fewer deep copies. It takes two thirds of the time."""
    env.actions = actions
    rewards, dones, buffers = env.buf_rews, env.buf_dones, env.buf_obs
    array = buffers.get(None)  # type: ignore[call-overload]  # SB3's key for observations that are not dicts
    infos = []
    for index, sub_env in enumerate(env.envs):
        observation, rewards[index], terminated, truncated, info = sub_env.step(actions[index])
        info["TimeLimit.truncated"] = truncated and not terminated
        done = dones[index] = terminated or truncated
        if done:
            info["terminal_observation"] = observation
        # An info with one entry holds only the flag set above
        infos.append(_copied(info) if len(info) > 1 else info.copy())
        if done:
            observation, env.reset_infos[index] = sub_env.reset()
        if array is None:
            env._save_obs(index, observation)
        else:
            array[index] = observation
    observations: Any = {key: part.copy() for key, part in buffers.items()} if array is None else array.copy()
    return observations, rewards.copy(), dones.copy(), infos


def _copied(info: dict[str, Any]) -> dict[str, Any]:
    """Return a deep copy; if all values are numbers or texts, a shallow copy, which is the same."""
    return info.copy() if _UNCHANGING.issuperset(map(type, info.values())) else deepcopy(info)


def stepped_env(frame: FrameType) -> Any:
    """:return: if the frame is one of ``step``, the environment that it was stepping; else None"""
    return frame.f_locals.get("sub_env") if frame.f_code is step.__code__ else None
