"""
Program that runs one task: a training of the zoo, and then the evaluation of the finished agent.

``python -m sb3_vpg.compare.runs.worker TASK FOLDER SCORE``: a JSON file with the task, the log folder, and the file to write
the score to.
"""

import json
import os
import signal
import sys
import threading
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from threadpoolctl import threadpool_limits

from sb3_vpg.common.atomic_files import atomic_write
from sb3_vpg.compare.runs.attempts import begin, claimed_task
from sb3_vpg.compare.runs.tasks import FINAL_SEED, Task
from sb3_vpg.zoo.agents.evaluation import evaluate_run
from sb3_vpg.zoo.cli import main


def train_flags(task: Task, folder: Path) -> list[str]:
    """:return: the arguments of ``sb3-vpg`` that train a task"""
    flags = ["train", "--algo", task.algo, "--env", task.env_id, "-f", str(folder), "--seed", str(task.seed)]
    flags += ["-n", str(task.n_timesteps), "--eval-freq", str(task.eval_freq), "--eval-episodes", str(task.eval_episodes)]
    flags += ["--gym-packages", *task.gym_packages] if task.gym_packages else []
    return [*flags, "--n-eval-envs", str(min(5, task.eval_episodes)), "--num-threads", "1", "--device", "cpu"]


def run(task: Task, folder: Path) -> dict[str, Any]:
    """
    Train and evaluate.

    :param task: task of a comparison
    :param folder: log folder
    :return: returns of the finished agent, the evaluations during training, and whether an earlier attempt was resumed
    :raises RuntimeError: if the training failed; it has printed its error
    """
    is_resumed = begin(task, folder)
    code = main([*train_flags(task, folder), "--resume" if is_resumed else "--exp-id", str(task.exp_id)])
    if code != 0:
        raise RuntimeError(f"training ended with exit code {code}")
    with threadpool_limits(1):
        final = evaluate_run(
            str(folder), task.algo, task.env_id, task.exp_id, task.final_episodes, seed=FINAL_SEED, device="cpu"
        )
    score: dict[str, Any] = {"final_returns": final.returns.tolist(), "timesteps": [], "mean_returns": []}
    score |= {"num_timesteps": final.num_timesteps, "is_resumed": is_resumed}
    evaluations = task.run_folder(folder) / "evaluations.npz"
    # Missing if the algorithm stopped before the first evaluation
    if evaluations.is_file():
        with np.load(evaluations) as arrays:
            score["timesteps"] = arrays["timesteps"].tolist()
            score["mean_returns"] = arrays["results"].mean(axis=1).tolist()
    return score


def _terminate_with_parent() -> None:
    """Terminate this process when its parent ends, however it ends: that closes this process's standard input."""
    # Not through sys.stdin: its lock would still be held when the interpreter shuts down
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def run_worker(task_file: Path, folder: Path, score_file: Path) -> None:
    """The program; see the docstring of the module."""
    threading.Thread(target=_terminate_with_parent, daemon=True).start()
    th.set_num_threads(1)
    task = Task(**json.loads(task_file.read_text()))
    for module in task.gym_packages:
        import_module(module)
    with claimed_task(task, folder):
        score = run(task, folder)
    with atomic_write(score_file) as file:
        file.write(json.dumps(score).encode())


if __name__ == "__main__":
    run_worker(*map(Path, sys.argv[1:]))
