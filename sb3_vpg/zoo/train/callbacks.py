"""The callbacks that the experiment manager adds: one marks the start of training, one evaluates."""

from collections.abc import Callable

from rl_zoo3.callbacks import TrialEvalCallback
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback, ProgressBarCallback

from sb3_vpg.common.atomic_files import atomic_replace
from sb3_vpg.zoo.agents.masked_play import with_masks
from sb3_vpg.zoo.patching import replaced


class TrainingStarted(BaseCallback):
    """
    Calls a function when training starts: from then on there is a model to save, and a rollout to finish.

    The zoo closes ``callbacks[0]`` after an interruption, assuming that it is the progress bar. This callback takes that
    place, and closes a real progress bar if it was opened. Older checkpoints hold it as ``First``: as it has no state, they
    are resumed without a warning.

    :param on_start: called with the model
    :param callbacks: all callbacks of the manager
    """

    def __init__(self, on_start: Callable[[BaseAlgorithm], None], callbacks: list[BaseCallback]) -> None:
        super().__init__()
        self.on_start = on_start
        self.callbacks = callbacks

    def _on_training_start(self) -> None:
        self.on_start(self.model)

    def _on_step(self) -> bool:
        return True

    def _on_training_end(self) -> None:
        for callback in self.callbacks:
            if isinstance(callback, ProgressBarCallback) and hasattr(callback, "pbar"):
                callback.on_training_end()


class _MaskedEvalCallback(EvalCallback):
    """Passes the masks of the environment to a model that takes them."""

    def _on_step(self) -> bool:
        if self.eval_freq <= 0 or self.n_calls % self.eval_freq:
            return super()._on_step()
        with replaced(self, "model", with_masks(self.model, self.eval_env)):
            return super()._on_step()


class MaskedTrialEvalCallback(_MaskedEvalCallback, TrialEvalCallback):
    """The zoo's callback for the trials of a search, with masks."""


class WholeEvalCallback(_MaskedEvalCallback):
    """
    The zoo's callback with masks; it writes ``evaluations.npz`` atomically. Checkpoints hold the name of this class: do not
    change it.
    """

    def _on_step(self) -> bool:
        if self.log_path is None or self.eval_freq <= 0 or self.n_calls % self.eval_freq:
            return super()._on_step()
        with atomic_replace(f"{self.log_path}.npz") as part, replaced(self, "log_path", part):
            return super()._on_step()
