"""Which steps of an iteration are this process's, and what is computed from those of all processes."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch as th
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.utils import explained_variance

from sb3_vpg.collection.advantages import normalize
from sb3_vpg.collection.buffers import EpisodeBuffer, by_environment, episode_lengths
from sb3_vpg.common.world import World
from sb3_vpg.estimation.diagnostics import Part, batch_parts


class BatchShard:
    """
    This process's steps among those of all processes: all of them, if it is alone.

    :param buffer: a complete rollout, with the n steps of ``full_batch``
    :param n_steps: n
    :param world: the processes
    """

    def __init__(self, buffer: RolloutBuffer, n_steps: int, world: World) -> None:
        self._world = world
        self._buffer, self._n_steps = buffer, n_steps
        # Rollouts of fixed length are as long in each process
        numbers = world.all_gather(n_steps) if isinstance(buffer, EpisodeBuffer) else [n_steps] * world.size
        self.n_all = sum(numbers)
        """Number of steps of all processes."""
        self._first = sum(numbers[: world.rank])

    @cached_property
    def _by_env(self) -> th.Tensor:
        """The steps environment by environment: this order does not depend on the number of processes."""
        return by_environment(self._buffer, th.arange(self._n_steps))

    @property
    def rows(self) -> np.ndarray | None:
        """
        Of each step in the batch of a single process, its index here, or -1 if it is another process's. None without
        torchrun.
        """
        if not self._world.is_distributed:
            return None
        n_steps, n_envs = self._n_steps, self._buffer.n_envs
        if isinstance(self._buffer, EpisodeBuffer) or self._buffer.generator_ready:
            places = self._first + np.arange(n_steps)
        else:
            times, envs = np.divmod(np.arange(n_steps), n_envs)
            places = (times * self._world.size + self._world.rank) * n_envs + envs
        rows = np.full(self.n_all, -1)
        rows[places] = np.arange(n_steps)
        return rows

    def normalized(self, advantages: th.Tensor) -> th.Tensor:
        """Return the advantages, shape (n,), scaled by the mean and standard deviation of all processes."""
        if not self._world.is_distributed:
            return normalize(advantages)
        everyones = normalize(self._world.all_gather_rows(advantages[self._by_env]))
        scaled = th.empty_like(advantages)
        scaled[self._by_env] = everyones[self._first : self._first + len(advantages)]
        return scaled

    def explained_variance(self, values: th.Tensor, returns: th.Tensor) -> float:
        """Return SB3's measure of how well the values, shape (n,), predict the returns of all processes."""
        predicted, actual = values.cpu().numpy(), returns.cpu().numpy()
        if self._world.is_distributed:
            predicted, actual = self._world.all_gather_rows(np.stack([predicted, actual], axis=1)).T
        return float(explained_variance(predicted, actual))

    def parts(self, device: th.device) -> Sequence[Part]:
        """Return the parts of the batch of all processes for ``signal_to_noise``, each with the rows of this process."""
        lengths = episode_lengths(self._buffer)
        if lengths is not None:
            lengths = [length for own in self._world.all_gather(lengths) for length in own]
        first, last = self._first, self._first + self._n_steps
        parts = batch_parts(th.arange(self.n_all), lengths)
        return [
            Part(self._by_env[rows[(rows >= first) & (rows < last)] - first].to(device), n_terms) for rows, n_terms in parts
        ]
