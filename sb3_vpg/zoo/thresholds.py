"""The mean return from which an environment counts as solved, and the return that counts as 1 in normalised scores."""

import gymnasium as gym

_OUT_OF_REACH = {"Taxi-v4"}
"""Environments whose registered threshold no policy reaches. Taxi asks for 8; the best possible mean is 7.93."""
_STATED = {"Pendulum-v1": -200.0, "CliffWalking-v1": -13.0, "CartPoleNoVel-v1": 475.0, "PendulumNoVel-v1": -200.0}
"""
Our thresholds where none is registered: near the best known return on Pendulum, the shortest path on CliffWalking, and for
the tasks without velocities those of the same tasks with them.
"""


def reward_threshold(env_id: str) -> float | None:
    """
    :return: the mean return of 100 episodes from which an environment counts as solved; None if it registers none, or one
        that no policy reaches
    """
    threshold = None if env_id in _OUT_OF_REACH else gym.spec(env_id).reward_threshold
    return None if threshold is None else float(threshold)


def scale_threshold(env_id: str) -> tuple[float, str] | None:
    """
    :return: the return that counts as 1 in normalised scores, and whose threshold it is: the registered one, even if no policy
        reaches it, else ours; None if there is neither
    """
    for value, source in ((gym.spec(env_id).reward_threshold, "the task's own"), (_STATED.get(env_id), "stated by sb3-vpg")):
        if value is not None:
            return float(value), source
    return None
