"""
State of the tasks that have no record: whether one was started, with which settings, and why it failed.

Each task has a folder for its state and for the output of its process.
"""

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_sb3 import EnvironmentName

from sb3_vpg.common.atomic_files import atomic_write
from sb3_vpg.common.locks import claimed
from sb3_vpg.compare.runs.tasks import Task
from sb3_vpg.zoo.algorithms import VPG_ALGORITHMS

_LOCK_TIMEOUT = 120.0


def log_file(task: Task, folder: Path) -> Path:
    """:return: the file with the output of a task's process"""
    return folder / "output" / task.name / "log.txt"


def _state_file(task: Task, folder: Path) -> Path:
    return log_file(task, folder).with_name("task.json")


@contextmanager
def claimed_task(task: Task, folder: Path, seconds: float = _LOCK_TIMEOUT) -> Iterator[None]:
    """
    Lock a task for this process. The worker of a comparison that was killed needs a moment to release it.

    :raises ValueError: if another process still holds the lock after some seconds
    """
    task_folder = log_file(task, folder).parent
    task_folder.mkdir(parents=True, exist_ok=True)
    with claimed(task_folder, seconds):
        yield


def begin(task: Task, folder: Path) -> bool:
    """
    Prepare an attempt: remove an earlier run of the task, unless it can be resumed.

    :param task: a task that this process has locked
    :param folder: log folder
    :return: True if the earlier run can be resumed: it is one of VPG, with the same settings
    """
    run, state = task.run_folder(folder), _read(task, folder)
    is_same = task.algo in VPG_ALGORITHMS and bool(state.get("task") == task.as_json())
    resumes = is_same and (run / EnvironmentName(task.env_id) / "args.yml").is_file()
    if run.exists() and not resumes:
        shutil.rmtree(run)
    _write(task, folder, None)
    return resumes


def note_failure(task: Task, folder: Path, text: str) -> None:
    """Save why a task failed. The reports show it until the task is run again."""
    _write(task, folder, text)


def failures(tasks: Sequence[Task], folder: Path) -> dict[str, str]:
    """:return: by name, why the latest attempt at a task failed, for those that failed"""
    texts = {task.name: _read(task, folder).get("failure") for task in tasks}
    return {name: str(text) for name, text in texts.items() if text is not None}


def _read(task: Task, folder: Path) -> dict[str, Any]:
    try:
        state = json.loads(_state_file(task, folder).read_text())
    except (FileNotFoundError, ValueError):
        # Without a readable state the task starts from the beginning
        return {}
    return state if isinstance(state, dict) else {}


def _write(task: Task, folder: Path, failure: str | None) -> None:
    with atomic_write(_state_file(task, folder)) as file:
        file.write(json.dumps({"task": task.as_json(), "failure": failure}).encode())
