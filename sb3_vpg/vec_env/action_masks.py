"""
Action masks: they say which actions an environment allows at a step.

N environments, M entries of a mask, as in sb3_contrib: for ``Discrete`` one for each action; for ``MultiDiscrete`` those of
all its dimensions, in their order; for ``MultiBinary`` two for each bit, that of 0 first.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, VectorEnv
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from sb3_vpg.exceptions import ActionMaskError, ForbiddenActionError
from sb3_vpg.vec_env.gym_vec_env import GymVecEnv

METHOD = "action_masks"
"""Name of the method of an environment that returns its mask; it may also be one of a ``VecEnv``, for all environments."""


def mask_sizes(space: spaces.Space[Any]) -> list[int]:
    """
    :return: the number of choices of each part of an action
    :raises ValueError: if actions of this space cannot be masked
    """
    if isinstance(space, spaces.Discrete):
        return [int(space.n)]
    if isinstance(space, spaces.MultiDiscrete):
        return [int(n) for n in space.nvec.flat]
    if isinstance(space, spaces.MultiBinary):
        return [2] * int(np.prod(space.shape))
    raise ValueError(f"actions in {space} cannot be masked: the action space must be Discrete, MultiDiscrete or MultiBinary")


def checked_masks(masks: Any, n_envs: int, space: spaces.Space[Any]) -> np.ndarray:
    """
    :param masks: an array, or a list with a mask for each environment; of one environment also its mask alone
    :param n_envs: N
    :param space: of the actions
    :return: the masks, True for allowed actions, shape (N, M)
    :raises ActionMaskError: for another shape, for entries that are neither true nor false, and if no action is allowed
    """
    sizes = mask_sizes(space)
    array = _array(masks, sum(sizes))
    has_rows = array.shape[:1] == (n_envs,) or (n_envs == 1 and array.ndim == 1)
    if not has_rows or array.size != n_envs * sum(sizes):
        raise ActionMaskError(
            f"the masks must have the shape ({n_envs}, {sum(sizes)}) for {n_envs} environments with actions in {space}, but "
            f"are {masks!r:.100}, of the shape {array.shape}"
        )
    masks_NM = array.reshape(n_envs, -1)
    if masks_NM.dtype.kind != "b":
        masks_NM = _truth_values(masks_NM)
    allows_NP = np.logical_or.reduceat(masks_NM, np.cumsum([0, *sizes[:-1]]), axis=1)
    if not allows_NP.all():
        env, part = np.argwhere(~allows_NP)[0]
        which = "no action" if len(sizes) == 1 else f"no choice for part {part} of the action"
        raise ActionMaskError(f"the mask of environment {env} allows {which}, but the agent has to choose one")
    return masks_NM


def _array(masks: Any, size: int) -> np.ndarray:
    """:raises ActionMaskError: if one of several masks has the wrong number of entries, or rows of different lengths"""
    if isinstance(masks, (np.ndarray, th.Tensor)):
        return _as_numpy(masks)
    rows = []
    for env, mask in enumerate(masks if isinstance(masks, (list, tuple)) else [masks]):
        try:
            row = _as_numpy(mask)
        except ValueError:
            raise ActionMaskError(
                f"the mask of environment {env} is {mask!r:.100}, with parts of different lengths, but needs "
                f"the shape ({size},)"
            ) from None
        if row.ndim > 0 and row.size != size:
            raise ActionMaskError(f"the mask of environment {env} has the shape {row.shape}, but needs ({size},)")
        rows.append(row.ravel() if row.ndim > 0 else row)
    if len({row.shape for row in rows}) > 1:
        env = next(env for env, row in enumerate(rows) if row.ndim == 0)
        raise ActionMaskError(f"the mask of environment {env} is {masks[env]!r:.100}, but needs the shape ({size},)")
    return np.asarray(rows)


def _as_numpy(mask: Any) -> np.ndarray:
    array = mask.detach().cpu().numpy() if isinstance(mask, th.Tensor) else np.asarray(mask)
    # Beside a row of texts, NumPy would make texts of the others
    return array.astype(object) if array.dtype.kind in "US" else array


def _truth_values(masks_NM: np.ndarray) -> np.ndarray:
    """:raises ActionMaskError: for an entry that is not true or false, 1 or 0"""
    is_true, is_false = masks_NM == 1, masks_NM == 0
    if not (is_true | is_false).all():
        env, entry = np.argwhere(~(is_true | is_false))[0]
        value = masks_NM.tolist()[env][entry]
        found = f"the text {value!r}" if isinstance(value, (str, bytes)) else str(value)
        raise ActionMaskError(
            f"entry {entry} of the mask of environment {env} is {found}, but must be True for an action that is allowed, and "
            "False for one that is not"
        )
    return np.asarray(is_true, dtype=bool)


def check_allowed(actions: np.ndarray, masks_NM: np.ndarray, policy: Any) -> None:
    """
    :param actions: of N environments
    :param masks_NM: their masks
    :param policy: that has chosen the actions
    :raises ForbiddenActionError: if a mask does not allow an action, because the policy has not applied it
    """
    sizes = mask_sizes(policy.action_space)
    choices_NP = actions.reshape(len(masks_NM), -1).astype(np.intp) + np.cumsum([0, *sizes[:-1]])
    allowed_NP = np.take_along_axis(masks_NM, choices_NP, axis=1)
    if not allowed_NP.all():
        env = int(np.argwhere(~allowed_NP)[0, 0])
        raise ForbiddenActionError(
            f"{type(policy).__name__} chose {actions[env]} in environment {env}, which the mask does not allow"
        )


def is_masking_supported(env: VecEnv) -> bool:
    """Return whether the environment has a method ``action_masks``: its own for all environments, or one of each of them."""
    return callable(getattr(env, METHOD, None)) or env.has_attr(METHOD)


def _vector_env(env: VecEnv) -> Any:
    """Return what holds the environments: a ``VecEnv`` of SB3, or the vector environment inside of ``GymVecEnv``."""
    base = env.unwrapped
    return base.env.unwrapped if isinstance(base, GymVecEnv) else base


def _is_in_this_process(env: VecEnv) -> bool:
    inner = _vector_env(env)
    return isinstance(inner, (DummyVecEnv, VectorEnv)) and not isinstance(inner, AsyncVectorEnv)


def _without_masks(env: VecEnv) -> str:
    """Return the name of the first environment without masks; if that is not known, of all of them."""
    inner = _vector_env(env)
    try:
        index = env.env_method("has_wrapper_attr", METHOD).index(False)
    except (AttributeError, NotImplementedError, ValueError):
        # No single environments, or not gymnasium's
        return str(inner)
    return f"environment {index} ({inner.envs[index]})" if hasattr(inner, "envs") else f"environment {index}"


def _check_is_method(method: Any, owner: Any) -> None:
    """:raises ValueError: if it cannot be called"""
    if not callable(method):
        raise ValueError(
            f"{METHOD} of {owner} is {method!r:.100}, but must be a method, which is called at each step: no property and "
            "no array"
        )


class MaskReader:
    """
    Reads the masks of an environment.

    :param env: with a method ``action_masks``, of each of its environments or of its own for all of them
    :raises ValueError: if it has none, if it is no method, or if its actions cannot be masked
    """

    def __init__(self, env: VecEnv) -> None:
        mask_sizes(env.action_space)
        self.env = env
        self._of_all = getattr(env, METHOD, None)
        if self._of_all is not None:
            _check_is_method(self._of_all, env)
        elif not is_masking_supported(env):
            raise ValueError(
                f"{_without_masks(env)} has no action masks: give the environment a method action_masks(), or wrap it in "
                "sb3_contrib.common.wrappers.ActionMasker; to learn without masks, use VPG (on the command line --algo vpg), "
                "or learn(..., use_masking=False)"
            )
        elif _is_in_this_process(env):
            for index, method in enumerate(env.get_attr(METHOD)):
                _check_is_method(method, f"environment {index}")

    def read(self) -> np.ndarray:
        """
        :return: the present masks of all environments, shape (N, M)
        :raises ActionMaskError: see ``checked_masks``
        """
        return checked_masks(_ask_for_masks(self.env, self._of_all), self.env.num_envs, self.env.action_space)


def _ask_for_masks(env: VecEnv, of_all: Callable[[], Any] | None) -> Any:
    # failures.py finds this call in the traceback of an environment's error
    return of_all() if callable(of_all) else env.env_method(METHOD)
