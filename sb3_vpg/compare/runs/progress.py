"""Shows the progress of a comparison: finished, running and failed runs, and an estimate of the time left."""

import time
from datetime import timedelta
from statistics import mean
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from sb3_vpg.compare.runs.tasks import Task


class Display:
    """
    A progress bar on a terminal; elsewhere one line per run.

    :param n_tasks: number of tasks of the comparison
    :param n_done: number of tasks that an earlier call finished
    :param n_jobs: number of tasks that run in parallel
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
        """Note that a task has started."""
        self._running[task] = time.monotonic()

    def ended(self, task: Task, error: str | None, waiting: list[Task]) -> None:
        """
        Note that a task has ended.

        :param task: the task
        :param error: why it failed; None if it did not
        :param waiting: the tasks that have not started
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
            line = f"{'failed' if error else 'done'}: {task.name} after {seconds:.0f} s; "
            line += f"{self._n_done} of {self._n_tasks} runs, {self.state(waiting)}"
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def refresh(self, waiting: list[Task]) -> None:
        """Redraw the bar."""
        self._progress.update(self._bar, completed=self._n_done, state=self.state(waiting))

    def state(self, waiting: list[Task]) -> str:
        """:return: the numbers of running and failed tasks, and the estimated time left"""
        counts = f"{len(self._running)} running, {self._n_failed} failed"
        if not waiting and not self._running:
            return counts
        left = self._seconds_left(waiting)
        if left is None:
            return f"{counts}, time left not known yet"
        # It is 0 when the last run already takes longer than those before it
        return f"{counts}, {'less than a minute' if left < 60 else f'about {timedelta(seconds=round(left))}'} left"

    def _seconds_left(self, waiting: list[Task]) -> float | None:
        """:return: estimate from the mean duration of each kind of run, else of all kinds; None if no run has finished"""
        if not self._seconds:
            return None
        means = {kind: mean(seconds) for kind, seconds in self._seconds.items()}
        overall, now = mean(means.values()), time.monotonic()
        expected = [means.get((task.algo, task.env_id), overall) for task in waiting]
        rest = [max(means.get((task.algo, task.env_id), overall) - now + start, 0.0) for task, start in self._running.items()]
        return max([sum(expected + rest) / self._n_jobs, *rest])
