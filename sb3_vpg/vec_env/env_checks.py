"""What environments the algorithms take, and what they refuse: every refusal names the way out."""

from collections.abc import Iterable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from stable_baselines3.common.vec_env import VecEnv

from sb3_vpg.policies import check_policy_reads

_LIBRARIES = ("sb3_vpg.", "stable_baselines3.")

_KINDS = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)


def check_env(env: Any) -> None:
    """
    :param env: what an algorithm was given, which SB3 is about to wrap
    :raises ValueError: if it is no environment of this kind, or has a space that no algorithm of SB3 takes
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
    :raises ValueError: if SB3 has no array for observations of ``space``: tuples, dicts in dicts, texts, graphs, sequences
    """
    for part in _parts(space):
        if not isinstance(part, _KINDS):
            raise ValueError(
                f"{env} has the observation space {space}, but SB3 takes a Box, Discrete, MultiDiscrete or MultiBinary, "
                "or one Dict of them; let a wrapper turn it into one of these, such as gymnasium.wrappers.FlattenObservation"
            )
        if _first_number(part) != 0:
            raise ValueError(
                f"{env} has observations in {part}, which do not count from 0, but SB3's one-hot encoding does: let "
                "gymnasium.wrappers.TransformObservation subtract the start, or FlattenObservation encode them"
            )


def check_action_space(env: Any, space: Any) -> None:
    """
    :raises ValueError: if no policy of SB3 acts in ``space``
    """
    if not isinstance(space, _KINDS):
        raise ValueError(
            f"{env} has the action space {space}, but SB3 takes a Box, Discrete, MultiDiscrete or MultiBinary, no Dict and no "
            "Tuple; let a wrapper turn it into one of these, such as gymnasium.wrappers.TransformAction"
        )


def check_actions_count_from_zero(env: Any) -> None:
    """
    :raises ValueError: if they do not: SB3's policies send 0 for the first action, whatever the space calls it
    """
    space = getattr(env, "action_space", None)
    if _first_number(space) != 0:
        raise ValueError(
            f"{env} has the action space {space}, which does not count from 0, but SB3's policies do: let "
            "gymnasium.wrappers.TransformAction add the start"
        )


def _first_number(space: Any) -> int:
    """:return: from which number a discrete space counts; of several, one that is not 0 if there is one"""
    if not isinstance(space, (spaces.Discrete, spaces.MultiDiscrete)):
        return 0
    starts = np.atleast_1d(space.start)
    return int(starts.flat[np.abs(starts).argmax()])


def check_observations(policy_class: type[Any], policy_kwargs: dict[str, Any], space: spaces.Space[Any]) -> None:
    """
    :param policy_class: of the model
    :param policy_kwargs: of the model; a features extractor of the user's may read what SB3's cannot
    :param space: of the observations
    :raises ValueError: if a policy of SB3's or ours cannot read such observations
    """
    if "features_extractor_class" not in policy_kwargs and policy_class.__module__.startswith(_LIBRARIES):
        check_policy_reads(policy_class, space)
        check_features(space)


def check_features(space: spaces.Space[Any]) -> None:
    """
    :param space: of observations that SB3's own extractors are to flatten
    :raises ValueError: if there is nothing to flatten
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
            f"{env} has the action space {space}, but SB3 takes a MultiBinary of one dimension; let "
            "gymnasium.wrappers.TransformAction flatten it"
        )
    if isinstance(space, spaces.Box) and not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
        raise ValueError(
            f"{env} has the action space {space}, but SB3 needs finite bounds: give it some, for example with "
            "gymnasium.wrappers.TransformAction"
        )
