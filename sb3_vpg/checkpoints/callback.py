"""
Checkpoints from which training goes on exactly as if it had never been stopped.

A checkpoint is a model as ``VPG.save`` writes it, which ``VPG.load`` reads, with one member more: everything else that decides
how training goes on, as plain JSON. It is taken between an update and the next rollout, where there is no half-filled buffer
to keep. No peer has this (SB3 issues #29, #326, #1526): their saved models forget random streams, environments, the progress
of schedules and what callbacks have counted.
"""

import io
import json
import warnings
from pathlib import Path
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback

from sb3_vpg.checkpoints.callback_state import callback_state, callbacks_in
from sb3_vpg.checkpoints.files import Checkpoint, _checkpoints, _steps, latest
from sb3_vpg.checkpoints.training_state import best_models, check_settings, restore_training, training_state, versions
from sb3_vpg.common.arguments import flag, whole_number
from sb3_vpg.common.atomic_files import atomic_write, remove_partial_files
from sb3_vpg.exceptions import NotPlainError, RefusedFileError
from sb3_vpg.on_policy_algorithm import LeanOnPolicyAlgorithm
from sb3_vpg.persistence.archives import DATA, TRAINING, best_member, read_members
from sb3_vpg.persistence.json_codec import encode
from sb3_vpg.persistence.packing import pack
from sb3_vpg.persistence.unpacking import check_weights


