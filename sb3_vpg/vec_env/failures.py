"""
Environments that raise errors, and processes of environments that die: the error says which one it was, and no worker is
left behind.

The loop that steps them pays nothing for it: the traceback of an error tells where it came from.
"""

import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import Pipe
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from threading import Thread
from traceback import walk_tb
from types import FrameType
from typing import Any

from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv
from gymnasium.vector.async_vector_env import AsyncState
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecCheckNan, VecEnv, VecEnvWrapper

from sb3_vpg.exceptions import EnvironmentFailedError, VecEnvContractError
from sb3_vpg.vec_env import dummy_step as stepping
from sb3_vpg.vec_env.gym_vec_env import GymVecEnv

_CALLS = ("reset", "step", "step_async", "step_wait")
_PATIENCE = 2.0
"""Seconds that a process has to end."""


@contextmanager
def naming_failed_env(env: VecEnv, model: BaseAlgorithm) -> Iterator[None]:
    """
    For code that steps or resets an environment. An error that comes out of ``env.step`` or ``env.reset`` names the
    environment; the workers of a ``SubprocVecEnv`` or an ``AsyncVectorEnv`` are gone then, and it is closed. All other
    errors, such as those of callbacks, pass unchanged.

    :param env: the one that is learned from, with all its wrappers
    :param model: whose timesteps are told
    :raises EnvironmentFailedError: in the place of the environment's error, which is its cause
    """
    base = env
    while isinstance(base, VecEnvWrapper):
        base = base.venv
    fallen: list[int] = []
    try:
        with _unblocked(base, fallen):
            yield
    except Exception as error:
        frames = _frames_of(env, error)
        if not frames or isinstance(error, VecEnvContractError) or _is_of_check(frames[-1], error):
            raise
        raise _failure(base, error, frames, fallen, model.num_timesteps) from error
    if fallen:
        # After its last answer
        raise _failure(base, EOFError(), [], fallen, model.num_timesteps)


def _frames_of(env: VecEnv, error: Exception) -> list[FrameType]:
    """:return: from the call of ``env``'s step or reset to where the error was raised; empty if it came from elsewhere"""
    frames = [frame for frame, _ in walk_tb(error.__traceback__)]
    for position, frame in enumerate(frames):
        is_quick = frame.f_globals is vars(stepping) and frame.f_locals.get("env") is env
        if is_quick or (frame.f_code.co_name in _CALLS and frame.f_locals.get("self") is env):
            return frames[position:]
    return []


def _owner(frame: FrameType) -> Any:
    """:return: whose method it is"""
    return frame.f_locals.get("self")


def _is_of_check(frame: FrameType, error: Exception) -> bool:
    """:return: whether the user has asked for this error, with a ``VecCheckNan``"""
    return isinstance(error, ValueError) and isinstance(_owner(frame), VecCheckNan)


def _place(base: VecEnv, frames: Sequence[FrameType]) -> tuple[int | None, str]:
    """:return: index of the environment that was called, if that was in this process, and what was called"""
    inner = base.env.unwrapped if isinstance(base, GymVecEnv) else base
    envs = inner.envs if isinstance(inner, (DummyVecEnv, SyncVectorEnv)) else []
    whole = "reset" if frames and frames[0].f_code.co_name == "reset" else "step"
    for frame in frames:
        for index, env in enumerate(envs):
            if env is _owner(frame):
                resets = whole == "step" and frame.f_code.co_name == "reset"
                return index, "the reset after an episode's end" if resets else whole
    # No method of an environment was at work: in our own loop, its answer is what failed
    answered = [index for frame in frames for index, env in enumerate(envs) if env is stepping.called_in(frame)]
    return (answered[0] if answered else None), whole


