"""
What a comparison knows of a task without a record: that it was begun, with which settings, and why it failed.

A task has a folder for it, which holds what its process has printed as well.
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
from sb3_vpg.zoo.algorithms import DEFAULT_ALGORITHM

_PATIENCE = 120.0


def log_file(task: Task, folder: Path) -> Path:
    """:return: what the process of a task has printed"""
    return folder / "output" / task.name / "log.txt"


def _state_file(task: Task, folder: Path) -> Path:
    return log_file(task, folder).with_name("task.json")


@contextmanager
def alone(task: Task, folder: Path, seconds: float = _PATIENCE) -> Iterator[None]:
    """
    Claim a task for this process. One whose parent was killed may need a moment to notice, and is waited for.

    :param seconds: how long
    :raises ValueError: if another process is still at work on it then
    """
    place = log_file(task, folder).parent
    place.mkdir(parents=True, exist_ok=True)
    with claimed(place, seconds):
        yield


def begin(task: Task, folder: Path) -> bool:
    """
    :param task: that this process has claimed
    :param folder: log folder
    :return: whether an earlier attempt with the same settings can be gone on with; anything else that one has left is removed
    """
    run, state = task.run_folder(folder), _read(task, folder)
    is_same = task.algo == DEFAULT_ALGORITHM and bool(state.get("task") == task.as_json())
    resumes = is_same and (run / EnvironmentName(task.env_id) / "args.yml").is_file()
    if run.exists() and not resumes:
        shutil.rmtree(run)
    _write(task, folder, None)
    return resumes


def note_failure(task: Task, folder: Path, text: str) -> None:
    """Remember why there is no record, for the reports until there is one."""
    _write(task, folder, text)


def failures(tasks: Sequence[Task], folder: Path) -> dict[str, str]:
    """:return: why the latest attempt at each of these has failed, by name; nothing of those that have not"""
    found = {task.name: _read(task, folder).get("failure") for task in tasks}
    return {name: str(text) for name, text in found.items() if text is not None}


def _read(task: Task, folder: Path) -> dict[str, Any]:
    try:
        state = json.loads(_state_file(task, folder).read_text())
    except (FileNotFoundError, ValueError):
        # Nothing is known, so it is begun anew
        return {}
    return state if isinstance(state, dict) else {}


def _write(task: Task, folder: Path, failure: str | None) -> None:
    with atomic_write(_state_file(task, folder)) as file:
        file.write(json.dumps({"task": task.as_json(), "failure": failure}).encode())
