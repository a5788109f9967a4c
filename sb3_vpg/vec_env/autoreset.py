"""
Three ways in which a gymnasium vector environment begins the next episode, made one: in the very step that ends the last.

SB3 wants the first observation of the new episode to come with the end of the old one. gymnasium's own default is another
(``AutoresetMode.NEXT_STEP``): the step *after* an end ignores its action, pays nothing and resets. To a learner it would
look like a transition of the task, of which there would be one in every episode. Here it never happens.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
from gymnasium.vector import AutoresetMode, VectorEnv

from sb3_vpg.common.observations import put, unstack
from sb3_vpg.exceptions import VecEnvContractError
from sb3_vpg.vec_env.infos import Batch, own_observation, own_observations, split_infos, take

ResetHook = Callable[[Any, np.ndarray], Any]
"""
``hook(env, mask)`` resets the environments that ``mask``, bool of shape (n_envs,), names, at once and no others, so that
the environment's next step steps all of them. It returns their first observations: (mask.sum(), *shape), or a dict of such.
"""


def reset_cart_poles(env: CartPoleVectorEnv, mask: np.ndarray) -> np.ndarray:
    """
    The hook for gymnasium's own CartPole: new states from the bounds of the last ``reset``, as its own reset draws them.
    """
    count = int(np.count_nonzero(mask))
    states: np.ndarray = env.np_random.uniform(low=env.low, high=env.high, size=(4, count))
    env.state[:, mask] = states  # type: ignore[index]  # None until reset, and what has ended was reset before
    env.steps[mask] = 0
    env.prev_done[mask] = False
    return states.T.astype(np.float32)


RESET_HOOKS: dict[type[VectorEnv], ResetHook] = {CartPoleVectorEnv: reset_cart_poles}
"""By exact class: a subclass may keep more state than its parent's hook resets."""


@dataclass
class EpisodeTurnover:
    """
    What a step with ended episodes leaves behind.

    :param observations: of all environments; of those whose episode ended, the first of the new one
    :param terminal: the last observation of each ended episode, in the order of their indices
    :param infos: what the step told, by index
    :param reset_infos: what the resets told, by index
    """

    observations: Batch
    terminal: list[Any]
    infos: dict[int, dict[str, Any]]
    reset_infos: dict[int, dict[str, Any]]


Autoreset = Callable[[VectorEnv, Batch, dict[str, Any], np.ndarray], EpisodeTurnover]
"""From the environment, its observations and infos after a step, and the mask of ended episodes to what SB3 is told."""


def autoreset_of(env: VectorEnv, hook: ResetHook | None) -> Autoreset:
    """
    :param env: the outermost vector environment
    :param hook: the user's own for an environment that resets in the next step; called with ``env``
    :return: how the environment begins new episodes
    :raises ValueError: if the environment does not say how it resets, if it resets in the next step and there is no hook,
        or if a hook has nothing to do
    """
    mode = _autoreset_mode(env)
    if mode == AutoresetMode.NEXT_STEP:
        return _by_hook(hook if hook is not None else _known_hook(env))
    if hook is not None:
        raise ValueError(f"{env} resets in the mode {mode.value}, which needs no reset_hook; leave it out")
    return _same_step if mode == AutoresetMode.SAME_STEP else _by_mask


def _autoreset_mode(env: VectorEnv) -> AutoresetMode:
    named = env.metadata.get("autoreset_mode")
    try:
        return AutoresetMode(named)
    except ValueError:
        raise ValueError(
            f"{env} must say in metadata['autoreset_mode'] when it resets, with a gymnasium.vector.AutoresetMode, "
            f"but has {named!r}; without it, ends of episodes could be misread"
        ) from None


def _known_hook(env: VectorEnv) -> ResetHook:
    hook = RESET_HOOKS.get(type(env))
    if hook is not None:
        return hook
    problem = f"{env} resets in the step after an episode's end, which is no transition of the task"
    if type(env.unwrapped) in RESET_HOOKS:
        raise ValueError(
            f"{problem}, and resetting {type(env.unwrapped).__name__} at once would bypass its wrappers; put GymVecEnv around "
            "the bare environment and SB3's VecEnvWrappers around GymVecEnv, or pass a reset_hook that minds the wrappers"
        )
    raise ValueError(
        f"{problem}; build it with autoreset_mode=AutoresetMode.SAME_STEP (SyncVectorEnv and AsyncVectorEnv take that), "
        "or pass a reset_hook that resets single environments at once"
    )


def _by_hook(hook: ResetHook) -> Autoreset:
    def turn(env: VectorEnv, observations: Batch, info: dict[str, Any], ended: np.ndarray) -> EpisodeTurnover:
        indices = np.flatnonzero(ended)
        terminal = unstack(take(observations, indices))
        put(observations, indices, hook(env, ended))
        return EpisodeTurnover(observations, terminal, split_infos(info, range(env.num_envs)), {})

    return turn


def _by_mask(env: VectorEnv, observations: Batch, info: dict[str, Any], ended: np.ndarray) -> EpisodeTurnover:
    indices = np.flatnonzero(ended)
    terminal = unstack(take(observations, indices))
    infos = split_infos(info, range(env.num_envs))
    # The environment may keep the mask or write to it
    first, reset_info = env.reset(options={"reset_mask": ended.copy()})
    first = own_observations(env.single_observation_space, first, copy=False)
    put(observations, indices, take(first, indices))
    return EpisodeTurnover(observations, terminal, infos, split_infos(reset_info, indices.tolist()))


_FINAL = ("final_obs", "_final_obs", "final_info", "_final_info")


def _same_step(env: VectorEnv, observations: Batch, info: dict[str, Any], ended: np.ndarray) -> EpisodeTurnover:
    if "final_obs" not in info:
        raise VecEnvContractError(
            f"{env} claims to reset in the same step, but an episode ended without 'final_obs' in the infos"
        )
    indices = np.flatnonzero(ended).tolist()
    space, final = env.single_observation_space, info["final_obs"]
    terminal = [own_observation(space, row) for row in (unstack(take(final, np.asarray(indices))))]
    infos = split_infos({key: value for key, value in info.items() if key not in _FINAL}, range(env.num_envs))
    # What stands beside the final infos was told by the reset
    reset_infos = {index: infos.pop(index) for index in indices if index in infos}
    infos.update(split_infos(info.get("final_info", {}), indices))
    return EpisodeTurnover(observations, terminal, infos, reset_infos)
