"""
Checkpoints from which training resumes exactly, as if it had not been interrupted.

A checkpoint is a model file of ``VPG.save``, which ``VPG.load`` reads, with one more member: all other state of training, as
plain JSON. It is written between an update and the next rollout, when the rollout buffer is empty. SB3's saved models lack the
random streams, the environments, the progress of schedules and the counters of callbacks (SB3 issues #29, #326, #1526).
"""

import json
import warnings
from pathlib import Path
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback

from sb3_vpg.checkpoints.callback_state import callback_state, callbacks_in
from sb3_vpg.checkpoints.files import Checkpoint, checkpoints_in, latest, steps_of
from sb3_vpg.checkpoints.shared_env_state import ANOTHER_RUN_ADVICE, check_launch
from sb3_vpg.checkpoints.training_state import (
    best_models,
    check_settings,
    restore_training,
    training_state,
    versions,
)
from sb3_vpg.common.arguments import flag, whole_number
from sb3_vpg.common.atomic_files import atomic_write, remove_partial_files
from sb3_vpg.exceptions import NotPlainError, RefusedFileError
from sb3_vpg.on_policy_algorithm import LeanOnPolicyAlgorithm
from sb3_vpg.persistence.archives import TRAINING, best_member
from sb3_vpg.persistence.json_codec import encode
from sb3_vpg.persistence.packing import encoded_settings, pack
from sb3_vpg.persistence.unpacking import check_weights


