"""
Engines run tasks: in processes on this machine, or (see ``ray_engine``) on a Ray cluster.

An engine starts each submitted task at once. The scheduler decides how many run in parallel.
"""

from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from sb3_vpg.compare.runs.process import Processes, execute
from sb3_vpg.compare.runs.records import Record
from sb3_vpg.compare.runs.tasks import Task


class Engine(Protocol):
    """
    Interface of an engine.

    ``n_jobs``: number of tasks that may run in parallel.
    """

    n_jobs: int

    def __enter__(self) -> "Engine":
        """Start the engine."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Stop all running tasks."""

    def submit(self, task: Task) -> Any:
        """Start a task and return a handle of it."""

    def wait(self, handles: Sequence[Any], seconds: float) -> list[Any]:
        """Wait until a task ends, or for some seconds, and return the handles of the tasks that have ended."""

    def result(self, handle: Any) -> Record:
        """
        Return the record of a task that has ended. Its files are then in the log folder.

        :raises FailedRunError: if the task failed
        """


class LocalEngine:
    """
    Runs each task in a process on this machine.

    :param folder: log folder
    :param n_jobs: number of tasks that may run in parallel
    """

    def __init__(self, folder: Path, n_jobs: int) -> None:
        self.folder, self.n_jobs = folder, n_jobs
        self._threads = ThreadPoolExecutor(n_jobs)
        self._processes = Processes()

    def __enter__(self) -> "LocalEngine":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._processes.stop()
        self._threads.shutdown(cancel_futures=True)

    def submit(self, task: Task) -> "Future[Record]":
        """See ``Engine``."""
        return self._threads.submit(execute, task, self.folder, self._processes)

    def wait(self, handles: "Sequence[Future[Record]]", seconds: float) -> "list[Future[Record]]":
        """See ``Engine``."""
        return list(wait(handles, seconds, FIRST_COMPLETED).done)

    def result(self, handle: "Future[Record]") -> Record:
        """See ``Engine``."""
        return handle.result()
