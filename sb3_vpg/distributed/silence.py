"""Only the first process prints, logs, evaluates and writes files."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CallbackList,
    CheckpointCallback,
    ConvertCallback,
    EvalCallback,
    EventCallback,
    ProgressBarCallback,
)
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.type_aliases import MaybeCallback

from sb3_vpg.common.world import World

_WRITERS = (EvalCallback, CheckpointCallback, ProgressBarCallback)


@contextmanager
def silenced(model: BaseAlgorithm) -> Iterator[None]:
    """Within this block the model logs nothing, prints nothing and warns of nothing; the first process does."""
    before = {name: getattr(model, name, None) for name in ("verbose", "_custom_logger", "_logger")}
    # A custom logger is not replaced by _setup_learn
    present: dict[str, Any] = {"verbose": 0, "_custom_logger": True, "_logger": Logger(folder=None, output_formats=[])}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            vars(model).update(present)
            yield
    finally:
        vars(model).update({name: value for name, value in before.items() if name != "_logger" or value is not None})


class _SharedProgressBar(ProgressBarCallback):
    """Counts the steps of all processes."""

    def __init__(self, n_processes: int) -> None:
        super().__init__()
        self.n_processes = n_processes

    def _on_step(self) -> bool:
        self.pbar.update(self.training_env.num_envs * self.n_processes)
        return True


def own_callbacks(callback: MaybeCallback, progress_bar: bool, world: World) -> list[BaseCallback]:
    """
    :param callback: of ``learn``
    :param progress_bar: of ``learn``
    :return: in the first process the same callbacks, with progress bars that count the steps of all; in the others without
        those of SB3 that evaluate, write files or show progress
    """
    given = callback if isinstance(callback, list) else [] if callback is None else [callback]
    parts = [part if isinstance(part, BaseCallback) else ConvertCallback(part) for part in given]
    if progress_bar:
        parts.append(ProgressBarCallback())
    return [part for part in (_own(part, world) for part in parts) if part is not None]


def _own(callback: Any, world: World) -> Any:
    """:return: the callback, or what takes its place; those inside it are replaced"""
    if not world.is_main_process and isinstance(callback, _WRITERS):
        return None
    if type(callback) is ProgressBarCallback:
        return _SharedProgressBar(world.size)
    if isinstance(callback, CallbackList):
        callback.callbacks = [part for part in (_own(one, world) for one in callback.callbacks) if part is not None]
    elif isinstance(callback, EventCallback) and callback.callback is not None:
        callback.callback = _own(callback.callback, world)
    return callback
