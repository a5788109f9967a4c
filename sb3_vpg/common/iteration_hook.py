"""What a callback may ask for: to be called between two iterations, where training can be taken up again."""

from typing import Protocol

from stable_baselines3.common.callbacks import BaseCallback


class BoundaryHook(Protocol):
    """What is told of the places between an update and the next rollout."""

    def begin(self, total_timesteps: int, callback: BaseCallback) -> None:
        """``learn`` is set up, and no callback has been told that training starts."""

    def pass_boundary(self) -> None:
        """An update is over, or nothing has happened yet, and a rollout is about to begin."""
