"""
One call of ``train``: a run that begins, or one that goes on with the settings that it began with.

The zoo builds its parser inside of the function that also trains, so it is met there: a ``Session`` stands behind what
``rl_zoo3.train`` sees of ``argparse``, and behind its ``ExperimentManager``.
"""

import argparse
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import rl_zoo3.train
from rl_zoo3.utils import StoreDict

from sb3_vpg.zoo import DEFAULT
from sb3_vpg.zoo.entries import NamedValues
from sb3_vpg.zoo.experiment import VPGExperimentManager
from sb3_vpg.zoo.native import NativeExperimentManager
from sb3_vpg.zoo.plain_yaml import as_written, is_foreign
from sb3_vpg.zoo.registration import register
from sb3_vpg.zoo.replaced import replaced
from sb3_vpg.zoo.runs import SavedRun, find_run, lock
from sb3_vpg.zoo.signals import Signals
from sb3_vpg.zoo.whole import whole_files

CHECKPOINT_FREQ = 25_000
_NOT_GIVEN = object()
# Looks, the machine, and where the run is looked for; hyperparameters are compared one by one
_FREE = ("verbose", "progress", "log_interval", "num_threads", "device", "log_folder", "gym_packages", "uuid", "hyperparams")


class _Complete(Exception):
    """There is nothing left to train; the text says why."""


def train(flags: list[str], signals: Signals, own: dict[str, Any]) -> None:
    """
    Run ``rl_zoo3.train``. Its arguments are ``sys.argv``.

    :param flags: those of ``sys.argv`` that the user has given
    :param signals: those of this process
    :param own: ``vec_env``, from ``train`` also ``checkpoint_freq``, ``resume``, ``exp_id``; None for what was not given
    :raises ValueError: if there is nothing to resume, if a flag contradicts the run, or if there is a run of that number
    """
    register()
    with ExitStack() as stack:
        session = Session(flags, signals, own, stack)
        stack.enter_context(replaced(rl_zoo3.train, "argparse", SimpleNamespace(ArgumentParser=partial(_Parser, session))))
        stack.enter_context(replaced(rl_zoo3.train, "ExperimentManager", session.manager))
        stack.enter_context(whole_files())
        try:
            rl_zoo3.train.train()
        except _Complete as complete:
            print(complete)


class _Parser(argparse.ArgumentParser):
    """The zoo's parser, whose result a session completes."""

    def __init__(self, session: "Session", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._session = session

    def add_argument(self, *names: Any, **kwargs: Any) -> argparse.Action:
        """See ``argparse``."""
        if kwargs.get("action") is StoreDict:
            kwargs["action"] = NamedValues
        return super().add_argument(*names, **kwargs)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """See ``argparse``."""
        parsed = super().parse_args(args, namespace)
        unset = argparse.Namespace(**dict.fromkeys(vars(parsed), _NOT_GIVEN))
        given = vars(super().parse_args(self._session.flags, unset))
        return self._session.settle(parsed, {name: value for name, value in given.items() if value is not _NOT_GIVEN})


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
        self._native = False

    def claim(self, folder: Path) -> None:
        """Lock a run's folder until the command ends. :raises ValueError: if another process has it"""
        file = lock(folder)
        if file is not None:
            self._stack.enter_context(file)

    def manager(self, args: argparse.Namespace, *others: Any, **kwargs: Any) -> VPGExperimentManager:
        """What ``rl_zoo3.train`` takes for the class ``ExperimentManager``."""
        build = NativeExperimentManager if self._native else VPGExperimentManager
        return build(args, *others, session=self, **kwargs)

    def settle(self, args: argparse.Namespace, given: dict[str, Any]) -> argparse.Namespace:
        """
        :param args: what the zoo's parser has made of defaults and flags
        :param given: the flags alone
        :return: what to train with
        """
        name, self.exp_id = self._own.pop("resume", None), self._own.pop("exp_id", None)
        if args.algo == DEFAULT and not args.optimize_hyperparameters:
            args.checkpoint_freq = CHECKPOINT_FREQ
        elif name is not None or "checkpoint_freq" in self._own:
            what = f"a run of {args.algo}" if args.algo != DEFAULT else "a search (one with --storage goes on by itself)"
            raise ValueError(f"--resume and --checkpoint-freq are for --algo {DEFAULT}, not for {what}")
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
            self._native, args.vec_env = True, "dummy"
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
        foreign = {f"--{name.replace('_', '-')}": value for name, value in saved.items() if is_foreign(value)}
        for flag, value in foreign.items():
            raise ValueError(f"{run.folder} was begun with {flag} {value}, which no file may make: give the same {flag} again")
        return saved


def _compare(flag: str, value: Any, saved: Any, folder: Path) -> None:
    if as_written(value) != saved:
        raise ValueError(
            f"{flag} contradicts {folder}, which was begun with {saved}: leave the flag out to resume that run, "
            "or leave out --resume to begin another one"
        )
