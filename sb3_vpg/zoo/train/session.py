"""
One call of ``train``: a run that begins, or one that goes on with the settings that it began with.

The zoo builds its parser inside of the function that also trains, so it is met there: a ``Session`` stands behind what
``rl_zoo3.train`` sees of ``argparse``, and behind its ``ExperimentManager``.
"""

import argparse
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from sb3_vpg.common.locks import claimed
from sb3_vpg.zoo.algorithms import DEFAULT_ALGORITHM
from sb3_vpg.zoo.safe_yaml import as_read_back, has_python_tag
from sb3_vpg.zoo.signals import Signals
from sb3_vpg.zoo.train.saved_run import SavedRun, find_run

CHECKPOINT_FREQ = 25_000


# Looks, the machine, and where the run is looked for; hyperparameters are compared one by one
_FREE = ("verbose", "progress", "log_interval", "num_threads", "device", "log_folder", "gym_packages", "uuid", "hyperparams")


class _Complete(Exception):
    """There is nothing left to train; the text says why."""


class Session:
    """
    What a parser and an experiment manager have to know of each other. Parameters: as ``train``.

    :param stack: closed when the command ends
    """

    folder: Path | None = None
    """That of the run which is resumed."""
    exp_id: int | None = None
    """The number of a new run; None: the next."""
    run: SavedRun | None = None
    """What is resumed; None as well if it was killed before it had written its settings."""

    def __init__(self, flags: list[str], signals: Signals, own: dict[str, Any], stack: ExitStack) -> None:
        self.flags, self.signals = flags, signals
        self._own = {name: value for name, value in own.items() if value is not None}
        self._stack = stack
        self.native = False

    def claim(self, folder: Path) -> None:
        """Lock a run's folder until the command ends. :raises ValueError: if another process has it"""
        self._stack.enter_context(claimed(folder))

    def settle(self, args: argparse.Namespace, given: dict[str, Any]) -> argparse.Namespace:
        """
        :param args: what the zoo's parser has made of defaults and flags
        :param given: the flags alone
        :return: what to train with
        """
        name, self.exp_id = self._own.pop("resume", None), self._own.pop("exp_id", None)
        if args.algo == DEFAULT_ALGORITHM and not args.optimize_hyperparameters:
            args.checkpoint_freq = CHECKPOINT_FREQ
        elif name is not None or "checkpoint_freq" in self._own:
            what = (
                f"a run of {args.algo}"
                if args.algo != DEFAULT_ALGORITHM
                else "a search (one with --storage goes on by itself)"
            )
            raise ValueError(f"--resume and --checkpoint-freq are for --algo {DEFAULT_ALGORITHM}, not for {what}")
        given.update(self._own)
        if name == "" and args.uuid:
            raise ValueError("runs with --uuid have no number, so the latest is not known; name its folder: --resume FOLDER")
        if self.exp_id is not None and (name is not None or args.uuid):
            raise ValueError("--exp-id numbers a new run, and goes neither with --resume nor with --uuid")
        if name is not None:
            self.folder = find_run(name, args.log_folder, args.algo, args.env)
            args = self._resume(self.folder, args, given)
        if self.run is None:
            vars(args).update(self._own)
            if args.vec_env == "native" and "n_eval_envs" not in given:
                # Stands for: as many as there are episodes
                args.n_eval_envs = 0
        if args.vec_env == "native":
            # Of which the zoo's manager knows nothing
            self.native, args.vec_env = True, "dummy"
        return args

    def _resume(self, folder: Path, args: argparse.Namespace, given: dict[str, Any]) -> argparse.Namespace:
        # Before the lock, which writes a file: it may not be ours
        SavedRun.read(folder)
        self.claim(folder)
        run = self.run = SavedRun.read(folder)
        if run is None:
            print(f"{folder} was killed before it had begun; it begins once more, with the settings of this command")
            return args
        saved = self._merged(run, given)
        if run.finished is not None:
            raise _Complete(f"{folder} is complete: {run.finished}")
        run.tidy()
        if not run.has_checkpoint:
            print(f"{folder} was killed before its first checkpoint; its files are removed, and it begins once more")
            run.clear()
        return argparse.Namespace(**{**vars(args), **saved, "log_folder": args.log_folder})

    @staticmethod
    def _merged(run: SavedRun, given: dict[str, Any]) -> dict[str, Any]:
        """:return: the settings of a run. :raises ValueError: if a flag says otherwise"""
        saved = {**run.args, "hyperparams": None}
        if int(saved.get("n_timesteps", -1)) <= 0 < int(given.get("n_timesteps", -1)):
            saved["n_timesteps"] = int(float(run.hyperparams["n_timesteps"]))
        for name, value in given.items():
            if name not in _FREE:
                _compare(f"--{name.replace('_', '-')} {value}", value, saved.get(name), run.folder)
            saved[name] = value
        for key, value in (given.get("hyperparams") or {}).items():
            _compare(f"--hyperparams {key}:{value!r}", value, run.hyperparams.get(key), run.folder)
        foreign = {f"--{name.replace('_', '-')}": value for name, value in saved.items() if has_python_tag(value)}
        for flag, value in foreign.items():
            raise ValueError(f"{run.folder} was begun with {flag} {value}, which no file may make: give the same {flag} again")
        return saved


def _compare(flag: str, value: Any, saved: Any, folder: Path) -> None:
    if as_read_back(value) != saved:
        raise ValueError(
            f"{flag} contradicts {folder}, which was begun with {saved}: leave the flag out to resume that run, "
            "or leave out --resume to begin another one"
        )
