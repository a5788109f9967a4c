"""
The records of finished runs: a file of JSON lines, one for each run.

If a process is killed while it writes a line, that line is ignored and its run is done again.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from sb3_vpg.compare.runs.tasks import Task

RECORDS = "records.jsonl"


@dataclass(frozen=True)
class Record:
    """
    A finished run.

    :param task: the task
    :param num_timesteps: environment steps of the training: up to one rollout more than the task's, or fewer if the algorithm
        stopped early
    :param final_returns: undiscounted return of each episode of the finished agent, shape (final_episodes,)
    :param timesteps: environment steps at the evaluations during training, shape (n_evaluations,)
    :param mean_returns: mean return of each of these evaluations, shape (n_evaluations,)
    :param wall_seconds: wall-clock time of the process, with imports and evaluations; None if the run was resumed, because
        the time of the killed attempt is unknown
    :param cpu_seconds: CPU time of the process; None if the run was resumed, and on Windows
    :param where: processor and versions
    """

    task: Task
    num_timesteps: int
    final_returns: list[float]
    timesteps: list[int]
    mean_returns: list[float]
    wall_seconds: float | None
    cpu_seconds: float | None
    where: str

    def as_json(self) -> dict[str, Any]:
        """:return: values that ``json`` can write"""
        return asdict(self)

    @staticmethod
    def from_json(values: dict[str, Any]) -> "Record":
        """
        :param values: values of ``as_json``
        :raises TypeError: if a value has the wrong type or an unknown name
        :raises ValueError: if a value is missing, if a return is not finite, or if the numbers of evaluations differ
        """
        missing = {field.name for field in fields(Record)} - set(values)
        if missing:
            raise ValueError(f"it lacks {', '.join(sorted(missing))}: another version of sb3-vpg wrote it")
        record = Record(**{**values, "task": Task(**values["task"])})
        if not record.final_returns or not np.isfinite([*record.final_returns, *record.mean_returns]).all():
            raise ValueError("its returns are missing or not finite")
        if len(record.timesteps) != len(record.mean_returns):
            raise ValueError(f"{len(record.timesteps)} evaluations have {len(record.mean_returns)} returns")
        return record


def read(file: Path) -> list[Record]:
    """
    Read the records of a file, which need not exist. A last line that was cut off is ignored.

    :raises ValueError: if another line is not a record
    """
    if not file.is_file():
        return []
    *lines, last = file.read_bytes().split(b"\n")
    if _is_json_object(last):
        # An editor has removed the newline at the end of the file
        lines.append(last)
    records = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            records.append(Record.from_json(json.loads(line)))
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"{file}, line {number}, is not a record ({error}); remove the line to do that run again"
            ) from error
    return records


def add(record: Record, file: Path) -> None:
    """Append a record. A last line that was cut off is removed."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("ab+") as stream:
        stream.seek(0)
        before = stream.read()
        end = before.rfind(b"\n") + 1
        needs_newline = _is_json_object(before[end:])
        if not needs_newline:
            stream.truncate(end)
        stream.write(b"\n" * needs_newline + json.dumps(record.as_json(), separators=(",", ":")).encode() + b"\n")
        stream.flush()
        os.fsync(stream.fileno())


def _is_json_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def finished(tasks: Sequence[Task], file: Path, any_entry: bool = False) -> dict[str, Record]:
    """
    :param tasks: tasks of a comparison
    :param file: file of records
    :param any_entry: accept records of runs with other hyperparameters than the task has
    :return: the records of the finished tasks, by the name of the task
    :raises ValueError: if a run had other settings than its task
    """
    records = {record.task.name: record for record in read(file)}
    found = {task.name: records[task.name] for task in tasks if task.name in records}
    for task in tasks:
        if task.name in found:
            before = found[task.name].task
            _check_same(before, replace(task, entry=before.entry) if any_entry else task, file)
    return found


def _check_same(before: Task, now: Task, file: Path) -> None:
    old, new = before.as_json(), now.as_json()
    differing = [f"{name} {old[name]!r}, not {new[name]!r}" for name in new if old[name] != new[name]]
    if differing:
        raise ValueError(
            f"{file}: {now.name} was run with {'; '.join(differing)}. Give the same settings again, or choose another --folder"
        )