class TrainingCheckpoint(BaseCallback):
    """
    Save the state of training regularly, and resume from it: a script that was killed and is started again continues from its
    last checkpoint, and ends with the same weights to the last bit as without the interruption.

    ::

        env = make_vec_env("CartPole-v1", n_envs=4, seed=0)
        VPG("MlpPolicy", env, seed=0).learn(1_000_000, callback=TrainingCheckpoint("my_run"))

    Restored are: weights, both optimisers, schedules, the random streams of the model, Python, NumPy and torch, the statistics
    of ``VecNormalize``, the counters of all callbacks, the history and the best model of ``EvalCallback``, and the state of
    the environments if it is plain (see ``sb3_vpg.checkpoints.env_state``); otherwise new episodes begin. A callback can have
    ``state_dict()`` and ``load_state_dict(state)`` for its own state. If training cannot resume exactly, one warning lists the
    reasons, also with ``verbose=0``.

    Under torchrun the first process writes the checkpoints. They hold the state of every environment by its index among those
    of all processes, so that training resumes with any number of processes that divides the number of environments. Of a
    callback that runs in each process, they hold the state of the first process's.

    :param save_path: folder for the checkpoints of one run
    :param save_freq: environment steps between two checkpoints, counted over all environments. A checkpoint is written before
        the first rollout that begins after them, and one at the end
    :param keep: number of checkpoints to keep, the latest; more than one, so that a damaged one does not end the run
    :param monitor_dir: folder of ``Monitor``'s files, whose rows after the checkpoint are removed when training resumes; None:
        they stay. ``Monitor`` empties existing files unless the environment is made with
        ``monitor_kwargs={"override_existing": latest(save_path) is None}``
    :param resume: resume from the newest readable checkpoint in ``save_path``; False: remove the checkpoints and start anew
    :param verbose: 1 prints when training resumes, 2 also each checkpoint
    :param trust: read checkpoints as ``VPG.load(path, trust=True)`` reads models; needed for policies with sparse or quantised
        buffers. Unsafe if others can write to the folder
    :raises ValueError: if an argument is out of range; in ``learn``, if the checkpoints belong to another run, with other
        settings, another environment or another ``total_timesteps``
    :raises TypeError: in ``learn``, for other algorithms than VPG, and if ``state_dict`` of a callback is not plain
    """

    model: LeanOnPolicyAlgorithm

    def __init__(
        self,
        save_path: str | Path,
        save_freq: int = 25_000,
        keep: int = 2,
        monitor_dir: str | Path | None = None,
        resume: bool = True,
        verbose: int = 1,
        trust: bool = False,
    ) -> None:
        super().__init__(verbose)
        self.save_path = Path(save_path)
        self.save_freq = whole_number("save_freq", save_freq, at_least=1)
        self.keep = whole_number("keep", keep, at_least=1)
        self.monitor_dir = None if monitor_dir is None else Path(monitor_dir)
        self.resume = resume
        self.trust = flag("trust", trust)
        self._requested = False
        self._total_timesteps, self._last_written = 0, -1
        self._callback: BaseCallback = self

    def request(self) -> None:
        """Request a checkpoint before the next rollout. May be called from a signal handler."""
        self._requested = True

    def state_dict(self) -> dict[str, Any]:
        """:return: an empty dict: this callback may have other arguments when training resumes"""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to do."""

    def _init_callback(self) -> None:
        if not isinstance(self.model, LeanOnPolicyAlgorithm):
            raise TypeError(f"TrainingCheckpoint supports VPG, but not {type(self.model).__name__}")
        self.model.add_hook(self)

    def on_learn_start(self, total_timesteps: int, callback: BaseCallback) -> None:
        """Resume from the newest checkpoint, before ``on_training_start`` of any callback."""
        self._callback, self._total_timesteps, self._requested = callback, total_timesteps, False
        for _, part in callbacks_in(callback):
            # A state_dict() that is not plain raises its error here, not hours later
            callback_state(part)
        if self.model.num_timesteps == 0 and self.resume:
            self._resume()
        elif self.model.num_timesteps == 0 and self.model._world.is_main_process:
            for path in checkpoints_in(self.save_path):
                path.unlink()
        self._last_written = self.model.num_timesteps

    def on_iteration_start(self) -> None:
        """Write a checkpoint if ``save_freq`` steps have passed or one was requested."""
        requested = any(self.model._world.all_gather(self._requested))
        if requested or self.model.num_timesteps // self.save_freq > self._last_written // self.save_freq:
            self._write()

    def _on_step(self) -> bool:
        return True

    def _on_training_end(self) -> None:
        # Training that was stopped in the middle of a rollout cannot be resumed from there
        if self.model.between_iterations and self.model.num_timesteps > self._last_written:
            self._write()

    def _write(self) -> None:
        """Write a checkpoint. If that fails, warn and go on: the one before is still there."""
        path = self.save_path / f"checkpoint_{self.model.num_timesteps}_steps.zip"
        self._requested, self._last_written = False, self.model.num_timesteps
        # A setting may have changed since learn() checked the model
        self.model.warn_unloadable()
        try:
            content = self._content()
            if not self.model._world.is_main_process:
                return
            with atomic_write(path) as file:
                file.write(content)
            for old in checkpoints_in(self.save_path)[: -self.keep]:
                old.unlink()
        except (OSError, NotPlainError) as error:
            warnings.warn(
                f"no checkpoint could be written after {self.model.num_timesteps:,} steps ({error}); training goes on, and "
                f"would resume from {latest(self.save_path) or 'the beginning'}",
                stacklevel=2,
            )
            return
        if self.verbose >= 2:
            print(f"Checkpoint: {path}")

    def _content(self) -> bytes:
        state = training_state(self.model, self._callback, self.monitor_dir)
        best = best_models(self._callback)
        state["best_models"] = list(best)
        members = {best_member(index): content for index, content in enumerate(best.values())}
        members[TRAINING] = json.dumps(encode(state)).encode()
        return pack(self.model, extra_members=members, pickles=False)

    def _resume(self) -> None:
        """Restore the newest checkpoint that can be read, if there are any. The first process reads it for all."""
        checkpoint, damaged = self.model._world.run_on_main(self._newest)
        if checkpoint is not None:
            self._restore(checkpoint, damaged)

    def _newest(self) -> tuple[Checkpoint | None, list[str]]:
        """:return: the newest checkpoint that can be read, if there are any, and which ones cannot be read"""
        damaged: list[str] = []
        if self.save_path.is_dir():
            remove_partial_files(self.save_path)
        for path in reversed(checkpoints_in(self.save_path)):
            try:
                checkpoint = Checkpoint.read(path, self.trust)
                if not self.trust:
                    check_weights(self.model.policy, checkpoint.weights, str(path))
            except (RefusedFileError, OSError) as error:
                damaged.append(f"{path.name} ({error})")
            else:
                return checkpoint, damaged
        if damaged:
            raise RefusedFileError(
                f"no checkpoint in {self.save_path} can be read: {'; '.join(damaged)}. Remove them to begin anew"
            )
        return None, []

    def _restore(self, checkpoint: Checkpoint, damaged: list[str]) -> None:
        if checkpoint.total_timesteps != self._total_timesteps:
            raise ValueError(
                f"{checkpoint.path} belongs to a run of {checkpoint.total_timesteps:,} steps, but total_timesteps is "
                f"{self._total_timesteps:,}; schedules depend on it. {ANOTHER_RUN_ADVICE}"
            )
        check_launch(checkpoint.state, self.model._world, checkpoint.path)
        check_settings(self.model, checkpoint.data, encoded_settings(self.model), checkpoint.path)
        best = dict(zip(checkpoint.state["best_models"], checkpoint.best, strict=True))
        parts = checkpoint.data, checkpoint.weights, checkpoint.state, best
        reasons = restore_training(self.model, self._callback, *parts, self.monitor_dir)
        if not self.model._world.is_main_process:
            return
        for path in checkpoints_in(self.save_path):
            if steps_of(path) > checkpoint.num_timesteps:
                path.unlink()
        self._report(checkpoint, damaged, reasons)

    def _report(self, checkpoint: Checkpoint, damaged: list[str], reasons: list[str]) -> None:
        was, now = checkpoint.state["versions"], {**versions(), "device": str(self.model.device)}
        reasons = [*reasons, *(f"{name} {was[name]} is {now.get(name)} now" for name in was if was[name] != now.get(name))]
        complete = checkpoint.num_timesteps >= checkpoint.total_timesteps
        if self.verbose >= 1:
            steps = f"{checkpoint.num_timesteps:,} of {checkpoint.total_timesteps:,} steps"
            what = f"Training is complete after {steps}" if complete else f"Taking up training after {steps}"
            print(f"{what}, from {checkpoint.path}")
        if damaged:
            warnings.warn(f"damaged checkpoints skipped: {'; '.join(damaged)}", stacklevel=2)
        if reasons:
            listed = "; ".join(dict.fromkeys(reasons))
            warnings.warn(f"training goes on, but perhaps not to the last bit: {listed}", stacklevel=2)
