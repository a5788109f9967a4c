"""The processes that torchrun has started, as one ``World``."""

import atexit
import os
import pickle
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from itertools import count
from typing import Any, TypeVar

import numpy as np
import torch as th
import torch.distributed as dist
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import MaybeCallback
from stable_baselines3.common.vec_env import VecEnv
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from sb3_vpg.common import torchrun
from sb3_vpg.common.world import Rows, World
from sb3_vpg.distributed.consistency import broadcast_state, check_hooks, check_policy, check_seeds, check_shards
from sb3_vpg.distributed.exchange import (
    Exchange,
    GlooExchange,
    SharedMemoryExchange,
    has_ended,
    leave_shared_memory,
    share_memory,
)
from sb3_vpg.distributed.silence import own_callbacks, silenced
from sb3_vpg.distributed.statistics import PooledStatistics
from sb3_vpg.exceptions import MainProcessError, ProcessLostError

T = TypeVar("T")
_TIMEOUT = timedelta(days=7)
"""The others wait while the first process evaluates. A process that has died is noticed sooner, by any way of exchange."""
_JOINS = count()
"""Every process joins as often as the others."""
_JOINED = "SB3_VPG_JOINED"
"""Variable with the number of the process that has joined. Its child processes inherit it."""
_LARGEST_GATHERED = 8
"""Up to this number of processes, sums are computed by each process in the same order."""


class TorchrunWorld(World):
    """See ``World``. Make one with ``join``."""

    is_distributed = True

    def __init__(self) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self._statistics: PooledStatistics | None = None
        self._processes: list[tuple[str, int]] = []
        self._exchange: Exchange = GlooExchange()
        self._processes = self.all_gather((socket.gethostname(), os.getpid()))
        self._exchange = share_memory(self.rank, self.size, self.all_gather) or self._exchange

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy of a model is in no group
        return World, ()

    def all_gather(self, value: T) -> list[T]:
        if self.size == 1:
            return [value]
        content = pickle.dumps(value)
        with self._naming_lost_process():
            contents = self._exchange.all_gather(content)
        return [pickle.loads(one) for one in contents]

    def broadcast(self, value: T) -> T:
        if self.size == 1:
            return value
        sent = pickle.dumps(value) if self.is_main_process else b""
        with self._naming_lost_process():
            content = self._exchange.broadcast(sent)
        return pickle.loads(content)  # type: ignore[no-any-return]  # the value of the first process

    def run_on_main(self, make: Callable[[], T]) -> T:
        """
        See ``World.run_on_main``.

        :raises MainProcessError: in the other processes, if the function raises an error in the first
        """
        result: Any = None
        try:
            result = make() if self.is_main_process else None
        except Exception as error:
            self.broadcast((None, f"{type(error).__name__}: {error}"))
            raise
        result, failure = self.broadcast((result, None))
        if failure is not None:
            raise MainProcessError(f"the first process has stopped: {failure}")
        return result  # type: ignore[no-any-return]  # what the function returned

    def all_gather_rows(self, rows: Rows) -> Rows:
        if isinstance(rows, np.ndarray):
            return np.concatenate(self.all_gather(rows))
        parts = self.all_gather(rows.cpu())
        return th.cat(parts).to(rows.device)

    def all_reduce(self, numbers: th.Tensor) -> th.Tensor:
        if self.size == 1 or not numbers.numel():
            return numbers
        device, numbers = numbers.device, numbers if _sums_on(numbers.device) else numbers.cpu()
        with self._naming_lost_process():
            if self.size > _LARGEST_GATHERED:
                total = numbers.clone()
                dist.all_reduce(total)
            else:
                total = _pairwise(self._gathered(numbers.contiguous()))
        return total.to(device)

    def _gathered(self, numbers: th.Tensor) -> list[th.Tensor]:
        """Return the tensor of each process, which have the same shape."""
        if numbers.device.type == "cpu" and isinstance(self._exchange, SharedMemoryExchange):
            contents = self._exchange.all_gather(numbers.reshape(-1).view(th.uint8).numpy().tobytes())
            return [th.frombuffer(one, dtype=numbers.dtype).reshape(numbers.shape) for one in contents]
        parts = [th.empty_like(numbers) for _ in range(self.size)]
        dist.all_gather(parts, numbers)
        return parts

    def all_reduce_gradient(
        self, losses: list[float], gradient: np.ndarray, weight: float | None = None
    ) -> tuple[list[float], np.ndarray]:
        factor = 1.0 if weight is None else weight
        flat = np.array([*losses, 1.0], dtype=gradient.dtype)
        total = self.all_reduce(th.from_numpy(factor * np.concatenate([flat, gradient]))).numpy()
        if weight is not None:
            total /= total[len(losses)]
        return [*map(float, total[: len(losses)])], total[len(losses) + 1 :]

    def all_reduce_grads(
        self, losses: Sequence[th.Tensor], parameters: Sequence[th.Tensor], weight: float | None = None
    ) -> Sequence[th.Tensor]:
        grads = [th.zeros_like(one) if one.grad is None else one.grad for one in parameters]
        numbers = [*(loss.detach() for loss in losses), th.ones((), device=losses[0].device)]
        flat = th.cat([part.flatten() for part in (*numbers, *grads)])
        total = self.all_reduce(flat if weight is None else weight * flat)
        if weight is not None:
            total = total / total[len(losses)]
        parts = th.split(total[len(losses) + 1 :], [grad.numel() for grad in grads])
        for parameter, part in zip(parameters, parts, strict=True):
            # A parameter that no process has used keeps None, as in a single process
            if parameter.grad is not None or bool(part.any()):
                parameter.grad = part.reshape(parameter.shape).clone()
        return list(total[: len(losses)])

    @contextmanager
    def learning(self, model: BaseAlgorithm) -> Iterator[None]:
        """See ``World.learning``. If the block raises an error, this process leaves, which ends the others' waiting."""
        try:
            broadcast_state(model, self)
            with silenced(model) if not self.is_main_process else nullcontext():
                yield
        except BaseException:
            leave()
            raise

    def share_state(self, model: BaseAlgorithm) -> None:
        broadcast_state(model, self)

    def own_callback(self, callback: MaybeCallback, progress_bar: bool) -> tuple[MaybeCallback, bool]:
        return own_callbacks(callback, progress_bar, self), False

    def check_model(self, model: BaseAlgorithm, total_timesteps: int) -> None:
        check_shards(model, total_timesteps, self)

    def check_start(self, env: VecEnv, hooks: Sequence[object]) -> None:
        check_seeds(env, self)
        check_hooks(hooks, self)

    def check_policy(self, policy: BasePolicy, is_lean: bool) -> None:
        check_policy(policy, is_lean)

    @contextmanager
    def frozen_statistics(self, env: VecEnv) -> Iterator[None]:
        """See ``World.frozen_statistics``. If the block raises an error, nothing is pooled."""
        self._statistics = PooledStatistics(env)
        try:
            with self._statistics:
                yield
            self._statistics.pool(self)
        finally:
            self._statistics = None

    def recording(self, step: Callable[[Any], Any]) -> Callable[[Any], Any]:
        assert self._statistics is not None
        return self._statistics.recording(step)

    @contextmanager
    def _naming_lost_process(self) -> Iterator[None]:
        """:raises ProcessLostError: if another process has ended while this one waited for it"""
        try:
            yield
        except (RuntimeError, ValueError) as error:
            raise ProcessLostError(
                f"{self._lost_process()} while process {self.rank} waited for it; its own output, or the summary of torchrun, "
                "says why. To go on from the last checkpoint, start torchrun again (with --resume on the command line)"
            ) from error

    def _lost_process(self) -> str:
        """Return which of the processes on this machine has ended, waiting a moment for the operating system to know."""
        others = [(rank, pid) for rank, (host, pid) in enumerate(self._processes) if host == socket.gethostname()]
        for _ in range(20):
            for rank, pid in others:
                if rank != self.rank and has_ended(pid):
                    return f"process {rank} of {self.size} (pid {pid}) has ended"
            time.sleep(0.1)
        return f"another of the {self.size} processes has ended, or cannot be reached,"


