"""Environments in processes of their own, which leave Ctrl-C to the process that trains."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import gymnasium as gym
from stable_baselines3.common.vec_env import SubprocVecEnv


class QuietSubprocVecEnv(SubprocVecEnv):
    """Its parent, whose workers would end at a Ctrl-C in the middle of a rollout. Parameters: see ``SubprocVecEnv``."""

    def __init__(self, env_fns: list[Callable[[], gym.Env]], start_method: str | None = None) -> None:
        with held_back_from_workers():
            super().__init__(env_fns, start_method)


@contextmanager
def held_back_from_workers() -> Iterator[None]:
    """
    Processes that are started inside never see a Ctrl-C. A terminal sends it to all of them, and a worker that dies of it
    takes the rollout with it. It is blocked and not ignored, so that one which comes meanwhile waits for us; and that is
    handed down through the fork server, which is started once and starts all others.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    from multiprocessing import resource_tracker

    # The first start of a process starts this one, which in older Pythons ends with the signal unblocked
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
