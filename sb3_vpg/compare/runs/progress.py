"""What somebody who waits for a comparison wants to see: runs done, running and failed, and the time that is left."""

import time
from datetime import timedelta
from statistics import mean
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from sb3_vpg.compare.runs.tasks import Task


class Display:
    """
    A bar on a terminal; elsewhere a line for each run.

    :param n_tasks: of the whole comparison
    :param n_done: that an earlier call has finished
    :param n_jobs: how many run side by side
    """

    def __init__(self, n_tasks: int, n_done: int, n_jobs: int) -> None:
        self.console = Console()
        self._n_tasks, self._n_done, self._n_jobs = n_tasks, n_done, n_jobs
        self._running: dict[Task, float] = {}
        self._n_failed = 0
        self._seconds: dict[tuple[str, str], list[float]] = {}
        form = "{task.completed} of {task.total} runs · {task.fields[state]}"
        self._progress = Progress(BarColumn(), TextColumn(form), console=self.console, disable=not self.console.is_terminal)
        self._bar = self._progress.add_task("", total=n_tasks, completed=n_done, state="")

    def __enter__(self) -> "Display":
        self.console.print(f"{self._n_tasks} runs, {self._n_done} of them finished before; {self._n_jobs} at a time")
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.stop()

    def started(self, task: Task) -> None:
        """A run has begun."""
        self._running[task] = time.monotonic()

    def ended(self, task: Task, error: str | None, waiting: list[Task]) -> None:
        """
        :param task: that has ended
        :param error: why it failed; None if it did not
        :param waiting: those that have not begun
        """
        seconds = time.monotonic() - self._running.pop(task)
        if error is None:
            self._n_done += 1
            self._seconds.setdefault((task.algo, task.env_id), []).append(seconds)
        else:
            self._n_failed += 1
            self.console.print(f"failed: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        self.refresh(waiting)
        if not self.console.is_terminal:
            said = (
                f"{'failed' if error else 'done'}: {task.name} after {seconds:.0f} s; {self._n_done} of {self._n_tasks} runs, "
            )
            self.console.print(f"{said}{self.state(waiting)}", markup=False, highlight=False, soft_wrap=True)

    def refresh(self, waiting: list[Task]) -> None:
        """Draw anew."""
        self._progress.update(self._bar, completed=self._n_done, state=self.state(waiting))

    def state(self, waiting: list[Task]) -> str:
        """:return: how many run and have failed, and how long it takes"""
        counts = f"{len(self._running)} running, {self._n_failed} failed"
        if not waiting and not self._running:
            return counts
        left = self._seconds_left(waiting)
        if left is None:
            return f"{counts}, time left not known yet"
        # A run may take longer than others did
        return f"{counts}, {'less than a minute' if left < 60 else f'about {timedelta(seconds=round(left))}'} left"

    def _seconds_left(self, waiting: list[Task]) -> float | None:
        """:return: None before any run has ended; a kind of run that none has ended of takes as long as the others"""
        if not self._seconds:
            return None
        known = {kind: mean(seconds) for kind, seconds in self._seconds.items()}
        usual, now = mean(known.values()), time.monotonic()
        expected = [known.get((task.algo, task.env_id), usual) for task in waiting]
        rest = [max(known.get((task.algo, task.env_id), usual) - (now - begun), 0.0) for task, begun in self._running.items()]
        return max([sum(expected + rest) / self._n_jobs, *rest])
