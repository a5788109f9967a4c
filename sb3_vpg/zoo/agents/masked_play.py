"""
Agents that need action masks play in the zoo's programs, whose calls of ``predict`` pass no masks: the model asks the
environment for them.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from rl_zoo3 import ALGOS
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from sb3_vpg.vec_env.action_masks import MaskReader, is_masking_supported


class MaskedPlayer:
    """
    A model that passes the present masks of an environment whenever it predicts. Its other attributes are the model's.

    :param model: whose ``predict`` takes ``action_masks``
    :param env: in which it plays
    """

    def __init__(self, model: Any, env: VecEnv) -> None:
        self._model, self._masks = model, MaskReader(env)

    def predict(self, observation: Any, *args: Any, **kwargs: Any) -> tuple[np.ndarray, Any]:
        """See ``MaskableVPG.predict``."""
        result: tuple[np.ndarray, Any] = self._model.predict(observation, *args, action_masks=self._masks.read(), **kwargs)
        return result

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


def takes_masks(algorithm: Any) -> bool:
    """Return whether ``predict`` of a model or of its class takes action masks."""
    return "action_masks" in inspect.signature(algorithm.predict).parameters


def with_masks(model: Any, env: VecEnv) -> Any:
    """Return a ``MaskedPlayer`` if the model takes masks and the environment has them; else the model."""
    return MaskedPlayer(model, env) if takes_masks(model) and is_masking_supported(env) else model


@contextmanager
def masks_of_created_env() -> Iterator[Callable[..., Any]]:
    """
    Inside the block, models that a program of the zoo loads read the masks of the environment that it has created last.

    :return: a function that wraps the one with which the program creates an environment
    """
    created: list[VecEnv] = []

    def noting(create: Callable[..., VecEnv]) -> Callable[..., VecEnv]:
        def create_and_note(*args: Any, **kwargs: Any) -> VecEnv:
            created.append(create(*args, **kwargs))
            return created[-1]

        return create_and_note

    before = dict(ALGOS)
    ALGOS.update({name: _loading_players(cls, created) for name, cls in before.items() if takes_masks(cls)})
    try:
        yield noting
    finally:
        ALGOS.update(before)


def _loading_players(cls: type[BaseAlgorithm], created: list[VecEnv]) -> type[BaseAlgorithm]:
    def load(_: Any, *args: Any, **kwargs: Any) -> Any:
        model = cls.load(*args, **kwargs)
        return with_masks(model, created[-1]) if created else model

    return type(cls.__name__, (cls,), {"load": classmethod(load)})
