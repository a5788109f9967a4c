"""
Errors of environments, and worker processes that die: the error names the environment, and no worker process is left.

This costs nothing while no error occurs, because the environment is found in the traceback of the error.
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
from sb3_vpg.vec_env.dummy_step import stepped_env
from sb3_vpg.vec_env.gym_vec_env import GymVecEnv

_CALLS = ("reset", "step", "step_async", "step_wait", "_ask_for_masks")
_TIMEOUT = 2.0
"""Seconds to wait for a process to end."""


@contextmanager
def naming_failed_env(env: VecEnv, model: BaseAlgorithm) -> Iterator[None]:
    """
    Around code that steps or resets an environment: turn an error that was raised in ``env.step`` or ``env.reset`` into one
    that names the environment. If it has worker processes (``SubprocVecEnv``, ``AsyncVectorEnv``), they are terminated and
    the environment is closed. All other errors, such as those of callbacks, pass unchanged.

    :param env: the environment that the model learns from, with all its wrappers
    :param model: whose number of timesteps the error names
    :raises EnvironmentFailedError: instead of the environment's error, which is its cause
    """
    base = env
    while isinstance(base, VecEnvWrapper):
        base = base.venv
    died: list[int] = []
    try:
        with _watched_workers(base, died):
            yield
    except Exception as error:
        frames = _frames_of(env, error)
        # Its user expects the ValueError of VecCheckNan
        is_check = frames and isinstance(error, ValueError) and isinstance(_owner(frames[-1]), VecCheckNan)
        if not frames or is_check or isinstance(error, VecEnvContractError):
            raise
        raise _failure(base, error, frames, died, model.num_timesteps) from error
    if died:
        # The worker had answered its last request, so no call raised an error
        raise _failure(base, EOFError(), [], died, model.num_timesteps)


def _frames_of(env: VecEnv, error: Exception) -> list[FrameType]:
    """:return: from the call of ``env``'s step or reset to where the error was raised; empty if it was raised elsewhere"""
    frames = [frame for frame, _ in walk_tb(error.__traceback__)]
    for position, frame in enumerate(frames):
        if frame.f_code.co_name in _CALLS and _owner(frame) is env:
            return frames[position:]
    return []


def _owner(frame: FrameType) -> Any:
    """:return: the first argument of the frame's function: of a method, the object whose method it is"""
    code = frame.f_code
    return frame.f_locals.get(code.co_varnames[0]) if code.co_argcount else None


def _layers(env: Any) -> Iterator[Any]:
    """Yield an environment and the ones that it wraps; a method of theirs may be called directly."""
    while env is not None:
        yield env
        env = getattr(env, "env", None)


def _place(base: VecEnv, frames: Sequence[FrameType]) -> tuple[int | None, str]:
    """:return: index of the environment that failed, or None if it is not known; and the call in which it failed"""
    inner = base.env.unwrapped if isinstance(base, GymVecEnv) else base
    envs = inner.envs if isinstance(inner, (DummyVecEnv, SyncVectorEnv)) else []
    call = {"reset": "reset", "_ask_for_masks": "action_masks"}.get(frames[0].f_code.co_name if frames else "", "step")
    for frame in frames:
        for index, env in enumerate(envs):
            if any(layer is _owner(frame) for layer in _layers(env)):
                is_autoreset = call == "step" and frame.f_code.co_name == "reset"
                return index, "the reset after an episode's end" if is_autoreset else call
    # No method of an environment was running: our step could not use what the environment returned
    stepped = [index for frame in frames for index, env in enumerate(envs) if env is stepped_env(frame)]
    return (stepped[0] if stepped else None), call


