"""Hooks between two iterations, where training can be resumed."""

from typing import Protocol

from stable_baselines3.common.callbacks import BaseCallback


class IterationHook(Protocol):
    """The methods that ``learn`` calls between an update and the next rollout."""

    def on_learn_start(self, total_timesteps: int, callback: BaseCallback) -> None:
        """Called when ``learn`` is set up, before the ``on_training_start`` of any callback."""

    def on_iteration_start(self) -> None:
        """Called before each rollout."""


class HookedLearning:
    """An algorithm whose ``learn`` calls hooks between an update and the next rollout, and can be asked to stop there."""

    _hooks: list[IterationHook] = []  # noqa: RUF012  # never changed: learn() assigns a new list
    _stop_requested = False
    between_iterations = False
    """Whether ``learn`` is between an update and the next rollout, the only place where training can be resumed."""

    def add_hook(self, hook: IterationHook) -> None:
        """Call the hook's methods during this ``learn``. A callback registers itself in its ``_init_callback``."""
        self._hooks.append(hook)

    def request_stop(self) -> None:
        """Let ``learn`` return before the next rollout. May be called from a signal handler."""
        self._stop_requested = True