class TrainingCheckpoint(BaseCallback):
    """
    Saves the whole state of training every now and then, and takes it up again: the same script, started again after it was
    killed, goes on from its last checkpoint, and ends with the same weights to the last bit as if it had not been killed.

    ::

        env = make_vec_env("CartPole-v1", n_envs=4, seed=0)
        VPG("MlpPolicy", env, seed=0).learn(1_000_000, callback=TrainingCheckpoint("my_run"))

    What goes on: weights, both optimisers, schedules, the random streams of the model, Python, NumPy and torch, statistics of
    ``VecNormalize``, the counters of all callbacks, the history and the best model of ``EvalCallback``, and the environments
    where they can give their state as plain values (see ``sb3_vpg.checkpoints.env_state``); where they cannot, new episodes
    begin. A callback may have ``state_dict()`` and ``load_state_dict(state)`` for its own state. If training cannot go on
    exactly, one warning lists the reasons, whatever ``verbose`` is.

    :param save_path: folder of the checkpoints; those of one run alone
    :param save_freq: environment steps from one checkpoint to the next, of all environments together; each is written before
        the first rollout that begins after them, and one at the end
    :param keep: so many of the latest ones stay, so that a damaged one costs no more than the steps since the one before
    :param monitor_dir: folder of ``Monitor``'s files, whose rows after the checkpoint are cut off when training is taken up;
        None: they are left alone. ``Monitor`` empties what it finds, unless the environment is made with
        ``monitor_kwargs={"override_existing": latest(save_path) is None}``
    :param resume: take up training from the newest good checkpoint in ``save_path``; False: remove what is there and begin
    :param verbose: 1 tells when training is taken up, 2 of every checkpoint
    :param trust: read checkpoints as ``VPG.load(path, trust=True)`` reads models; needed for policies with sparse or quantised
        buffers. Unsafe if others can write to the folder
    :raises ValueError: for arguments out of range; in ``learn``, if the checkpoints there are of another run: of other
        settings, another environment or another ``total_timesteps``
    :raises TypeError: in ``learn``, for another algorithm than ours, and for a callback whose ``state_dict`` is not plain
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
        self._total, self._last = 0, -1
        self._callback: BaseCallback = self

    def request(self) -> None:
        """Ask for a checkpoint before the next rollout, out of turn. May be called from a signal handler."""
        self._requested = True

    def state_dict(self) -> dict[str, Any]:
        """:return: nothing: it may be given other arguments when training is taken up"""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to do."""

    def _init_callback(self) -> None:
        if not isinstance(self.model, LeanOnPolicyAlgorithm):
            raise TypeError(f"TrainingCheckpoint needs VPG, whose training it knows, but got {type(self.model).__name__}")
        self.model.add_hook(self)

    def on_learn_start(self, total_timesteps: int, callback: BaseCallback) -> None:
        """Take up training where it was left, before anybody is told that it starts."""
        self._callback, self._total, self._requested = callback, total_timesteps, False
        for _, one in callbacks_in(callback):
            # Now is the time to hear that a state_dict() is not plain, and not after hours
            callback_state(one)
        if self.model.num_timesteps == 0 and self.resume:
            self._restore()
        elif self.model.num_timesteps == 0:
            for path in _checkpoints(self.save_path):
                path.unlink()
        self._last = self.model.num_timesteps

    def on_iteration_start(self) -> None:
        """Write a checkpoint if it is time for one."""
        if self._requested or self.model.num_timesteps // self.save_freq > self._last // self.save_freq:
            self._write()

    def _on_step(self) -> bool:
        return True

    def _on_training_end(self) -> None:
        # Whoever stops training in the middle of a rollout leaves nothing that could be taken up
        if self.model.between_iterations and self.model.num_timesteps > self._last:
            self._write()

    def _write(self) -> None:
        """A checkpoint that cannot be written is no reason to end training: the one before is still there."""
        path = self.save_path / f"checkpoint_{self.model.num_timesteps}_steps.zip"
        self._requested, self._last = False, self.model.num_timesteps
        # What learn() could not tell yet
        self.model.warn_unloadable(stacklevel=3)
        try:
            content = self._content()
            with atomic_write(path) as file:
                file.write(content)
            for old in _checkpoints(self.save_path)[: -self.keep]:
                old.unlink()
        except (OSError, NotPlainError) as error:
            warnings.warn(
                f"no checkpoint could be written after {self.model.num_timesteps:,} steps ({error}); training goes on, and "
                f"would be taken up from {latest(self.save_path) or 'the beginning'}",
                stacklevel=2,
            )
            return
        if self.verbose >= 2:
            print(f"Checkpoint: {path}")

    def _content(self) -> bytes:
        state = training_state(self.model, self._callback, self.monitor_dir)
        best = best_models(self._callback)
        state["best_models"] = list(best)
        more = {best_member(index): content for index, content in enumerate(best.values())}
        more[TRAINING] = json.dumps(encode(state)).encode()
        return pack(self.model, more=more, pickles=False)

    def _restore(self) -> None:
        paths, damaged = _checkpoints(self.save_path), []
        if self.save_path.is_dir():
            remove_partial_files(self.save_path)
        while paths:
            path = paths.pop()
            try:
                checkpoint = Checkpoint.read(path, self.trust)
                if not self.trust:
                    check_weights(self.model.policy, checkpoint.weights, str(path))
            except (RefusedFileError, OSError) as error:
                damaged.append(f"{path.name} ({error})")
                continue
            self._take_up(checkpoint, damaged)
            return
        if damaged:
            raise RefusedFileError(
                f"no checkpoint in {self.save_path} can be read: {'; '.join(damaged)}. Remove them to begin anew"
            )

    def _take_up(self, checkpoint: "Checkpoint", damaged: list[str]) -> None:
        if checkpoint.total_timesteps != self._total:
            raise ValueError(
                f"{checkpoint.path} is of a run of {checkpoint.total_timesteps:,} steps, but learn() was asked for "
                f"{self._total:,}; schedules depend on it. Use another save_path, or resume=False to remove what is there"
            )
        written = json.loads(read_members(io.BytesIO(pack(self.model, pickles=False)), "the model")[DATA])
        check_settings(self.model, checkpoint.data, written, checkpoint.path)
        best = dict(zip(checkpoint.state["best_models"], checkpoint.best, strict=True))
        parts = checkpoint.data, checkpoint.weights, checkpoint.state, best
        reasons = restore_training(self.model, self._callback, *parts, self.monitor_dir)
        for path in _checkpoints(self.save_path):
            if _steps(path) > checkpoint.num_timesteps:
                path.unlink()
        self._tell(checkpoint, damaged, reasons)

    def _tell(self, checkpoint: "Checkpoint", damaged: list[str], reasons: list[str]) -> None:
        was, now = checkpoint.state["versions"], {**versions(), "device": str(self.model.device)}
        reasons = [*reasons, *(f"{name} {was[name]} is {now.get(name)} now" for name in was if was[name] != now.get(name))]
        complete = checkpoint.num_timesteps >= checkpoint.total_timesteps
        if self.verbose >= 1:
            steps = f"{checkpoint.num_timesteps:,} of {checkpoint.total_timesteps:,} steps"
            what = f"Training is complete after {steps}" if complete else f"Taking up training after {steps}"
            print(f"{what}, from {checkpoint.path}")
        if damaged:
            warnings.warn(f"damaged checkpoints passed over: {'; '.join(damaged)}", stacklevel=2)
        if reasons:
            listed = "; ".join(dict.fromkeys(reasons))
            warnings.warn(f"training goes on, but perhaps not to the last bit: {listed}", stacklevel=2)
