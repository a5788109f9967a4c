"""
What normalised scores refer to: 0 is the agent that draws its actions at random, 1 a threshold.

The threshold is the user's, else that of ``sb3_vpg.zoo.thresholds``. The random agent is measured.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from sb3_vpg.zoo.thresholds import scale_threshold

GIVEN = "given"
"""The source of a threshold of the user's."""
N_EPISODES = 100
_MOST_STEPS = 1000
_SEED = 2_000_000


@dataclass(frozen=True)
class Reference:
    """
    :param random: mean return of the random agent: normalised 0
    :param threshold: normalised 1
    :param source: whose threshold it is
    """

    random: float
    threshold: float
    source: str

    def normalize(self, returns: float | np.ndarray) -> np.ndarray:
        """
        :param returns: of any shape
        :return: (return - random) / (threshold - random), of the same shape
        """
        scores: np.ndarray = (np.asarray(returns, dtype=np.float64) - self.random) / (self.threshold - self.random)
        return scores


def references(env_kwargs: Mapping[str, Mapping[str, Any]], given: Mapping[str, float]) -> dict[str, Reference]:
    """
    :param env_kwargs: of each environment's constructor, by its id
    :param given: thresholds of the user's, which come first
    :return: one for each environment
    :raises ValueError: if an environment has no threshold, or one that the random agent reaches
    """
    unknown = set(given) - set(env_kwargs)
    if unknown:
        raise ValueError(f"a threshold is given for {', '.join(sorted(unknown))}, which is none of the environments")
    # What can be refused is refused before anything is measured
    thresholds = {env_id: _threshold(env_id, given) for env_id in env_kwargs}
    found = {}
    for env_id, (threshold, source) in thresholds.items():
        random = random_return(env_id, env_kwargs=env_kwargs[env_id])
        if not random < threshold < math.inf:
            raise ValueError(
                f"the threshold of {env_id}, {threshold}, must be a number above the return of random actions, {random:.2f}"
            )
        found[env_id] = Reference(random, threshold, source)
    return found


def _threshold(env_id: str, given: Mapping[str, float]) -> tuple[float, str]:
    found = (float(given[env_id]), GIVEN) if env_id in given else scale_threshold(env_id)
    if found is None:
        raise ValueError(f"{env_id} has no threshold, which scores are normalised by: state one, --threshold {env_id}=VALUE")
    return found


def random_return(env_id: str, n_episodes: int = N_EPISODES, env_kwargs: Mapping[str, Any] | None = None) -> float:
    """
    :param env_id: environment id
    :param n_episodes: to play; those of an environment without a time limit are cut after 1,000 steps
    :param env_kwargs: of its constructor
    :return: mean undiscounted return of actions that are drawn uniformly; the same at each call
    :raises ValueError: if what the environment needs is not installed
    """
    try:
        env = gym.make(env_id, **(env_kwargs or {}))
    except gym.error.DependencyNotInstalled as error:
        raise ValueError(f"{env_id} cannot be made: {error}") from error
    limit = (env.spec and env.spec.max_episode_steps) or _MOST_STEPS
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
