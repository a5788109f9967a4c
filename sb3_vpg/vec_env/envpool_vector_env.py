"""A gymnasium ``VectorEnv`` that steps EnvPool's environments in C++ threads."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from sb3_vpg.common.arguments import whole_number
from sb3_vpg.common.system_info import usable_cores

SUPPORTED_IDS = (
    "CartPole-v1",
    "Acrobot-v1",
    "MountainCarContinuous-v0",
    "LunarLander-v3",
    "BipedalWalker-v3",
    "Hopper-v4",
    "Hopper-v5",
    "HalfCheetah-v4",
    "HalfCheetah-v5",
)
"""Environments in whose episodes ``benchmarks/envpool_parity.py`` found no difference to gymnasium's."""

DIFFERING_IDS = ("Pendulum-v1",)
"""Environments whose episodes were compared and differ from gymnasium's; ``make_vec_env`` refuses them."""

SHARED_KWARGS = (
    "max_episode_steps",
    "ctrl_cost_weight",
    "forward_reward_weight",
    "healthy_reward",
    "terminate_when_unhealthy",
    "reset_noise_scale",
    "exclude_current_positions_from_observation",
)
"""Arguments that mean the same in gymnasium and in EnvPool; an environment takes those of them that it knows."""

_NO_LIMIT = 2**31 - 2
_SEEDS = 2**31


class EnvPoolVectorEnv(VectorEnv):
    """
    EnvPool's environments (https://envpool.readthedocs.io) behind gymnasium's interface. They need the extra ``envpool``.

    Spaces, time limits and the meaning of ``terminated`` and ``truncated`` are those of gymnasium's environment of the same
    name, which must be installed as well. If the task ends in the last step of the time limit, EnvPool reports only a
    truncation; so this class counts the steps itself. Differences to other vector environments of gymnasium:

    * there is no automatic reset (``AutoresetMode.DISABLED``): ``reset(options={"reset_mask": mask})`` resets the
      environments where ``mask`` is True;
    * infos are empty;
    * there is no rendering, and no access to the single environments.

    The i-th environment depends on the seed plus i and on its actions only, not on threads. EnvPool reads a seed only when its
    environments are made; so ``reset(seed=...)`` makes them anew.

    :param env_id: id of an environment that both EnvPool and gymnasium have. ``make_vec_env`` takes only those of
        ``SUPPORTED_IDS``; the episodes of others have not been compared with gymnasium's
    :param num_envs: number of environments
    :param num_threads: threads that step them, at most ``num_envs``; None: one for each core that the process may use
    :param env_kwargs: those of ``SHARED_KWARGS`` that the environment has
    :raises ImportError: if EnvPool is not installed
    :raises ValueError: if EnvPool does not have the environment or does not take an argument, or if a number is below 1
    :raises gymnasium.error.Error: if gymnasium does not have the environment
    """

    metadata = {"autoreset_mode": AutoresetMode.DISABLED, "render_modes": []}  # noqa: RUF012  # as gymnasium declares it

    def __init__(self, env_id: str, num_envs: int = 1, num_threads: int | None = None, **env_kwargs: Any) -> None:
        num_envs = whole_number("num_envs", num_envs, at_least=1)
        if num_threads is not None:
            num_threads = whole_number("num_threads", num_threads, at_least=1)
        if env_id not in _envpool().list_all_envs():
            raise ValueError(f"EnvPool has no environment {env_id!r}")
        _check_kwargs(env_id, env_kwargs)
        self._env_id = env_id
        with gym.make(env_id, **env_kwargs) as reference:
            self.spec = reference.spec
            self.single_observation_space = reference.observation_space
            self.single_action_space = reference.action_space
        self.num_envs = num_envs
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        limit = self.spec.max_episode_steps if self.spec is not None else None
        self._limit = _NO_LIMIT if limit is None else limit
        self._options = {
            **env_kwargs,
            "num_envs": num_envs,
            "num_threads": min(num_envs, num_threads or usable_cores()),
            # Above the limit, so that EnvPool ends only episodes whose task has ended
            "max_episode_steps": min(self._limit + 1, _NO_LIMIT),
        }
        self._steps = np.zeros(num_envs, dtype=np.int64)
        self._pool: Any = None
        self._observations = np.empty(0)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """
        :param seed: of the first environment; each further environment adds 1. None: the random streams continue; in the
            first reset, a random seed is drawn
        :param options: ``{"reset_mask": mask}``, bool of shape (n_envs,), to reset only these environments
        :return: observations, shape (n_envs, *shape), where an environment that is not reset has its last one; no infos
        :raises ValueError: if the seed is not a whole number (a list is refused), if the mask has another shape, or if there
            are other options
        """
        options = dict(options or {})
        mask = options.pop("reset_mask", None)
        if options:
            raise ValueError(f"environments of EnvPool have no options for a reset, but got {options}")
        if seed is not None or self._pool is None:
            self._make_pool(seed)
            mask = None
        if mask is None:
            self._observations = self._pool.reset().observation.obs
            self._steps[:] = 0
        elif np.shape(mask) != (self.num_envs,):
            raise ValueError(f"reset_mask must have the shape ({self.num_envs},), but has {np.shape(mask)}")
        elif np.any(mask):
            indices = np.flatnonzero(mask)
            # A copy, because the caller may keep what step returned
            self._observations = self._observations.copy()
            self._observations[indices] = self._pool.reset(indices).observation.obs
            self._steps[indices] = 0
        return self._observations, {}

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """
        Step all environments. Call ``reset`` first, and after the end of an episode with a ``reset_mask``.

        :param actions: shape (n_envs, *action shape)
        :return: observations (n_envs, *shape), rewards float32 (n_envs,), terminated and truncated (bool, n_envs), no infos
        :raises ValueError: if the actions have another shape, or if one is not in a discrete action space; EnvPool would end
            the process, or silently take another action
        :raises gymnasium.error.ResetNeeded: before the first reset, and after ``close``
        """
        if self._pool is None:
            raise gym.error.ResetNeeded("call reset before step")
        if np.shape(actions) != self.action_space.shape:
            raise ValueError(f"actions must have the shape {self.action_space.shape}, but have {np.shape(actions)}")
        space = self.single_action_space
        if isinstance(space, spaces.Discrete) and not (
            np.issubdtype(actions.dtype, np.integer) and actions.min() >= 0 and actions.max() < space.n
        ):
            raise ValueError(f"actions must be in {space}, but are {actions}")
        result = self._pool.step(actions)
        self._observations = result.observation.obs
        self._steps += 1
        return self._observations, result.reward, result.last(), self._steps >= self._limit, {}

    def close_extras(self, **kwargs: Any) -> None:
        """End the threads."""
        self._pool = None

    def _make_pool(self, seed: Any) -> None:
        if seed is None:
            seed = int(np.random.SeedSequence().generate_state(1)[0])
        if not isinstance(seed, (int, np.integer)):
            raise ValueError(f"seed must be a whole number, from which EnvPool counts up, but is {seed!r}")
        self._pool = None  # the old threads end before the new ones begin
        # EnvPool has signed seeds of 32 bits
        first = int(seed) % (_SEEDS - self.num_envs)
        # Its gymnasium interface would build spaces that differ from gymnasium's, with warnings
        self._pool = _envpool().make(self._env_id, env_type="dm", seed=first, **self._options)


