"""When a run is killed: at random times, and while it does what a kill is most likely to damage."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.killed_process import Event, TrainingProcess

# What the kills of a run aim at: the first at the first target, the last at END, the others at the rest in random order.
# "its files" are those that an evaluation writes
END = "the end"
TARGETS = ("anywhere", "a checkpoint", "anywhere", "an evaluation", "anywhere", "the start", "anywhere", "its files")
# Seconds between two looks at the files of a run
POLL = 0.0002
# The latest kill, in seconds after an evaluation or the end has begun; most evaluations, and saving the model, take longer
EVALUATION, ENDING = 0.1, 0.003


@dataclass(frozen=True)
class RunSize:
    """
    :param steps: of the run
    :param eval_freq: steps between evaluations
    :param checkpoint_freq: steps between checkpoints
    :param episodes: of an evaluation
    """

    steps: int = 50_000
    eval_freq: int = 4_000
    checkpoint_freq: int = 2_500
    episodes: int = 8

    @property
    def flags(self) -> list[str]:
        numbers = {
            "-n": self.steps,
            "--eval-freq": self.eval_freq,
            "--checkpoint-freq": self.checkpoint_freq,
            "--eval-episodes": self.episodes,
        }
        # With one environment, an evaluation takes long enough to be killed
        fixed = ["--n-eval-envs", "1", "--log-interval", "1", "--num-threads", "1"]
        return [*fixed, *(word for name, number in numbers.items() for word in (name, str(number)))]


@dataclass(frozen=True)
class KillTime:
    """
    :param target: one of ``TARGETS``, or ``END``
    :param steps: wait until the process has printed this number of steps; -1: do not wait
    :param seconds: then wait this long; for an evaluation and the end, from their beginning; for the start, from the start of
        the process
    """

    target: str
    steps: int
    seconds: float


def draw_kill_times(
    events: Sequence[Event], number: int, early: bool, size: RunSize, rng: np.random.Generator
) -> list[KillTime]:
    """
    :param events: of the same run without kills
    :param number: of kills
    :param early: True if one kill is to come before the first checkpoint
    :return: kill times, in order; they are uniform over the training time of the run without kills
    """
    rollouts = [event for event in events if event.kind == "rollout"]
    start, end = rollouts[0].seconds, events[-1].seconds
    first_checkpoint = next(event.seconds for event in rollouts if event.steps >= size.checkpoint_freq)
    times = np.sort(rng.uniform(start, end, number))
    targets = ["anywhere", *rng.permutation(TARGETS[1 : number - 1]), END][:number]
    if early:
        times[0] = rng.uniform(start, first_checkpoint)
    kill_times = []
    for seconds, target in zip(times, targets, strict=True):
        if target == "the start":
            kill_times.append(KillTime("the start", -1, rng.uniform(0, start)))
            continue
        # Leave time for the target to occur
        seconds = seconds if target == "anywhere" else min(seconds, start + 0.8 * (end - start))
        before = [event for event in rollouts if event.seconds <= seconds][-1]
        longest = {"an evaluation": EVALUATION, END: ENDING}.get(target)
        wait = seconds - before.seconds if longest is None else rng.uniform(0, longest)
        kill_times.append(KillTime(str(target), before.steps, wait))
    return kill_times


def kill_at(process: TrainingProcess, kill_time: KillTime, find_run: Callable[[], Path | None]) -> bool:
    """
    Wait for the kill time, then kill the process.

    :param find_run: returns the folder of the run, or None if there is none yet
    :return: True if the process was killed, False if it had ended before
    """
    target = kill_time.target
    if target == "the start":
        time.sleep(max(0.0, kill_time.seconds - process.seconds))
    elif process.wait_until(lambda: process.steps >= kill_time.steps):
        folder = find_run()
        assert folder is not None
        if target == "a checkpoint":
            _await(process, lambda: any(_parts(folder / "checkpoints")))
        elif target == "its files":
            _await(process, lambda: any(not part.is_dir() or any(part.iterdir()) for part in _parts(folder)))
        elif target == "an evaluation":
            # The folder for its log exists when it begins
            _await(process, lambda: any(part.is_dir() for part in _parts(folder)))
        elif target == END:
            process.wait_until(lambda: process.last("saving") is not None)
        if target in ("anywhere", "an evaluation", END):
            time.sleep(kill_time.seconds)
    return process.kill()


def _parts(folder: Path) -> Iterator[Path]:
    """:return: the files and folders that are not complete yet"""
    names = os.listdir(folder) if folder.is_dir() else []
    return (folder / name for name in names if name.endswith(".part"))


def _await(process: TrainingProcess, condition: Callable[[], bool]) -> None:
    """Wait until the condition of the run's files holds, or the process ends."""
    while not process.ended:
        # Files may disappear between two calls
        with suppress(FileNotFoundError, NotADirectoryError):
            if condition():
                return
        time.sleep(POLL)