def _failure(
    base: VecEnv, error: Exception, frames: Sequence[FrameType], fallen: Sequence[int], n_steps: int
) -> EnvironmentFailedError:
    """:return: the error to raise, after the workers have been ended"""
    index, call = _place(base, frames)
    workers, lost = _workers(base), isinstance(error, (EOFError, ConnectionError))
    dead = list(fallen)
    if workers and not dead and (lost or isinstance(base, GymVecEnv)):
        dead = _ended(workers)
    what = "; ".join(_end_of(workers[one], one) for one in dead) if lost and dead else f"{type(error).__name__}: {error}"
    advice = "Its state is unknown now: reset it before it is stepped again, as learn() does"
    if workers:
        _end(workers)
        _close(base)
        advice = "All worker processes are ended and the VecEnv is closed: give the model another one with set_env()"
    who = _who(base, dead if index is None else [index])
    return EnvironmentFailedError(f"{who} failed in {call}, after {n_steps:,} timesteps: {what}. {advice}")


def _who(base: VecEnv, indices: Sequence[int]) -> str:
    if indices:
        return f"environment{'s' * (len(indices) > 1)} {', '.join(map(str, indices))}"
    if isinstance(base, GymVecEnv) and not _workers(base):
        return f"{type(base.env.unwrapped).__name__} (which does not tell which of its {base.num_envs} environments)"
    return f"an environment of {type(base).__name__}"


def _workers(base: VecEnv) -> Sequence[BaseProcess]:
    if isinstance(base, SubprocVecEnv):
        return base.processes
    inner = base.env.unwrapped if isinstance(base, GymVecEnv) else None
    return inner.processes if isinstance(inner, AsyncVectorEnv) else []


def _ended(workers: Sequence[BaseProcess]) -> list[int]:
    """:return: which of them have ended, after waiting for the first"""
    ready = wait([worker.sentinel for worker in workers], _PATIENCE)
    return [index for index, worker in enumerate(workers) if worker.sentinel in ready]


def _end_of(worker: BaseProcess, index: int) -> str:
    worker.join(_PATIENCE)
    code = worker.exitcode
    how = f"ended with exit code {code}, and its own traceback is printed above"
    if code is not None and code < 0:
        how = f"was killed by signal {-code} ({signal.strsignal(-code)})"
    return f"the process of environment {index} {how}"


def _end(workers: Sequence[BaseProcess]) -> None:
    """Whatever they are at."""
    for worker in workers:
        if worker.is_alive():
            worker.terminate()
    deadline = time.monotonic() + _PATIENCE
    for worker in workers:
        worker.join(max(0.0, deadline - time.monotonic()))
        if worker.is_alive():
            worker.kill()
            worker.join()


def _close(base: VecEnv) -> None:
    """What their own ``close`` would do, but for the farewell to workers that no longer listen."""
    if isinstance(base, SubprocVecEnv):
        for remote in base.remotes:
            remote.close()
        base.waiting, base.closed = False, True
    elif isinstance(base, GymVecEnv):
        inner = base.env.unwrapped
        inner._state = AsyncState.DEFAULT  # type: ignore[attr-defined]  # an AsyncVectorEnv
        inner.close(terminate=True)


@contextmanager
def _unblocked(base: VecEnv, fallen: list[int]) -> Iterator[None]:
    """
    Workers that ``SubprocVecEnv`` has forked hold the ends of each other's pipes open, so that it would wait for ever for the
    answer of a dead one. A thread that sleeps until one dies ends them all.

    :param base: any
    :param fallen: is filled with the indices of those that died by themselves
    """
    workers = _workers(base) if isinstance(base, SubprocVecEnv) and not base.closed else []
    if not any(getattr(worker, "_start_method", "") == "fork" for worker in workers):
        yield
        return
    stop, stopper = Pipe(duplex=False)

    def watch() -> None:
        ready = wait([stop, *(worker.sentinel for worker in workers)])
        fallen.extend(index for index, worker in enumerate(workers) if worker.sentinel in ready)
        if fallen:
            _end(workers)

    thread = Thread(target=watch, name="watches workers", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopper.send(None)
        thread.join()
        stop.close()
        stopper.close()
        if fallen:
            _close(base)
