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


def collector(algorithm: Any, options: dict[str, Any], env: VecEnv, n_steps: int) -> Callable[[], int]:
    """:return: a function that collects a rollout and returns its number of steps"""
    model = algorithm("MlpPolicy", env, n_steps=n_steps, seed=0, device="cpu", **options)
    _, callback = model._setup_learn(10**9, None)

    def collect() -> int:
        model.collect_rollouts(model.env, callback, model.rollout_buffer, model.n_steps)
        return n_steps * env.num_envs

    return collect


def player(env: VecEnv, actions_TN: np.ndarray, step: Callable[[Any], Any]) -> Callable[[], int]:
    """
    :param actions_TN: a vector of actions for each step
    :param step: ``env.step``, or a faster function that does the same
    :return: a function that plays these actions and returns the number of steps
    """
    env.reset()

    def play() -> int:
        for actions_N in actions_TN:
            step(actions_N)
        return len(actions_TN) * env.num_envs

    return play


def rate(run: Callable[[], int], seconds: float = 0.0, clock: Callable[[], float] = time.process_time) -> float:
    """
    :param run: returns its number of steps; called at least once, and until ``seconds`` are spent
    :param clock: returns seconds; by default CPU seconds of this process
    :return: steps per second
    """
    n_steps, start, spent = 0, clock(), 0.0
    while not n_steps or spent < seconds:
        n_steps += run()
        spent = clock() - start
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


def in_fresh_process(program: str | Path, task: Any, python: str = sys.executable) -> Any:
    """:return: the last line that ``program --task TASK`` prints; task and line are JSON"""
    command = [python, str(Path(program).resolve()), "--task", json.dumps(task)]
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
