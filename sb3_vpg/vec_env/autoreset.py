"""
Resets each environment in the step that ends its episode, for all three autoreset modes of gymnasium's vector environments.

SB3 expects the first observation of the new episode together with the end of the old one. gymnasium's default is
``AutoresetMode.NEXT_STEP``: the step *after* the end ignores its action, gives no reward and resets. A learner would take this
step for a transition of the task, one in every episode.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
from gymnasium.vector import AutoresetMode, VectorEnv

from sb3_vpg.common.observations import put, take, unstack
from sb3_vpg.exceptions import VecEnvContractError
from sb3_vpg.vec_env.infos import Batch, own_observations, split_infos

ResetHook = Callable[[Any, np.ndarray], Any]
"""
``hook(env, mask)`` resets at once exactly the environments where ``mask``, bool of shape (n_envs,), is True, so that the next
step steps all environments. It returns their first observations: shape (mask.sum(), *shape), or a dict of such arrays.
"""


def reset_cart_poles(env: CartPoleVectorEnv, mask: np.ndarray) -> np.ndarray:
    """The hook for gymnasium's CartPole: draws new states from the bounds of the last ``reset``, as its own reset does."""
    count = int(np.count_nonzero(mask))
    states: np.ndarray = env.np_random.uniform(low=env.low, high=env.high, size=(4, count))
    env.state[:, mask] = states  # type: ignore[index]  # None only before the first reset
    env.steps[mask] = 0
    env.prev_done[mask] = False
    return states.T.astype(np.float32)


RESET_HOOKS: dict[type[VectorEnv], ResetHook] = {CartPoleVectorEnv: reset_cart_poles}
"""Looked up by exact class: a subclass may have more state than its parent's hook resets."""


@dataclass
class AutoresetResult:
    """
    The result of a step in which episodes ended.

    :param observations: of all environments; where an episode ended, the first of the new one
    :param terminal: the last observation of each ended episode, by ascending index of the environment
    :param infos: infos of the step by index of the environment
    :param reset_infos: infos of the resets by index of the environment
    """

    observations: Batch
    terminal: list[Any]
    infos: dict[int, dict[str, Any]]
    reset_infos: dict[int, dict[str, Any]]


Autoreset = Callable[[VectorEnv, Batch, dict[str, Any], np.ndarray], AutoresetResult]
"""Takes the environment, its observations and infos after a step, and the mask of ended episodes (bool, shape (n_envs,))."""


def autoreset_of(env: VectorEnv, hook: ResetHook | None) -> Autoreset:
    """
    :param env: the outermost vector environment
    :param hook: the user's hook for an environment that resets in the next step; called with ``env``
    :return: the function that completes a step in which episodes ended
    :raises ValueError: if the environment's metadata has no autoreset mode, if it resets in the next step and there is no
        hook, or if a hook is given for another mode
    """
    mode = _autoreset_mode(env)
    if mode == AutoresetMode.NEXT_STEP:
        return _with_hook(hook if hook is not None else _known_hook(env))
    if hook is not None:
        raise ValueError(f"{env} resets in the mode {mode.value}, which needs no reset_hook; leave it out")
    return _in_same_step if mode == AutoresetMode.SAME_STEP else _with_reset_mask


def _autoreset_mode(env: VectorEnv) -> AutoresetMode:
    named = env.metadata.get("autoreset_mode")
    try:
        return AutoresetMode(named)
    except ValueError:
        raise ValueError(
            f"{env} must say in metadata['autoreset_mode'] when it resets, with a gymnasium.vector.AutoresetMode, "
            f"but has {named!r}; without it, ends of episodes would be misinterpreted"
        ) from None


def _known_hook(env: VectorEnv) -> ResetHook:
    hook = RESET_HOOKS.get(type(env))
    if hook is not None:
        return hook
    problem = f"{env} resets in the step after an episode's end, which is not a transition of the task"
    if type(env.unwrapped) in RESET_HOOKS:
        raise ValueError(
            f"{problem}, and resetting {type(env.unwrapped).__name__} at once would bypass its wrappers; put GymVecEnv around "
            "the bare environment and SB3's VecEnvWrappers around GymVecEnv, or pass a reset_hook that respects the wrappers"
        )
    raise ValueError(
        f"{problem}; build it with autoreset_mode=AutoresetMode.SAME_STEP (SyncVectorEnv and AsyncVectorEnv take that), "
        "or pass a reset_hook that resets single environments at once"
    )


def _with_hook(hook: ResetHook) -> Autoreset:
    def autoreset(env: VectorEnv, observations: Batch, info: dict[str, Any], ended: np.ndarray) -> AutoresetResult:
        indices = np.flatnonzero(ended)
        terminal = unstack(take(observations, indices))
        put(observations, indices, hook(env, ended))
        return AutoresetResult(observations, terminal, split_infos(info, range(env.num_envs)), {})

    return autoreset


def _with_reset_mask(env: VectorEnv, observations: Batch, info: dict[str, Any], ended: np.ndarray) -> AutoresetResult:
    indices = np.flatnonzero(ended)
    terminal = unstack(take(observations, indices))
    infos = split_infos(info, range(env.num_envs))
    # A copy, because the environment may keep the mask or write to it
    first, reset_info = env.reset(options={"reset_mask": ended.copy()})
    first = own_observations(env.single_observation_space, first, copy=False)
    put(observations, indices, take(first, indices))
    return AutoresetResult(observations, terminal, infos, split_infos(reset_info, indices.tolist()))


_FINAL = ("final_obs", "_final_obs", "final_info", "_final_info")


def _in_same_step(env: VectorEnv, observations: Batch, info: dict[str, Any], ended: np.ndarray) -> AutoresetResult:
    if "final_obs" not in info:
        raise VecEnvContractError(
            f"the autoreset mode of {env} is SAME_STEP, but an episode ended without 'final_obs' in the infos"
        )
    indices = np.flatnonzero(ended).tolist()
    space, final = env.single_observation_space, info["final_obs"]
    terminal = [own_observations(space, row, copy=True) for row in unstack(take(final, indices))]
    infos = split_infos({key: value for key, value in info.items() if key not in _FINAL}, range(env.num_envs))
    # gymnasium puts the infos of the reset beside "final_info"
    reset_infos = {index: infos.pop(index) for index in indices if index in infos}
    infos.update(split_infos(info.get("final_info", {}), indices))
    return AutoresetResult(observations, terminal, infos, reset_infos)
