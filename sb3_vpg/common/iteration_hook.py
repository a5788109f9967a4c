"""What a callback may ask for: to be called between two iterations, where training can be taken up again."""

from typing import Protocol

from stable_baselines3.common.callbacks import BaseCallback


class IterationHook(Protocol):
    """What is told of the places between an update and the next rollout."""

    def on_learn_start(self, total_timesteps: int, callback: BaseCallback) -> None:
        """``learn`` is set up, and no callback has been told that training starts."""

    def on_iteration_start(self) -> None:
        """An update is over, or nothing has happened yet, and a rollout is about to begin."""