def make_envpool(env_id: Any, num_envs: int, env_kwargs: dict[str, Any]) -> EnvPoolVectorEnv:
    """
    :param env_kwargs: see ``EnvPoolVectorEnv``; also ``num_threads``, and ``render_mode`` if it is None
    :raises ValueError: if EnvPool is not offered for the environment, does not take an argument, or is to render
    """
    if env_id not in SUPPORTED_IDS:
        raise ValueError(
            f"EnvPool is offered for {', '.join(SUPPORTED_IDS)}, which were compared with gymnasium's, but not for {env_id}; "
            "use another vectorization_mode, or on the command line leave out --vec-env envpool"
        )
    kwargs = dict(env_kwargs)
    if kwargs.pop("render_mode", None) is not None:
        raise ValueError(f"EnvPool does not render {env_id}; use another vectorization_mode to see the environment")
    return EnvPoolVectorEnv(env_id, num_envs, **kwargs)


def _envpool() -> Any:
    try:
        import envpool
    except ImportError as error:
        raise ImportError(
            f"EnvPool is not installed: pip install 'sb3-vpg[envpool]', with Python 3.11 or later ({error})"
        ) from error
    return envpool


def _check_kwargs(env_id: str, env_kwargs: dict[str, Any]) -> None:
    known = _envpool().make_spec(env_id).config._fields
    taken = [name for name in SHARED_KWARGS if name in known]
    unknown = sorted(env_kwargs.keys() - set(taken))
    if unknown:
        raise ValueError(f"{env_id} of EnvPool does not take the env_kwargs {unknown}, only {taken}")
