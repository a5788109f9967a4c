"""
One task in a process of its own: an ordinary run of the zoo, and then the score of the finished agent.

``python -m sb3_vpg.compare.runs.worker TASK FOLDER SCORE``: the task as JSON, the log folder, and the
file to write the score to.
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
from sb3_vpg.compare.runs.attempts import alone, begin
from sb3_vpg.compare.runs.tasks import FINAL_SEED, Task
from sb3_vpg.zoo.agents.evaluation import evaluate_run
from sb3_vpg.zoo.cli import main


def train_flags(task: Task, folder: Path) -> list[str]:
    """:return: the arguments of ``sb3-vpg`` that a task stands for"""
    flags = ["train", "--algo", task.algo, "--env", task.env_id, "-f", str(folder), "--seed", str(task.seed)]
    flags += ["-n", str(task.n_timesteps), "--eval-freq", str(task.eval_freq), "--eval-episodes", str(task.eval_episodes)]
    flags += ["--gym-packages", *task.gym_packages] if task.gym_packages else []
    return [*flags, "--n-eval-envs", str(min(5, task.eval_episodes)), "--num-threads", "1", "--device", "cpu"]


def run(task: Task, folder: Path) -> dict[str, Any]:
    """
    :param task: of a comparison
    :param folder: log folder
    :return: the score of the finished agent, the curve of its evaluations, and whether an earlier attempt was gone on with
    :raises RuntimeError: if the training failed; its error has been printed
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
    # An agent may be finished before its first evaluation
    if evaluations.is_file():
        with np.load(evaluations) as arrays:
            score["timesteps"] = arrays["timesteps"].tolist()
            score["mean_returns"] = arrays["results"].mean(axis=1).tolist()
    return score


def _end_with_the_parent() -> None:
    """Whoever started this process holds the other end of its standard input, however it ends."""
    # Not through sys.stdin, whose lock would still be held when Python ends
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def work(task_file: Path, folder: Path, score_file: Path) -> None:
    """See the module."""
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    th.set_num_threads(1)
    task = Task(**json.loads(task_file.read_text()))
    for module in task.gym_packages:
        import_module(module)
    with alone(task, folder):
        score = run(task, folder)
    with atomic_write(score_file) as file:
        file.write(json.dumps(score).encode())


if __name__ == "__main__":
    work(*map(Path, sys.argv[1:]))
