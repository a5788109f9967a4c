"""Hooks between two iterations, where training can be resumed."""

from typing import Protocol

from stable_baselines3.common.callbacks import BaseCallback


class IterationHook(Protocol):
    """The methods that ``learn`` calls between an update and the next rollout."""

    def on_learn_start(self, total_timesteps: int, callback: BaseCallback) -> None:
        """Called when ``learn`` is set up, before the ``on_training_start`` of any callback."""

    def on_iteration_start(self) -> None:
        """Called before each rollout."""
