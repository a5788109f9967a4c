"""
Runs tasks on a Ray cluster. Its machines need no common file system: the files of a run come back as an archive.

Ray is an extra: ``pip install sb3-vpg[ray]``.
"""

import io
import shutil
import socket
import tarfile
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

from sb3_vpg.compare.runs.attempts import log_file
from sb3_vpg.compare.runs.process import FailedRunError, execute
from sb3_vpg.compare.runs.records import Record
from sb3_vpg.compare.runs.tasks import Task

_MAX_RETRIES = 3
_FOLDER = "{folder}"
"""Stands for the log folder in the message of a failed run, because a worker has its own folder."""


class RayEngine:
    """
    Runs each task as a Ray task with one core.

    :param folder: log folder on this machine
    :param n_jobs: number of tasks that may run in parallel; None: one per core of the cluster
    :param address: address of an existing cluster, for ``ray.init``; None: start a cluster on this machine
    :raises ValueError: if Ray is not installed
    """

    n_jobs: int

    def __init__(self, folder: Path, n_jobs: int | None, address: str | None) -> None:
        if find_spec("ray") is None:
            raise ValueError("engine 'ray' needs Ray, which is not installed: pip install 'sb3-vpg[ray]'")
        self.folder, self.address, self._n_jobs_given = folder, address, n_jobs
        self.n_jobs = n_jobs or 1

    def __enter__(self) -> "RayEngine":
        import ray

        _check_listens(self.address)
        # No dashboard for a cluster that starts here: its port may be in use
        options: dict[str, Any] = {"include_dashboard": False} if self.address is None else {}
        ray.init(self.address or "local", log_to_driver=False, **options)
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]  # Ray leaves it untyped
        self.n_jobs = self._n_jobs_given or max(int(resources.get("CPU", 1)), 1)
        # If a worker dies, Ray runs its task on another one
        self._run = ray.remote(num_cpus=1, max_retries=_MAX_RETRIES)(run_remote)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        import ray

        ray.shutdown()

    def submit(self, task: Task) -> Any:
        """See ``Engine``."""
        # The archive must not be unpacked over the files of an attempt that was stopped
        shutil.rmtree(task.run_folder(self.folder), ignore_errors=True)
        return self._run.remote(task)

    def wait(self, handles: Sequence[Any], seconds: float) -> list[Any]:
        """See ``Engine``."""
        import ray

        return list(ray.wait(list(handles), timeout=seconds, num_returns=1)[0])

    def result(self, handle: Any) -> Record:
        """See ``Engine``."""
        import ray

        try:
            record, failure, archive = ray.get(handle)
        except ray.exceptions.RayError as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise FailedRunError(f"Ray gave up after {_MAX_RETRIES} retries: {lines[0]}") from error
        with tarfile.open(fileobj=io.BytesIO(archive)) as files:
            files.extractall(self.folder, filter="data")
        if failure is not None:
            raise FailedRunError(failure.replace(_FOLDER, str(self.folder)))
        assert isinstance(record, Record)
        return record


def _check_listens(address: str | None) -> None:
    """Raise ValueError if nothing listens at a host and port. Ray would wait for minutes."""
    host, _, port = (address or "").rpartition(":")
    if not host or "/" in host or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise ValueError(f"there is no Ray cluster at {address} ({error}); start one with: ray start --head") from error


def run_remote(task: Task) -> tuple[Record | None, str | None, bytes]:
    """
    Run a task on a worker of the cluster.

    :return: the record, or None; why the run failed, or None; a tar archive with the run's folder and output
    """
    with tempfile.TemporaryDirectory(prefix="sb3-vpg-ray-") as temporary:
        folder = Path(temporary)
        record, failure = None, None
        try:
            record = execute(task, folder)
        except FailedRunError as error:
            failure = str(error).replace(temporary, _FOLDER)
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w:gz") as archive:
            for path in (task.run_folder(folder), log_file(task, folder)):
                if path.exists():
                    archive.add(path, path.relative_to(folder))
        return record, failure, file.getvalue()
