"""The moments at which a run is killed: anywhere in its life, and aimed at what is most delicate."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from victims import Event, Victim

# What the kills of a run are aimed at: the first of these first, the end last, and the others in any order. Its files: those
# that an evaluation writes. While one is going on, there is the folder in which its log will be written
END = "the end"
AIMS = ("anywhere", "a checkpoint", "anywhere", "an evaluation", "anywhere", "the start", "anywhere", "its files")
POLL = 0.0002
# Seconds; most evaluations last longer, and so does the saving of the model
EVALUATION, ENDING = 0.1, 0.003


@dataclass(frozen=True)
class Size:
    """
    :param steps: of a run
    :param eval_freq: steps from one evaluation to the next
    :param checkpoint_freq: steps from one checkpoint to the next
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
        # One environment, so that an evaluation lasts long enough to be killed in
        fixed = ["--n-eval-envs", "1", "--log-interval", "1", "--num-threads", "1"]
        return [*fixed, *(word for name, number in numbers.items() for word in (name, str(number)))]


@dataclass(frozen=True)
class Aim:
    """
    :param what: one of ``AIMS``
    :param steps: wait until the process has told of so many; -1: no need
    :param seconds: and then so long; an evaluation, the end: since it began; the start: since the process was started
    """

    what: str
    steps: int
    seconds: float


def draw(events: Sequence[Event], number: int, early: bool, size: Size, rng: np.random.Generator) -> list[Aim]:
    """
    :param events: of the run in one piece
    :param early: one kill is to come before the first checkpoint
    :return: in the order of the moments, which are uniform over the training of the run in one piece
    """
    rollouts = [event for event in events if event.kind == "rollout"]
    start, end = rollouts[0].seconds, events[-1].seconds
    first = next(event.seconds for event in rollouts if event.steps >= size.checkpoint_freq)
    moments = np.sort(rng.uniform(start, end, number))
    whats = ["anywhere", *rng.permutation(AIMS[1 : number - 1]), END][:number]
    if early:
        moments[0] = rng.uniform(start, first)
    aims = []
    for moment, what in zip(moments, whats, strict=True):
        if what == "the start":
            aims.append(Aim("the start", -1, rng.uniform(0, start)))
            continue
        # There must be something to aim at after it
        moment = moment if what == "anywhere" else min(moment, start + 0.8 * (end - start))
        before = [event for event in rollouts if event.seconds <= moment][-1]
        longest = {"an evaluation": EVALUATION, END: ENDING}.get(what)
        seconds = moment - before.seconds if longest is None else rng.uniform(0, longest)
        aims.append(Aim(str(what), before.steps, seconds))
    return aims


def strike(victim: Victim, aim: Aim, find: Callable[[], Path | None]) -> bool:
    """
    Kill a process where it is aimed at.

    :param find: finds the folder of the run, once there is one
    :return: whether it was killed; False: it had ended before
    """
    if aim.what == "the start":
        time.sleep(max(0.0, aim.seconds - victim.seconds))
    elif victim.wait_until(lambda: victim.steps >= aim.steps):
        folder = find()
        assert folder is not None
        if aim.what == "a checkpoint":
            _await(victim, lambda: any(_parts(folder / "checkpoints")))
        elif aim.what == "its files":
            _await(victim, lambda: any(not part.is_dir() or any(part.iterdir()) for part in _parts(folder)))
        elif aim.what == "an evaluation":
            _await(victim, lambda: any(part.is_dir() for part in _parts(folder)))
        elif aim.what == END:
            victim.wait_until(lambda: victim.last("saving") is not None)
        if aim.what in ("anywhere", "an evaluation", END):
            time.sleep(aim.seconds)
    return victim.kill()


def _parts(folder: Path) -> Iterator[Path]:
    names = os.listdir(folder) if folder.is_dir() else []
    return (folder / name for name in names if name.endswith(".part"))


def _await(victim: Victim, condition: Callable[[], bool]) -> None:
    while not victim.ended:
        # What is there one moment may be gone the next
        with suppress(FileNotFoundError, NotADirectoryError):
            if condition():
                return
        time.sleep(POLL)
