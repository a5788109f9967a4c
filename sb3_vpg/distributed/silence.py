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
    EvalCallback,
    EventCallback,
    ProgressBarCallback,
)
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.type_aliases import MaybeCallback

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


def without_writers(callback: MaybeCallback) -> MaybeCallback:
    """
    :param callback: of ``learn``
    :return: the same callbacks without SB3's that evaluate, write files or show progress
    """
    if callback is None or isinstance(callback, list):
        return [part for part in map(_without_writers, callback or []) if part is not None]
    return (_without_writers(callback) or []) if isinstance(callback, BaseCallback) else callback


def _without_writers(callback: Any) -> Any:
    """:return: the callback, or None if it is one of these; those inside it are removed"""
    if isinstance(callback, _WRITERS):
        return None
    if isinstance(callback, CallbackList):
        callback.callbacks = [part for part in map(_without_writers, callback.callbacks) if part is not None]
    elif isinstance(callback, EventCallback) and callback.callback is not None:
        callback.callback = _without_writers(callback.callback)
    return callback
