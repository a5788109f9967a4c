"""
Agents that need action masks play in the zoo's programs, whose calls of ``predict`` pass no masks: the model asks the
environment for them.
"""

import inspect
from collections.abc import Callable
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


class MaskedPrograms:
    """Lets models that a program of the zoo loads read the masks of the environment that it has created last."""

    def __init__(self) -> None:
        self._env: VecEnv | None = None
        self.algorithms = {name: self._loading_players(cls) if takes_masks(cls) else cls for name, cls in ALGOS.items()}
        """The zoo's table for the program: its classes load such models."""

    def keeping_env(self, create: Callable[..., VecEnv]) -> Callable[..., VecEnv]:
        """Return the function with which the program is to create its environment. ``create``: the one that does."""

        def create_and_keep(*args: Any, **kwargs: Any) -> VecEnv:
            self._env = create(*args, **kwargs)
            return self._env

        return create_and_keep

    def _loading_players(self, cls: type[BaseAlgorithm]) -> type[BaseAlgorithm]:
        def load(_: Any, *args: Any, **kwargs: Any) -> Any:
            model = cls.load(*args, **kwargs)
            return model if self._env is None else with_masks(model, self._env)

        return type(cls.__name__, (cls,), {"load": classmethod(load)})
