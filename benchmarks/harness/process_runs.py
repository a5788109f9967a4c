"""The work of one process of processes.py, which is alone, or which torchrun has started with others."""

import json
import pickle
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
import torch as th
import torch.distributed as dist

from harness.hyperparameters import read_dict, scheduled
from harness.task_settings import NO_RENDERING, VPG_ENTRIES, normalized
from sb3_vpg import VPG
from sb3_vpg.collection.agreement import of_this_process, step_arrays
from sb3_vpg.distributed import make_vec_env
from sb3_vpg.distributed.world import TorchrunWorld, join

EXCHANGES = {"exchanges": (TorchrunWorld, ["all_gather", "broadcast"])}
"""The methods that exchange objects between the processes."""


def new_model(env_id: str, n_envs: int, seed: int) -> VPG:
    """:return: a model with the settings of real_tasks.py; ``n_envs`` are divided among the processes"""
    entry = {key: value for key, value in VPG_ENTRIES[env_id].items() if key != "n_envs"}
    env = normalized(make_vec_env(env_id, n_envs, seed=seed, env_kwargs=NO_RENDERING), entry)
    options = {key: value for key, value in scheduled(entry).items() if key != "normalize"}
    options["policy_kwargs"] = read_dict(options.get("policy_kwargs", "dict()"))
    return VPG("MlpPolicy", env, seed=seed, device="cpu", **options)


@contextmanager
def timed(functions: dict[str, tuple[Any, Sequence[str]]]) -> Iterator[dict[str, dict[str, float]]]:
    """
    :param functions: by name: a class or module, and the names of its functions
    :return: by name: ``"calls"`` within the block, and their ``"seconds"`` of wall-clock time
    """
    spent: dict[str, dict[str, float]] = {name: {"calls": 0, "seconds": 0.0} for name in functions}

    def replaced(name: str, function: Any) -> Any:
        def run(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            result = function(*args, **kwargs)
            spent[name]["calls"] += 1
            spent[name]["seconds"] += time.perf_counter() - start
            return result

        return run

    with ExitStack() as stack:
        for name, (owner, attributes) in functions.items():
            for attribute in attributes:
                stack.enter_context(patch.object(owner, attribute, replaced(name, getattr(owner, attribute))))
        yield spent


def train(env_id: str, n_envs: int, n_steps: int, seed: int = 0, waits: bool = False) -> list[dict[str, Any]]:
    """
    :param n_envs: environments of all processes
    :param n_steps: environment steps of all processes
    :param waits: print a line when the model is ready, and wait for one from standard input before it trains
    :return: of each process: wall-clock and CPU ``"seconds"``, ``"iterations"``, ``"steps"`` of its environments,
        ``"n_numbers"`` of the policy's gradient, ``"n_bytes"`` of what it gathers of a rollout, and the calls and seconds of
        its rollouts and exchanges
    """
    model = new_model(env_id, n_envs, seed)
    model.learn(2 * model.n_steps * n_envs)  # exclude what torch loads at its first use
    if waits:
        print("ready", flush=True)
        sys.stdin.readline()
    before = model._n_updates
    with timed({"rollouts": (VPG, ["collect_rollouts"]), **EXCHANGES}) as spent:
        start, cpu_start = time.perf_counter(), time.process_time()
        model.learn(n_steps)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu_start
    n_numbers = sum(parameter.numel() for group in model.policy.optimizer.param_groups for parameter in group["params"])
    own = {"seconds": seconds, "CPU seconds": cpu, "iterations": model._n_updates - before}
    own["steps"] = own["iterations"] * model.n_steps * model.n_envs
    n_bytes = len(pickle.dumps(step_arrays(of_this_process(model.rollout_buffer))))
    return _of_all({**own, "n_numbers": n_numbers, "n_bytes": n_bytes, **spent})


def exchange(n_numbers: int, n_bytes: int, repetitions: int) -> dict[str, float]:
    """
    :return: median seconds of an exchange for which no process waits: of a ``"message"`` with a few numbers, of a
        ``"rollout"`` with so many bytes, and of a ``"sum"`` of so many numbers
    """
    world, numbers, rollout = join(), th.zeros(n_numbers), bytes(n_bytes)
    functions: dict[str, Callable[[], Any]] = {
        "message": lambda: world.all_gather((world.rank, 0.0)),
        "rollout": lambda: world.all_gather(rollout),
        "sum": lambda: world.all_reduce(numbers),
    }
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repetitions):
        for name, function in functions.items():
            dist.barrier()
            start = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - start)
    return {name: float(np.median(measured)) for name, measured in seconds.items()}


def _of_all(own: dict[str, Any]) -> list[dict[str, Any]]:
    if not dist.is_initialized():
        return [own]
    every: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(every, own)
    return every


def run_task(text: str) -> None:
    """Do a task, which is JSON: the name of a function and its arguments. The first process prints the result as JSON."""
    task = json.loads(text)
    # Gymnasium's about HalfCheetah-v4, and those of a schedule that ends in a quick run
    warnings.simplefilter("ignore")
    result = {"train": train, "exchange": exchange}[task.pop("function")](**task)
    if not dist.is_initialized() or dist.get_rank() == 0:
        print(json.dumps(result), flush=True)
