"""
One call of ``train``: it begins a run, or resumes a run with the settings of that run.

``rl_zoo3.train`` parses its flags and trains in one function. A ``Session`` connects the parser and the experiment manager
that we put in their places there.
"""

import argparse
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from sb3_vpg.common.locks import claimed
from sb3_vpg.zoo.algorithms import VPG_ALGORITHMS
from sb3_vpg.zoo.flags import CHECKPOINT_FREQ, VECTOR_MODES
from sb3_vpg.zoo.safe_yaml import as_read_back, has_python_tag
from sb3_vpg.zoo.signals import Signals
from sb3_vpg.zoo.train.saved_run import SavedRun, find_run

# Flags that may change when a run is resumed: output, machine and place. Hyperparameters are compared one by one
_FREE = ("verbose", "progress", "log_interval", "num_threads", "device", "log_folder", "gym_packages", "uuid", "hyperparams")


class RunComplete(Exception):
    """Raised if the run is complete, so that there is nothing to train."""


class Session:
    """
    What the parser and the experiment manager share. Other parameters: see ``train``.

    :param stack: is closed when the command ends
    """

    folder: Path | None = None
    """The folder of the run that is resumed."""
    exp_id: int | None = None
    """The number of a new run; None: the next number."""
    run: SavedRun | None = None
    """The run that is resumed; also None if it was killed before it wrote its settings."""
    vector_mode: str | None = None
    """One of ``VECTOR_MODES``; None: SB3's ``VecEnv``."""

    def __init__(self, flags: list[str], signals: Signals, own: dict[str, Any], stack: ExitStack) -> None:
        self.flags, self.signals = flags, signals
        self._own = {name: value for name, value in own.items() if value is not None}
        self._stack = stack

    @property
    def vec_env_flag(self) -> str | None:
        """The given ``--vec-env``; None if there is none."""
        flag: str | None = self._own.get("vec_env")
        return flag

    def resume_from(self, folder: Path) -> None:
        """Resume the run in this folder, whatever the flags ``--resume`` and ``--exp-id`` say."""
        self._own = {name: value for name, value in self._own.items() if name != "exp_id"} | {"resume": str(folder)}

    def claim(self, folder: Path) -> None:
        """
        Lock a run's folder until the command ends.

        :raises ValueError: if another process has locked it
        """
        self._stack.enter_context(claimed(folder))

    def settle(self, args: argparse.Namespace, given: dict[str, Any]) -> argparse.Namespace:
        """
        :param args: the result of the zoo's parser, with defaults
        :param given: the given flags only
        :return: the arguments to train with
        :raises ValueError: if flags contradict each other or the run, or if there is nothing to resume
        """
        resume, self.exp_id = self._own.pop("resume", None), self._own.pop("exp_id", None)
        if args.algo in VPG_ALGORITHMS and not args.optimize_hyperparameters:
            args.checkpoint_freq = CHECKPOINT_FREQ
        elif resume is not None or "checkpoint_freq" in self._own:
            search = "a search (with --storage, a search continues without --resume)"
            what = search if args.algo in VPG_ALGORITHMS else f"a run of {args.algo}"
            *others, last = VPG_ALGORITHMS
            raise ValueError(f"--resume and --checkpoint-freq are for --algo {', '.join(others)} and {last}, not for {what}")
        given.update(self._own)
        if resume == "" and args.uuid:
            raise ValueError(
                "runs with --uuid have no number, so none is the latest; name the folder of the run: --resume FOLDER"
            )
        if self.exp_id is not None and (resume is not None or args.uuid):
            raise ValueError("--exp-id is the number of a new run, and cannot be used with --resume or --uuid")
        if resume is not None:
            self.folder = find_run(resume, args.log_folder, args.algo, args.env)
            args = self._resume(self.folder, args, given)
        if self.run is None:
            vars(args).update(self._own)
            if args.vec_env in VECTOR_MODES and "n_eval_envs" not in given:
                # One environment for each episode: see VectorExperimentManager
                args.n_eval_envs = 0
        if args.vec_env in VECTOR_MODES:
            # The zoo's manager does not know them
            self.vector_mode, args.vec_env = args.vec_env, "dummy"
        return args

    def _resume(self, folder: Path, args: argparse.Namespace, given: dict[str, Any]) -> argparse.Namespace:
        # First check that it is a run of ours: the lock writes a file into the folder
        SavedRun.read(folder)
        self.claim(folder)
        run = self.run = SavedRun.read(folder)
        if run is None:
            print(f"{folder} was killed before it wrote its settings; it begins once more, with the settings of this command")
            return args
        saved = self._merged(run, given)
        if run.finished is not None:
            raise RunComplete(f"{folder} is complete: {run.finished}")
        run.tidy()
        if not run.has_checkpoint:
            place = run.set_aside()
            files = "" if place is None else f"; its files are in {place}"
            print(f"{folder} was killed before its first checkpoint, so it begins once more{files}")
        return argparse.Namespace(**{**vars(args), **saved, "log_folder": args.log_folder})

    @staticmethod
    def _merged(run: SavedRun, given: dict[str, Any]) -> dict[str, Any]:
        """:return: the arguments that a run began with, and the given flags; ValueError if these contradict each other"""
        saved = {**run.args, "hyperparams": None}
        if int(saved.get("n_timesteps", -1)) <= 0 < int(given.get("n_timesteps", -1)):
            # The run began without -n, with the number of its hyperparameters
            saved["n_timesteps"] = int(float(run.hyperparams["n_timesteps"]))
        for name, value in given.items():
            if name not in _FREE:
                _compare(f"--{name.replace('_', '-')} {value}", value, saved.get(name), run.folder)
            saved[name] = value
        for key, value in (given.get("hyperparams") or {}).items():
            _compare(f"--hyperparams {key}:{value!r}", value, run.hyperparams.get(key), run.folder)
        for name, value in saved.items():
            if has_python_tag(value):
                flag = f"--{name.replace('_', '-')}"
                raise ValueError(
                    f"{run.folder} began with {flag} {value}, which is not read from a file: give the same {flag} again"
                )
        return saved


def _compare(flag: str, value: Any, saved: Any, folder: Path) -> None:
    if as_read_back(value) != saved:
        raise ValueError(
            f"{flag} contradicts {folder}, which began with {saved}: leave out the flag to resume that run, or leave out "
            "--resume to begin a new one"
        )
