"""Models that learn in several threads of one process restore the number of NumPy's threads."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch as th
from helpers import differing, make_model, weights
from threadpoolctl import threadpool_info, threadpool_limits

PROGRAM = """
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Thread
import torch as th
from helpers import make_model
from threadpoolctl import threadpool_info

def blas_threads():
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}

barrier, numbers = Barrier(3), []

def learn(n_steps):
    th.set_num_threads(1)
    def look(variables, _):
        step = variables["self"].num_timesteps
        if step == 1:
            barrier.wait(60)
            numbers.append(blas_threads())
            barrier.wait(60)
        return step < n_steps
    make_model().learn(400, callback=look)

def report(how):
    print(how, *numbers, blas_threads())
    numbers.clear()

report("before")
for lengths in (3, 80, 160), (160, 80, 3):
    threads = [Thread(target=learn, args=(n_steps,)) for n_steps in lengths]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    report("threads")
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(learn, lengths))
        report("pool")
"""


def test_the_number_of_numpys_threads_is_restored() -> None:
    """It is restored whichever model ends last, and whether the Python threads end or stay alive, as those of a pool."""
    support = Path(__file__).parents[1] / "support"
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "2", "OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"}
    environment["PYTHONPATH"] = os.pathsep.join([str(support), str(support.parents[1]), environment.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    reports = ["threads {1} {1} {1} {2}", "pool {1} {1} {1} {2}"]
    assert done.stdout.splitlines() == ["before {2}", *reports, *reports]


def blas_threads() -> set[int]:
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


def test_a_model_that_learns_in_a_callback_of_another_restores_the_number() -> None:
    """A callback may train an opponent. It learns the same weights as alone."""
    with threadpool_limits(2, user_api="blas"):
        before = blas_threads()
        inner = make_model(seed=1)

        def train_another(variables: Any, _: Any) -> bool:
            if variables["self"].num_timesteps == 5:
                inner.learn(32)
            assert blas_threads() == {th.get_num_threads()}
            return True

        make_model().learn(16, callback=train_another)
        assert blas_threads() == before
    assert not differing(weights(inner), weights(make_model(seed=1).learn(32)))
