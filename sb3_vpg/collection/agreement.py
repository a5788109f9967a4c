"""What the processes of a run agree on in a rollout: when it is over, and which episodes have ended."""

from itertools import chain
from typing import Any

import numpy as np
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from sb3_vpg.common.world import World


class RolloutEnd:
    """
    When a rollout is over. With ``n_episodes``, every environment plays on until those of all processes have finished.

    :param world: the processes
    :param n_steps: length of the rollout, if it is fixed
    :param n_episodes: whole episodes of each environment; None: ``n_steps``
    """

    def __init__(self, world: World, n_steps: int, n_episodes: int | None) -> None:
        self._world, self._n_episodes = world, n_episodes
        self._goal: int | None = n_steps if n_episodes is None else None
        self.stopped_after: int | None = None
        """The number of steps after which a callback has stopped the rollout; of several processes, the smallest."""

    def goes_on(self, n_steps: int, n_finished: np.ndarray) -> bool:
        """
        :param n_steps: steps so far
        :param n_finished: finished episodes of each environment
        """
        if self._goal is None:
            if (n_finished < self._n_episodes).any():
                return True
            self._goal = self._agree(n_steps, False)
        return n_steps < self._goal and self.stopped_after is None

    def stop(self, n_steps: int) -> None:
        """Tell the other processes that a callback has stopped the rollout after so many steps."""
        self._agree(n_steps, True)

    def is_stopped(self, n_steps: int) -> bool:
        """Return whether a callback of any process has stopped the rollout. Call it once, when this process has played."""
        if self.stopped_after is None:
            self._agree(n_steps, False)
        return self.stopped_after is not None

    def n_excess_steps(self, n_steps: int) -> int:
        """Return how many of its steps this process has played after a callback of another one stopped the rollout."""
        return 0 if self.stopped_after is None else n_steps - self.stopped_after

    def _agree(self, n_steps: int, stops: bool) -> int:
        """Return the largest number of steps of all processes."""
        everyones = self._world.all_gather((n_steps, stops))
        self.stopped_after = min((steps for steps, has_stopped in everyones if has_stopped), default=None)
        return max(steps for steps, _ in everyones)


class EpisodeReports:
    """
    Adds finished episodes to SB3's statistics: at once, or of several processes at the end of a rollout, in the order in
    which a single process would have seen them.

    :param model: has the statistics
    :param world: the processes
    """

    def __init__(self, model: OnPolicyAlgorithm, world: World) -> None:
        self._model, self._world = model, world
        self._kept: list[tuple[int, list[dict[str, Any]], np.ndarray]] = []

    def add(self, infos: list[dict[str, Any]], dones: np.ndarray) -> None:
        """
        :param infos: those that hold an episode or a success
        :param dones: whether the episodes of these environments are over
        """
        if self._world.is_distributed:
            needed: list[dict[str, Any]] = [
                {key: info[key] for key in ("episode", "is_success") if key in info} for info in infos
            ]
            self._kept.append((self._model.num_timesteps, needed, dones))
        else:
            self._model._update_info_buffer(infos, dones)

    def share(self) -> None:
        """Add the episodes of all processes, up to the present step."""
        if not self._world.is_distributed:
            return
        for step, infos, dones in sorted(chain(*self._world.all_gather(self._kept)), key=lambda kept: kept[0]):
            if step <= self._model.num_timesteps:
                self._model._update_info_buffer(infos, dones)