def _failure(
    base: VecEnv, error: Exception, frames: Sequence[FrameType], died: Sequence[int], num_timesteps: int
) -> EnvironmentFailedError:
    """Terminate the workers and close the environment, if it has workers. :return: the error to raise"""
    index, call = _place(base, frames)
    workers, is_lost = _workers(base), isinstance(error, (EOFError, ConnectionError))
    dead = list(died)
    if workers and not dead and (is_lost or isinstance(base, GymVecEnv)):
        dead = _wait_for_ended(workers)
    what = f"{type(error).__name__}: {error}"
    if is_lost and dead:
        what = "; ".join(_how_it_ended(workers[worker], worker) for worker in dead)
    advice = "Its state is unknown now: reset it before it is stepped again, as learn() does"
    if workers:
        _terminate(workers)
        _close(base)
        advice = "All worker processes are ended and the VecEnv is closed: give the model another one with set_env()"
    failed = _described(base, dead if index is None else [index])
    return EnvironmentFailedError(f"{failed} failed in {call}, after {num_timesteps:,} timesteps: {what}. {advice}")


def _described(base: VecEnv, indices: Sequence[int]) -> str:
    if indices:
        return f"environment{'s' * (len(indices) > 1)} {', '.join(map(str, indices))}"
    if isinstance(base, GymVecEnv) and not _workers(base):
        return f"{type(base.env.unwrapped).__name__} (it is not known which of its {base.num_envs} environments)"
    return f"an environment of {type(base).__name__}"


def _workers(base: VecEnv) -> Sequence[BaseProcess]:
    if isinstance(base, SubprocVecEnv):
        return base.processes
    inner = base.env.unwrapped if isinstance(base, GymVecEnv) else None
    return inner.processes if isinstance(inner, AsyncVectorEnv) else []


def _wait_for_ended(workers: Sequence[BaseProcess]) -> list[int]:
    """Wait until one of them has ended. :return: the indices of those that have"""
    ready = wait([worker.sentinel for worker in workers], _TIMEOUT)
    return [index for index, worker in enumerate(workers) if worker.sentinel in ready]


def _how_it_ended(worker: BaseProcess, index: int) -> str:
    worker.join(_TIMEOUT)
    code = worker.exitcode
    how = f"ended with exit code {code}, and its own traceback is printed above"
    if code is not None and code < 0:
        how = f"was killed by signal {-code} ({signal.strsignal(-code)})"
    return f"the process of environment {index} {how}"


def _terminate(workers: Sequence[BaseProcess]) -> None:
    """Terminate the workers without waiting for them to finish."""
    for worker in workers:
        if worker.is_alive():
            worker.terminate()
    deadline = time.monotonic() + _TIMEOUT
    for worker in workers:
        worker.join(max(0.0, deadline - time.monotonic()))
        if worker.is_alive():
            worker.kill()
            worker.join()


def _close(base: VecEnv) -> None:
    """Do what the environment's ``close`` does, without its messages to the workers, which have ended."""
    if isinstance(base, SubprocVecEnv):
        for remote in base.remotes:
            remote.close()
        base.waiting, base.closed = False, True
    elif isinstance(base, GymVecEnv):
        inner = base.env.unwrapped
        inner._state = AsyncState.DEFAULT  # type: ignore[attr-defined]  # an AsyncVectorEnv
        inner.close(terminate=True)


@contextmanager
def _watched_workers(base: VecEnv, died: list[int]) -> Iterator[None]:
    """
    Terminate all workers of a ``SubprocVecEnv`` as soon as one of them dies. Forked workers keep each other's pipes open, so
    that the environment would wait for ever for the answer of a dead one. A thread sleeps until a worker dies.

    :param base: for other environments and start methods than ``fork`` this does nothing
    :param died: is filled with the indices of the workers that died by themselves
    """
    workers = _workers(base) if isinstance(base, SubprocVecEnv) and not base.closed else []
    if not any(getattr(worker, "_start_method", "") == "fork" for worker in workers):
        yield
        return
    stop, stopper = Pipe(duplex=False)

    def watch() -> None:
        ready = wait([stop, *(worker.sentinel for worker in workers)])
        died.extend(index for index, worker in enumerate(workers) if worker.sentinel in ready)
        if died:
            _terminate(workers)

    thread = Thread(target=watch, name="watches workers", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopper.send(None)
        thread.join()
        stop.close()
        stopper.close()
        if died:
            _close(base)
