"""The course of a comparison: what is finished stays, what is missing runs, and what fails is told."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sb3_vpg.compare.runs import attempts
from sb3_vpg.compare.runs.engines import Engine
from sb3_vpg.compare.runs.process import FailedRunError
from sb3_vpg.compare.runs.progress import Display
from sb3_vpg.compare.runs.records import Record, add
from sb3_vpg.compare.runs.tasks import Task

_TICK = 0.5


def run_all(tasks: Sequence[Task], records: dict[str, Record], file: Path, engine: Engine) -> None:
    """
    Run what has no record yet.

    :param tasks: of a comparison
    :param records: of the finished ones, by name; what finishes now is added
    :param file: of records, to which it is added as well
    :param engine: where they run; of one that fails, the file's folder keeps what is to be said of it
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
            for handle in engine.wait(list(running), _TICK):
                task, failed = running.pop(handle), None
                try:
                    record = engine.result(handle)
                    add(record, file)
                    records[task.name] = record
                except FailedRunError as failure:
                    failed = f"{task.name}: {failure}"
                    attempts.note_failure(task, file.parent, failed)
                display.ended(task, failed, waiting)
