"""Checks of environments and spaces: what SB3 does not support is refused with advice."""

from collections.abc import Iterable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from stable_baselines3.common.vec_env import VecEnv

from sb3_vpg.policies import check_policy_reads

# Which spaces other policies support is not known here
_KNOWN_POLICIES = ("sb3_vpg.", "stable_baselines3.", "sb3_contrib.")

_KINDS = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)


def check_env(env: Any) -> None:
    """
    :param env: the argument ``env`` of an algorithm, before SB3 wraps it
    :raises ValueError: if it is a vector environment of gymnasium, a list or a function, or if SB3 does not support its spaces
    """
    if isinstance(env, VectorEnv):
        raise ValueError(
            f"{env} is a vector environment of gymnasium, not a VecEnv: wrap it in sb3_vpg.vec_env.GymVecEnv, or use "
            "sb3_vpg.vec_env.make_vec_env"
        )
    if isinstance(env, (gym.Env, VecEnv)):
        observations, actions = (getattr(env, name, None) for name in ("observation_space", "action_space"))
        check_observation_space(env, observations)
        check_action_space(env, actions)
        _check_shapes(env, "observation", _parts(observations))
        _check_shapes(env, "action", [actions])
        _check_actions(env, actions)
    elif isinstance(env, (list, tuple)):
        raise ValueError(
            f"env must be an environment, but is {env!r:.200}: make a vectorised environment of several, with "
            "stable_baselines3.common.vec_env.DummyVecEnv(functions that make one each), or with "
            "stable_baselines3.common.env_util.make_vec_env(id, n_envs=...)"
        )
    elif callable(env):
        raise ValueError(
            f"env must be an environment, but is {env!r:.200}, which makes one: call it, or make several with "
            "stable_baselines3.common.env_util.make_vec_env"
        )


def check_observation_space(env: Any, space: Any) -> None:
    """
    :raises ValueError: if SB3 does not support ``space``: tuples, nested dicts, texts, graphs, sequences
    """
    for part in _parts(space):
        if not isinstance(part, _KINDS):
            raise ValueError(
                f"{env} has the observation space {space}, but SB3 takes a Box, Discrete, MultiDiscrete or MultiBinary, "
                "or one Dict of them; convert it with a wrapper such as gymnasium.wrappers.FlattenObservation"
            )
        if _start(part) != 0:
            raise ValueError(
                f"{env} has observations in {part}, which do not count from 0, but SB3's one-hot encoding does: let "
                "gymnasium.wrappers.TransformObservation subtract the start, or FlattenObservation encode them"
            )


def check_action_space(env: Any, space: Any) -> None:
    """:raises ValueError: if SB3's policies do not support ``space``"""
    if not isinstance(space, _KINDS):
        raise ValueError(
            f"{env} has the action space {space}, but SB3 takes a Box, Discrete, MultiDiscrete or MultiBinary, no Dict and no "
            "Tuple; convert it with a wrapper such as gymnasium.wrappers.TransformAction"
        )


def check_actions_count_from_zero(env: Any) -> None:
    """:raises ValueError: if the action space does not count from 0: SB3's policies send 0 for the first action"""
    space = getattr(env, "action_space", None)
    if _start(space) != 0:
        raise ValueError(
            f"{env} has the action space {space}, which does not count from 0, but SB3's policies do: let "
            "gymnasium.wrappers.TransformAction add the start"
        )


def _start(space: Any) -> int:
    """:return: ``start`` of a discrete space; of several, one that is not 0 if there is one; 0 for other spaces"""
    if not isinstance(space, (spaces.Discrete, spaces.MultiDiscrete)):
        return 0
    starts = np.atleast_1d(space.start)
    return int(starts.flat[np.abs(starts).argmax()])


def check_policy_supports(policy_class: type[Any], policy_kwargs: dict[str, Any], space: spaces.Space[Any]) -> None:
    """
    :param policy_class: of the model
    :param policy_kwargs: of the model; with a features extractor of the user's, nothing is checked
    :param space: observation space
    :raises ValueError: if a policy of SB3 or of this package does not support the space
    """
    is_known = isinstance(policy_class, type) and policy_class.__module__.startswith(_KNOWN_POLICIES)
    if is_known and "features_extractor_class" not in policy_kwargs:
        check_policy_reads(policy_class, space)
        check_flattenable(space)


def check_flattenable(space: spaces.Space[Any]) -> None:
    """
    :param space: observation space whose parts SB3's features extractors flatten
    :raises ValueError: if it is empty, or if a part has the shape ()
    """
    for part in _parts(space):
        if isinstance(part, spaces.Box) and part.shape == ():
            raise ValueError(
                f"the observation space {space} has an entry of the shape (), which SB3's extractors cannot flatten: reshape "
                "it to (1,) with gymnasium.wrappers.ReshapeObservation, or pass a features_extractor_class of your own"
            )
    if isinstance(space, spaces.Dict) and not space.spaces:
        raise ValueError(f"the observation space {space} is empty: a policy needs at least one entry")


def _parts(space: Any) -> Iterable[Any]:
    return space.spaces.values() if isinstance(space, spaces.Dict) else [space]


def _check_shapes(env: Any, what: str, parts: Iterable[Any]) -> None:
    for part in parts:
        if isinstance(part, spaces.MultiDiscrete) and part.nvec.ndim != 1:
            raise ValueError(
                f"{env} has {what}s in {part}, of the shape {part.shape}, but SB3 needs a MultiDiscrete of one dimension; "
                f"flatten it with gymnasium.wrappers.Transform{what.capitalize()}"
            )
        if isinstance(part, spaces.Box) and 0 in part.shape:
            raise ValueError(f"{env} has {what}s in {part}, of the shape {part.shape}, which have no elements: remove them")


def _check_actions(env: Any, space: Any) -> None:
    if isinstance(space, spaces.MultiBinary) and len(space.shape) != 1:
        raise ValueError(
            f"{env} has the action space {space}, but SB3 takes a MultiBinary of one dimension; flatten "
            "it with gymnasium.wrappers.TransformAction"
        )
    if isinstance(space, spaces.Box) and not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
        raise ValueError(
            f"{env} has the action space {space}, but SB3 needs finite bounds: set them, for example with "
            "gymnasium.wrappers.TransformAction"
        )