def _pairwise(parts: Sequence[th.Tensor]) -> th.Tensor:
    """Return the sum, added in pairs: of 4 processes as (0 + 1) + (2 + 3)."""
    if len(parts) == 1:
        return parts[0]
    half = (len(parts) + 1) // 2
    return _pairwise(parts[:half]) + _pairwise(parts[half:])


def _sums_on(device: th.device) -> bool:
    """Return whether the group sums tensors of this device; else they are copied to the CPU."""
    return device.type == "cpu" or "nccl" in str(dist.get_backend_config())


def join() -> TorchrunWorld:
    """
    Join the processes that torchrun has started. The first call waits for all of them.

    :raises ValueError: if the program has made a process group that cannot exchange tensors of the CPU, or if this is a child
        of a process that has joined
    """
    if os.environ.setdefault(_JOINED, str(os.getpid())) != str(os.getpid()):
        raise ValueError(
            f"this process is a child of process {os.environ[_JOINED]}, which torchrun has started and whose place it cannot "
            "take: train in that process, or let the child train alone, by os.environ.pop('TORCHELASTIC_RUN_ID') before it "
            "makes its model"
        )
    if not dist.is_initialized():
        # NCCL needs a GPU for each process of a machine
        n_local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        has_gpus = th.cuda.is_available() and th.cuda.device_count() >= n_local and dist.is_nccl_available()
        store, rank, size = next(rendezvous("env://", timeout=_TIMEOUT))
        # torchrun may keep its store for a restart, with the addresses of the processes before
        store = PrefixStore(f"sb3_vpg {torchrun.n_restarts()} {next(_JOINS)}", store)
        backend = "cpu:gloo,cuda:nccl" if has_gpus else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=_TIMEOUT)
        atexit.register(leave)
    elif "gloo" not in str(dist.get_backend_config()):
        raise ValueError(
            f"the program has made a process group with the backend {dist.get_backend()}, which cannot exchange tensors of "
            'the CPU: use init_process_group("cpu:gloo,cuda:nccl"), or leave the call out'
        )
    return TorchrunWorld()


def leave() -> None:
    """Close the connections to the other processes, who may wait for this one."""
    leave_shared_memory()
    if dist.is_initialized():
        dist.destroy_process_group()
