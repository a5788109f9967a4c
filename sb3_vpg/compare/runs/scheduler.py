"""Runs every task that has no record yet, and reports failures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sb3_vpg.compare.runs import attempts
from sb3_vpg.compare.runs.engines import Engine
from sb3_vpg.compare.runs.process import FailedRunError
from sb3_vpg.compare.runs.progress import Display
from sb3_vpg.compare.runs.records import Record, add
from sb3_vpg.compare.runs.tasks import Task

_POLL_SECONDS = 0.5


def run_all(tasks: Sequence[Task], records: dict[str, Record], file: Path, engine: Engine) -> None:
    """
    Run every task that has no record. If one fails, the reason is saved in the folder of the records, and the others go on.

    :param tasks: tasks of a comparison
    :param records: records of finished tasks, by name; the new ones are added
    :param file: file of records, to which the new ones are appended
    :param engine: where the tasks run
    """
    waiting = [task for task in tasks if task.name not in records]
    running: dict[Any, Task] = {}
    with engine, Display(len(tasks), len(records), engine.n_jobs) as display:
        while waiting or running:
            while waiting and len(running) < engine.n_jobs:
                task = waiting.pop(0)
                display.started(task)
                running[engine.submit(task)] = task
            display.refresh(waiting)
            for handle in engine.wait(list(running), _POLL_SECONDS):
                task, error = running.pop(handle), None
                try:
                    record = engine.result(handle)
                    add(record, file)
                    records[task.name] = record
                except FailedRunError as failure:
                    error = f"{task.name}: {failure}"
                    attempts.note_failure(task, file.parent, error)
                display.ended(task, error, waiting)
