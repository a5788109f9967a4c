"""Compare two implementations of an environment: by single steps from the same state, and by the episodes of policies."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from scipy.stats import ks_2samp
from stable_baselines3.common.vec_env import VecEnv

Policy = Callable[[np.ndarray], np.ndarray]
"""Takes observations (n_envs, *shape), and returns actions (n_envs, *action shape)."""


def random_policy(space: spaces.Space[Any], seed: int) -> Policy:
    """:return: uniformly drawn actions"""
    rng = np.random.default_rng(seed)
    if isinstance(space, spaces.Discrete):
        return lambda observations: rng.integers(space.n, size=len(observations))
    assert isinstance(space, spaces.Box)
    return lambda observations: rng.uniform(space.low, space.high, (len(observations), *space.shape)).astype(space.dtype)


def linear_policy(space: spaces.Space[Any], n_observed: int, seed: int) -> Policy:
    """:return: actions that depend on the observations through one matrix, which the seed draws"""
    weights = np.random.default_rng(seed).normal(size=(n_observed, int(getattr(space, "n", 0)) or space.shape[0]))  # type: ignore[index]
    if isinstance(space, spaces.Discrete):
        return lambda observations: np.argmax(observations @ weights, axis=1)
    assert isinstance(space, spaces.Box)
    return lambda observations: (np.tanh(observations @ weights) * space.high).astype(space.dtype)


def spin(observations: np.ndarray) -> np.ndarray:
    """A policy for Pendulum that pushes in the direction of the rotation, so that its speed limit is reached."""
    return np.asarray(2 * np.sign(observations[:, 2:3]), dtype=np.float32)


def episodes(env: VecEnv, policy: Policy, n_each: int) -> dict[str, np.ndarray]:
    """
    :param env: seeded
    :param policy: of all environments
    :param n_each: episodes of each environment, so that short ones are not preferred
    :return: of n_envs * n_each episodes: ``return``, ``length``, ``time-out`` (0 or 1), and for each number of an observation
        its value in the first one and the mean over the others
    """
    observations: Any = env.reset()
    first, total = np.array(observations, dtype=np.float64), np.zeros_like(observations, dtype=np.float64)
    records: list[list[np.ndarray]] = [[] for _ in range(env.num_envs)]
    while min(map(len, records)) < n_each:
        observations, _, dones, infos = env.step(policy(observations))
        total += np.where(dones[:, None], 0.0, observations)
        for index in np.flatnonzero(dones):
            info, episode = infos[index], infos[index]["episode"]
            mean = (total[index] + info["terminal_observation"]) / episode["l"]
            numbers = [episode["r"], episode["l"], info["TimeLimit.truncated"], *first[index], *mean]
            records[index].append(np.array(numbers, dtype=np.float64))
            first[index], total[index] = observations[index], 0.0
    env.close()
    n_observed = first.shape[1]
    names = [f"{what} {number}" for what in ("first", "mean") for number in range(n_observed)]
    rows = np.array([row for record in records for row in record[:n_each]])
    return dict(zip(("return", "length", "time-out", *names), rows.T, strict=True))


def p_values(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> dict[str, float]:
    """:return: the p-value of a two-sample Kolmogorov-Smirnov test of each quantity"""
    return {name: float(ks_2samp(ours[name], theirs[name]).pvalue) for name in ours}


def _put_cart_pole(env: Any, row: np.ndarray) -> None:
    env.state, env.steps_beyond_terminated = np.array(row, dtype=np.float64), None


def _put_acrobot(env: Any, row: np.ndarray) -> None:
    env.state = np.array([np.arctan2(row[1], row[0]), np.arctan2(row[3], row[2]), row[4], row[5]])


def _put_pendulum(env: Any, row: np.ndarray) -> None:
    env.state = np.array([np.arctan2(row[1], row[0]), row[2]])


def _put_mountain_car(env: Any, row: np.ndarray) -> None:
    env.state = np.array(row)


def _put_mujoco(env: Any, row: np.ndarray) -> None:
    env.set_state(row[: env.model.nq], row[env.model.nq :])


PUT_STATE: dict[str, Callable[[Any, np.ndarray], None]] = {
    "CartPole-v1": _put_cart_pole,
    "Acrobot-v1": _put_acrobot,
    "Pendulum-v1": _put_pendulum,
    "MountainCarContinuous-v0": _put_mountain_car,
    **{f"{name}-{version}": _put_mujoco for name in ("Hopper", "HalfCheetah") for version in ("v4", "v5")},
}
"""Put gymnasium's environment into the state of an observation. An observation of Box2D does not hold the whole state."""


def state_kwargs(env_id: str) -> dict[str, Any]:
    """:return: arguments with which an observation holds the whole state"""
    return {"exclude_current_positions_from_observation": False} if PUT_STATE[env_id] is _put_mujoco else {}


def largest_differences(
    env_id: str, env: VectorEnv, policy: Policy, n_steps: int, env_kwargs: dict[str, Any] | None = None
) -> dict[str, float]:
    """
    Let gymnasium's environment repeat each step of ``env``, from the state before it.

    :param env: made with ``state_kwargs`` and ``env_kwargs``, in the autoreset mode ``DISABLED``
    :param n_steps: steps of all environments
    :return: over all steps: the largest difference of ``observation`` and ``reward``, and the number of differing
        ``terminated``
    """
    single = gym.make(env_id, **state_kwargs(env_id), **(env_kwargs or {})).unwrapped
    single.reset(seed=0)
    observations, _ = env.reset(seed=0)
    differences = {"observation": 0.0, "reward": 0.0, "terminated": 0.0}
    for _ in range(n_steps):
        before, actions = observations.copy(), policy(observations)
        observations, rewards, terminated, truncated, _ = env.step(actions)
        for index in range(env.num_envs):
            PUT_STATE[env_id](single, before[index])
            observation, reward, is_terminal, _, _ = single.step(actions[index])
            difference = float(np.abs(observation - observations[index]).max())
            differences["observation"] = max(differences["observation"], difference)
            differences["reward"] = max(differences["reward"], abs(float(reward) - float(rewards[index])))
            differences["terminated"] += is_terminal != terminated[index]
        if (terminated | truncated).any():
            observations, _ = env.reset(options={"reset_mask": terminated | truncated})
    single.close()
    env.close()
    return differences
