"""Worker processes that ignore Ctrl-C, so that only the training process handles it."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import gymnasium as gym
from stable_baselines3.common.vec_env import SubprocVecEnv


class QuietSubprocVecEnv(SubprocVecEnv):
    """Differs from its parent in that Ctrl-C does not end the workers during a rollout. Parameters: see ``SubprocVecEnv``."""

    def __init__(self, env_fns: list[Callable[[], gym.Env]], start_method: str | None = None) -> None:
        with sigint_blocked_in_workers():
            super().__init__(env_fns, start_method)


@contextmanager
def sigint_blocked_in_workers() -> Iterator[None]:
    """
    Processes that are started inside the block never receive SIGINT. A terminal sends a Ctrl-C to all processes, and the death
    of a worker would end the rollout. The signal is blocked, not ignored: this process receives it after the block. Workers
    inherit this even if the fork server starts them.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    from multiprocessing import resource_tracker

    # Otherwise the first worker starts the tracker, which unblocks the signal in older versions of Python
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
