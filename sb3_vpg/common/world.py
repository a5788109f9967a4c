"""
The processes that train one model.

The code of an iteration sees one small object, a ``World``. Here it is this process alone: nothing is exchanged, and every
method returns what it was given. Under torchrun it is ``sb3_vpg.distributed.world.TorchrunWorld``.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import MaybeCallback
from stable_baselines3.common.vec_env import VecEnv

T = TypeVar("T")
Rows = TypeVar("Rows", np.ndarray, th.Tensor)


class World:
    """
    The processes as this one sees them; here it is alone. All call the methods in the same order, and each waits for the
    others.
    """

    rank = 0
    """Number of this process, from 0."""
    size = 1
    """Number of processes."""
    is_distributed = False
    """Whether torchrun has started this process, alone or with others."""

    @property
    def is_main_process(self) -> bool:
        """Whether this process logs, evaluates and writes files."""
        return self.rank == 0

    def all_gather(self, value: T) -> list[T]:
        """Return the value of each process, in the order of their ranks."""
        return [value]

    def broadcast(self, value: T) -> T:
        """Return the value of the first process."""
        return value

    def run_on_main(self, make: Callable[[], T]) -> T:
        """Return the result of a function that only the first process calls."""
        return make()

    def all_gather_rows(self, rows: Rows) -> Rows:
        """Return the rows of all processes, in the order of their ranks."""
        return rows

    def all_reduce(self, numbers: th.Tensor) -> th.Tensor:
        """Return the sum over the processes, which is the same in each of them."""
        return numbers

    def all_reduce_gradient(
        self, losses: list[float], gradient: np.ndarray, weight: float | None = None
    ) -> tuple[list[float], np.ndarray]:
        """
        Sum losses and their gradient over the processes.

        :param losses: of this process's steps
        :param gradient: of the first loss, shape (n_parameters,)
        :param weight: the mean with these weights is taken instead of the sum, such as the number of steps of each process
        :return: losses and gradient of all processes
        """
        return losses, gradient

    def all_reduce_grads(
        self, losses: Sequence[th.Tensor], parameters: Sequence[th.Tensor], weight: float | None = None
    ) -> Sequence[th.Tensor]:
        """
        Do the same with the ``grad`` of parameters, which are replaced.

        :return: losses of all processes
        """
        return losses

    @contextmanager
    def learning(self, model: BaseAlgorithm) -> Iterator[None]:
        """Under torchrun, within this block all processes begin with the first one's weights, and only the first prints."""
        yield

    def share_state(self, model: BaseAlgorithm) -> None:
        """Give all processes the weights, the optimisers' states and the random stream of the first one's model."""

    def own_callback(self, callback: MaybeCallback, progress_bar: bool) -> tuple[MaybeCallback, bool]:
        """Return these arguments of ``learn`` for this process; only the first one evaluates, writes and shows progress."""
        return callback, progress_bar

    def check_model(self, model: BaseAlgorithm, total_timesteps: int) -> None:
        """Refuse a model whose settings differ between the processes, at the start of ``learn``. Raises ValueError."""

    def check_start(self, env: VecEnv, hooks: Sequence[object]) -> None:
        """Refuse equal environments, after their reset, and different hooks. Raises ValueError."""

    def check_policy(self, policy: BasePolicy, is_lean: bool) -> None:
        """
        Refuse a policy that cannot act or learn on several processes. Raises ValueError.

        :param is_lean: whether a ``LeanActor`` acts, whose random numbers are divided among the processes
        """

    @contextmanager
    def frozen_statistics(self, env: VecEnv) -> Iterator[None]:
        """Under torchrun, the statistics of ``VecNormalize`` do not change within this block, and are pooled at its end."""
        yield

    def recording(self, step: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Return the step of an environment, which also records rewards and observations for pooling in the block above."""
        return step


SINGLE_PROCESS = World()
"""The world of every model that is not trained under torchrun."""
