"""What the processes of a run agree on in a rollout: when it is over, which episodes have ended, and its steps."""

import zlib
from collections.abc import Callable
from copy import copy
from itertools import chain
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import BasePolicy

from sb3_vpg.common.world import World

TimeOut = tuple[int, int, Any]
"""Row, environment and last observation of an episode that a time limit has ended."""
_RECOMPUTED = ("advantages", "returns")


class RolloutEnd:
    """
    When a rollout is over. With ``n_episodes``, every environment plays on until those of all processes have finished.

    :param world: the processes
    :param n_steps: length of the rollout, if it is fixed
    :param n_episodes: whole episodes of each environment; None: ``n_steps``
    :param gathers: whether this process makes the whole update, which all do or none
    """

    def __init__(self, world: World, n_steps: int, n_episodes: int | None, gathers: bool = False) -> None:
        self._world, self._n_episodes, self._gathers = world, n_episodes, gathers
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
        """
        Return the largest number of steps of all processes.

        :raises ValueError: if NumPy computes the policy in some processes, and torch in others
        """
        everyones = self._world.all_gather((n_steps, stops, self._gathers))
        by_numpy = [rank for rank, (_, _, gathers) in enumerate(everyones) if gathers]
        if 0 < len(by_numpy) < len(everyones):
            raise ValueError(
                f"NumPy computes the policy's networks in the processes {by_numpy}, but torch does in the others: a hook, a "
                "method or a module of the policy has changed in some processes only. Change it in each of them"
            )
        self.stopped_after = min((steps for steps, has_stopped, _ in everyones if has_stopped), default=None)
        return max(steps for steps, _, _ in everyones)


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


def computed_as_one(
    network: Callable[[np.ndarray], np.ndarray], observations: np.ndarray, world: World, n_rows: int = 1
) -> np.ndarray:
    """
    Compute a network as a process that has the environments of all would do. The last bits of a product of matrices depend on
    its number of rows and on the place of a row among them, so copies take the places of the other processes' rows.

    :param network: takes any number of observations, and has K outputs
    :param observations: of N environments at each of these steps, shape (n_rows * N, ...)
    :return: outputs, shape (n_rows * N, K)
    """
    if world.size == 1 or not len(observations):
        return network(observations)
    shape = observations.shape[1:]
    by_row = observations.reshape(n_rows, 1, -1, *shape)
    everyones = np.broadcast_to(by_row, (n_rows, world.size, *by_row.shape[2:]))
    outputs = network(everyones.reshape(-1, *shape)).reshape(n_rows, world.size, by_row.shape[2], -1)
    own: np.ndarray = outputs[:, world.rank].reshape(len(observations), -1)
    return own


def whole_rollout(
    model: OnPolicyAlgorithm, world: World, buffer: RolloutBuffer, time_outs: list[TimeOut], *of_envs: np.ndarray | None
) -> tuple[Any, ...]:
    """
    Gather the steps of all processes, so that each of them can make the update of a single process. As their processors may
    round differently, their weights are compared, and those of the first process are taken where they differ.

    :param model: learns from the rollout
    :param world: the processes
    :param buffer: a complete rollout of this process, except advantages and returns
    :param time_outs: of this process
    :param of_envs: other arrays with an entry for each environment, shape (N,), or None
    :return: a buffer with the environments of all processes, the time-outs of all in the order in which a single process
        would have seen them, and the other arrays
    """
    everyones = world.all_gather((_checksum(model.policy), step_arrays(buffer), time_outs, of_envs))
    checksums, arrays, ends, others = zip(*everyones, strict=True)
    if len(set(checksums)) > 1:
        world.share_state(model)
    whole: Any = copy(buffer)
    whole.n_envs, whole.of_this_process = buffer.n_envs * world.size, buffer
    for name in arrays[0]:
        setattr(whole, name, np.concatenate([part[name] for part in arrays], axis=1))
    for name in _RECOMPUTED:
        setattr(whole, name, np.zeros_like(whole.rewards))
    of_all = [(row, rank * buffer.n_envs + env, last) for rank, own in enumerate(ends) for row, env, last in own]
    joined = [None if parts[0] is None else np.concatenate(parts) for parts in zip(*others, strict=True)]
    return whole, sorted(of_all, key=lambda one: one[:2]), *joined


def is_whole(buffer: RolloutBuffer) -> bool:
    """Return whether the buffer has the steps of all processes of torchrun."""
    return hasattr(buffer, "of_this_process")


def of_this_process(buffer: RolloutBuffer) -> RolloutBuffer:
    """Return the buffer that this process fills: the same one, or that which the steps of other processes were added to."""
    own: RolloutBuffer = getattr(buffer, "of_this_process", buffer)
    return own


def step_arrays(buffer: RolloutBuffer) -> dict[str, np.ndarray]:
    """Return what the buffer holds of each step, except what is computed from it, by the names of the attributes."""
    shape = buffer.rewards.shape
    arrays = {
        name: value for name, value in vars(buffer).items() if isinstance(value, np.ndarray) and value.shape[:2] == shape
    }
    return {name: array for name, array in arrays.items() if name not in _RECOMPUTED}


def _checksum(policy: BasePolicy) -> int:
    checksum = 0
    for parameter in policy.parameters():
        # NumPy does not know all types of torch
        checksum = zlib.crc32(parameter.detach().reshape(-1).view(th.uint8).numpy().tobytes(), checksum)
    return checksum
