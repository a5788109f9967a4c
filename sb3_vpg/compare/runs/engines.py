"""
Where tasks run: in processes of this machine, or (see ``ray_engine``) on the machines of a Ray cluster.

An engine starts what it is given at once, so whoever submits decides how many run side by side.
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
    What a comparison needs of an engine.

    ``n_jobs``: how many tasks may run side by side.
    """

    n_jobs: int

    def __enter__(self) -> "Engine":
        """Get ready."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Stop what still runs."""

    def submit(self, task: Task) -> Any:
        """:return: a handle of a task that has been started"""

    def wait(self, handles: Sequence[Any], seconds: float) -> list[Any]:
        """:return: those that have ended; none if that takes longer"""

    def result(self, handle: Any) -> Record:
        """
        :return: the record of a task that has ended; its run lies in the log folder
        :raises FailedRunError: if it failed
        """


class LocalEngine:
    """
    Processes of this machine, one thread each.

    :param folder: log folder
    :param n_jobs: how many run side by side
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
