"""
The scale of normalised scores: 0 is the mean return of random actions, which is measured, and 1 is a threshold.

The threshold is the user's, else that of ``sb3_vpg.zoo.thresholds``.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from sb3_vpg.zoo.thresholds import scale_threshold

GIVEN = "given"
"""Source of a threshold that the user has given."""
_MAX_STEPS = 1000
# Used by no training and no evaluation of a comparison
_SEED = 2_000_000


@dataclass(frozen=True)
class Reference:
    """
    :param random: mean return of random actions, with the normalised score 0
    :param threshold: return with the normalised score 1
    :param source: where the threshold comes from
    """

    random: float
    threshold: float
    source: str

    def normalize(self, returns: float | np.ndarray) -> np.ndarray:
        """:return: (returns - random) / (threshold - random), same shape as the returns"""
        scores: np.ndarray = (np.asarray(returns, dtype=np.float64) - self.random) / (self.threshold - self.random)
        return scores


def references(env_kwargs: Mapping[str, Mapping[str, Any]], given: Mapping[str, float]) -> dict[str, Reference]:
    """
    Find the threshold and measure the return of random actions for each environment.

    :param env_kwargs: keyword arguments of each environment, by environment id
    :param given: thresholds of the user, by environment id
    :return: references by environment id
    :raises ValueError: if an environment has no threshold, or if random actions reach it
    """
    unknown = set(given) - set(env_kwargs)
    if unknown:
        raise ValueError(f"a threshold is given for {', '.join(sorted(unknown))}, which is not one of the environments")
    # All thresholds are checked before anything is measured
    thresholds = {env_id: _threshold(env_id, given) for env_id in env_kwargs}
    measured = {}
    for env_id, (threshold, source) in thresholds.items():
        random = random_return(env_id, env_kwargs=env_kwargs[env_id])
        if not random < threshold < math.inf:
            raise ValueError(
                f"the threshold of {env_id}, {threshold}, must be a number above the return of random actions, {random:.2f}"
            )
        measured[env_id] = Reference(random, threshold, source)
    return measured


def _threshold(env_id: str, given: Mapping[str, float]) -> tuple[float, str]:
    found = (float(given[env_id]), GIVEN) if env_id in given else scale_threshold(env_id)
    if found is None:
        raise ValueError(f"{env_id} has no reward threshold to normalise scores with: give one, --threshold {env_id}=VALUE")
    return found


def random_return(env_id: str, n_episodes: int = 100, env_kwargs: Mapping[str, Any] | None = None) -> float:
    """
    Measure the mean undiscounted return of random actions, with fixed seeds.

    :param env_id: environment id
    :param n_episodes: number of episodes; without a time limit, they are truncated after 1,000 steps
    :param env_kwargs: keyword arguments of the environment
    :return: mean return
    :raises ValueError: if a dependency of the environment is not installed
    """
    try:
        env = gym.make(env_id, **(env_kwargs or {}))
    except gym.error.DependencyNotInstalled as error:
        raise ValueError(f"{env_id} cannot be made: {error}") from error
    limit = (env.spec and env.spec.max_episode_steps) or _MAX_STEPS
    env.action_space.seed(_SEED)
    returns = []
    for episode in range(n_episodes):
        env.reset(seed=_SEED + episode)
        total, over, steps = 0.0, False, 0
        while not over and steps < limit:
            _, reward, terminated, truncated, _ = env.step(env.action_space.sample())
            total, over, steps = total + float(reward), terminated or truncated, steps + 1
        returns.append(total)
    env.close()
    return float(np.mean(returns))
