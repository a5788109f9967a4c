"""The course of a comparison: what is finished stays, what is missing runs, and what fails is told."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sb3_vpg.compare.engines import Engine
from sb3_vpg.compare.execution import FailedRunError, Record
from sb3_vpg.compare.progress import Display
from sb3_vpg.compare.records import RECORDS, add, finished
from sb3_vpg.compare.tasks import Task

_TICK = 0.5


@dataclass(frozen=True)
class Outcome:
    """
    :param records: of the finished runs, in the order of the tasks
    :param failures: what is to be said of the others, by the name of the task
    """

    records: list[Record]
    failures: dict[str, str]


def run_all(tasks: Sequence[Task], folder: Path, engine: Engine) -> Outcome:
    """
    Run what has no record yet.

    :param tasks: of a comparison
    :param folder: log folder
    :param engine: where they run
    :return: what came of all of them
    :raises ValueError: if the folder holds runs with other settings
    """
    file = folder / RECORDS
    records, failures = finished(tasks, file), {}
    waiting = [task for task in tasks if task.name not in records]
    running: dict[Any, Task] = {}
    with engine, Display(len(tasks), len(records), engine.n_jobs) as display:
        while waiting or running:
            while waiting and len(running) < engine.n_jobs:
                task = waiting.pop(0)
                display.started(task)
                running[engine.submit(task)] = task
            display.refresh(waiting)
            for handle in engine.wait(list(running), _TICK):
                task, error = running.pop(handle), None
                try:
                    record = engine.result(handle)
                    add(record, file)
                    records[task.name] = record
                except FailedRunError as failure:
                    error = failure
                    failures[task.name] = str(failure)
                display.ended(task, error, waiting)
    return Outcome([records[task.name] for task in tasks if task.name in records], failures)
