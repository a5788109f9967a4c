"""The callback by which an experiment manager knows that training has begun."""

from collections.abc import Callable

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback, ProgressBarCallback

from sb3_vpg.common.atomic_files import atomic_replace
from sb3_vpg.zoo.patching import replaced


class TrainingStarted(BaseCallback):
    """
    Tells the manager when training has begun: when the model is what it should be, and signals can be heeded. It also stands
    where the zoo looks for the progress bar, to close it after an interruption, whether it is one and was opened or not.

    :param tell: called with the model
    :param others: the manager's callbacks
    """

    def __init__(self, tell: Callable[[BaseAlgorithm], None], others: list[BaseCallback]) -> None:
        super().__init__()
        self.tell = tell
        self.others = others

    def _on_training_start(self) -> None:
        self.tell(self.model)

    def _on_step(self) -> bool:
        return True

    def _on_training_end(self) -> None:
        for callback in self.others:
            if isinstance(callback, ProgressBarCallback) and hasattr(callback, "pbar"):
                callback.on_training_end()


class WholeEvalCallback(EvalCallback):
    """Its parent, whose ``evaluations.npz`` is at no moment half a file."""

    def _on_step(self) -> bool:
        if self.log_path is None or self.eval_freq <= 0 or self.n_calls % self.eval_freq:
            return super()._on_step()
        with atomic_replace(f"{self.log_path}.npz") as part, replaced(self, "log_path", part):
            return super()._on_step()
