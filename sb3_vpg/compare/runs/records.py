"""
The records of finished runs: one file of JSON lines, to which a comparison adds and from which it goes on and reports.

A line is added as a whole, and one that was cut off when its writer was killed is no record: its run is done again.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from sb3_vpg.compare.runs.tasks import Task


@dataclass(frozen=True)
class Record:
    """
    A finished run.

    :param task: what was run
    :param num_timesteps: environment steps of the training: up to one rollout more than the task's, or fewer if the agent was
        finished early
    :param final_returns: undiscounted return of each episode of the finished agent, shape (final_episodes,)
    :param timesteps: environment steps at the evaluations during training, shape (n_evaluations,)
    :param mean_returns: of these evaluations, shape (n_evaluations,)
    :param wall_seconds: of the whole process: imports, training, evaluations; None for a run of several attempts, because what
        those cost that were killed is not known
    :param cpu_seconds: of the same; None also where the system does not tell
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
        """:return: plain values"""
        return asdict(self)

    @staticmethod
    def from_json(values: dict[str, Any]) -> "Record":
        """
        :raises TypeError: if they are none of a record
        :raises ValueError: for returns that are no finite numbers, and for a curve of which some are missing
        """
        missing = {one.name for one in fields(Record)} - set(values)
        if missing:
            raise ValueError(f"it lacks {', '.join(sorted(missing))}: another version of sb3-vpg has written it")
        record = Record(**{**values, "task": Task(**values["task"])})
        if not record.final_returns or not np.isfinite([*record.final_returns, *record.mean_returns]).all():
            raise ValueError("its returns are no finite numbers")
        if len(record.timesteps) != len(record.mean_returns):
            raise ValueError(f"{len(record.timesteps)} evaluations have {len(record.mean_returns)} returns")
        return record


RECORDS = "records.jsonl"


def read(file: Path) -> list[Record]:
    """
    :param file: of records
    :return: what it holds; nothing if it is not there
    :raises ValueError: for a line that is no record, but for the last, which may have been cut off
    """
    if not file.is_file():
        return []
    *lines, last = file.read_bytes().split(b"\n")
    if _is_whole(last):
        # Somebody's editor has left the last line without its end
        lines.append(last)
    records = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            records.append(Record.from_json(json.loads(line)))
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"{file}, line {number}, is no record of a run ({error}); remove it to do that run again"
            ) from error
    return records


def add(record: Record, file: Path) -> None:
    """Add a record, in place of a line that was cut off."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("ab+") as stream:
        stream.seek(0)
        before = stream.read()
        end = before.rfind(b"\n") + 1
        is_whole = _is_whole(before[end:])
        if not is_whole:
            stream.truncate(end)
        stream.write(b"\n" * is_whole + json.dumps(record.as_json(), separators=(",", ":")).encode() + b"\n")
        stream.flush()
        os.fsync(stream.fileno())


def _is_whole(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def finished(tasks: Sequence[Task], file: Path, any_entry: bool = False) -> dict[str, Record]:
    """
    :param tasks: of a comparison
    :param file: of records
    :param any_entry: also those whose hyperparameters were other ones than today's
    :return: those of its tasks that are finished, by name
    :raises ValueError: if one was run with other settings than these
    """
    known = {record.task.name: record for record in read(file)}
    found = {task.name: known[task.name] for task in tasks if task.name in known}
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
            f"{file}: {now.name} was run with {'; '.join(differing)}. Give the settings of before, or choose another --folder"
        )
