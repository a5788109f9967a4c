"""
How the speed benchmarks measure: CPU seconds of one core, everything that is compared in each round, and a fresh
process where a measurement could influence the next one.

Import this module before NumPy and torch: they read the number of threads when they are imported.
"""

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch as th
from stable_baselines3.common.env_util import make_vec_env as make_dummy_env
from stable_baselines3.common.vec_env import VecEnv

from sb3_vpg.vec_env import make_vec_env as make_native_env

th.set_num_threads(1)

T = TypeVar("T")
KINDS = {"dummy": "DummyVecEnv", "native": "gymnasium's vector environment"}


def make_env(kind: str, n_envs: int, seed: int = 0) -> VecEnv:
    """:return: CartPole-v1 in ``DummyVecEnv`` (``"dummy"``, with ``Monitor``) or in gymnasium's vector form (``"native"``)"""
    make = {"dummy": make_dummy_env, "native": make_native_env}[kind]
    return make("CartPole-v1", n_envs, seed=seed)


def rate(run: Callable[[], int], seconds: float = 0.0) -> float:
    """
    :param run: returns its number of steps; called at least once, and until ``seconds`` of CPU time are spent
    :return: steps per CPU second
    """
    n_steps, start, spent = 0, time.process_time(), 0.0
    while not n_steps or spent < seconds:
        n_steps += run()
        spent = time.process_time() - start
    return n_steps / spent


def interleaved(tasks: Mapping[str, Callable[[], T]], repetitions: int) -> dict[str, list[T]]:
    """
    Run every task once in each round, so that a change of the machine's speed affects all of them.

    :return: the results of each task, one for each round
    """
    results: dict[str, list[T]] = {name: [] for name in tasks}
    for _ in range(repetitions):
        for name, task in tasks.items():
            results[name].append(task())
    return results


def ratio(ours: list[float], theirs: list[float]) -> float:
    """:return: the median over rounds of the ratio within each round"""
    return float(np.median(np.divide(ours, theirs)))


def in_fresh_process(program: str, task: Any) -> Any:
    """:return: the last line that ``program --task TASK`` prints; task and line are JSON"""
    command = [sys.executable, str(Path(program).resolve()), "--task", json.dumps(task)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def process_seconds(command: Sequence[str], code: int = 0) -> tuple[float, float]:
    """
    Run a command from start to end of its process.

    :param code: the exit code that is expected; the errors of a command that is to fail are not shown
    :return: wall-clock seconds and CPU seconds, with those of child processes
    :raises CalledProcessError: if it ends with another exit code
    """
    before, start = os.times(), time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL if code else None)
    wall, after = time.perf_counter() - start, os.times()
    if done.returncode != code:
        raise subprocess.CalledProcessError(done.returncode, command)
    user, system = after.children_user - before.children_user, after.children_system - before.children_system
    return wall, user + system
