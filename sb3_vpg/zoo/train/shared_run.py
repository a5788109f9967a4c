"""
``torchrun ... -m sb3_vpg train``: several processes train one model. The first one settles the flags, writes files and prints;
the others get its settings, and each plays its share of the environments.
"""

import argparse
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from huggingface_sb3 import EnvironmentName
from rl_zoo3.exp_manager import ExperimentManager
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from sb3_vpg.common import torchrun
from sb3_vpg.common.world import World
from sb3_vpg.zoo.algorithms import DEFAULT_ALGORITHM
from sb3_vpg.zoo.train.experiment_manager import VPGExperimentManager
from sb3_vpg.zoo.train.session import RunComplete, Session

_LAUNCH = "torchrun.txt"
"""The file in a run's folder that names the torchrun that began the run."""
_SILENT = {"eval_freq": -1, "save_freq": -1, "progress": False, "tensorboard_log": "", "track": False, "verbose": 0}
"""Arguments of the processes that write no files."""


@contextmanager
def only_main_prints(world: World) -> Iterator[None]:
    """Within this block, only the first process prints."""
    if world.is_main_process:
        yield
        return
    with open(os.devnull, "w") as nothing, redirect_stdout(nothing):
        yield


def settle(session: Session, world: World, args: argparse.Namespace, given: dict[str, Any]) -> argparse.Namespace:
    """
    Call ``Session.settle``. Under torchrun the first process calls it for all. After a restart by torchrun, it resumes the run
    that the first start began.

    :raises ValueError: for flags that cannot be used under torchrun
    """
    if not world.is_distributed:
        return session.settle(args, given)

    def settled() -> Any:
        _check(args, session.vec_env_flag)
        if torchrun.n_restarts() > 0 and (run := _begun_run(args)) is not None:
            session.resume_from(run)
        try:
            found = session.settle(args, given)
        except RunComplete as complete:
            return complete
        if found.seed < 0:
            # Else each process would draw another one
            found.seed = secrets.randbelow(2**31)
        return found, {name: getattr(session, name) for name in ("folder", "exp_id", "run")}

    result = world.run_on_main(settled)
    if isinstance(result, RunComplete):
        raise result
    found, attributes = result
    if not world.is_main_process:
        vars(session).update(attributes)
        vars(found).update(_SILENT)
    return found  # type: ignore[no-any-return]  # what the first process settled


def _check(args: argparse.Namespace, vec_env: str | None) -> None:
    """:raises ValueError: for flags that cannot be used under torchrun"""
    if args.optimize_hyperparameters:
        raise ValueError(
            "torchrun trains one model on several processes, but a search trains many: start optimize without torchrun, "
            "several times with the same --storage and --study-name"
        )
    if args.algo != DEFAULT_ALGORITHM:
        raise ValueError(
            f"--algo {args.algo} does not train on several processes: use --algo {DEFAULT_ALGORITHM}, or no torchrun"
        )
    if vec_env not in (None, "dummy"):
        raise ValueError(
            f"--vec-env {vec_env} cannot be divided among processes: leave it out; each process steps its own environments"
        )


def _begun_run(args: argparse.Namespace) -> Path | None:
    """:return: the folder of the run that an earlier start of this torchrun began; None if it made none"""
    runs, launch = Path(args.log_folder) / args.algo, torchrun.launch_id()
    notes = [file for file in runs.glob(f"{EnvironmentName(args.env)}_*/{_LAUNCH}") if file.read_text() == launch]
    return max(notes, key=lambda file: file.stat().st_mtime).parent if notes else None


class SharedExperimentManager(VPGExperimentManager):
    """
    Differs from its parent in two points: this process builds its share of the environments for training, and only the first
    process writes files.

    :param world: the processes
    """

    def __init__(self, args: Any, algo: str, *others: Any, session: Session, world: World, **kwargs: Any) -> None:
        super().__init__(args, algo, *others, session=session, **kwargs)
        self._world, self._is_divided = world, False

    def _preprocess_hyperparams(self, hyperparams: dict[str, Any]) -> tuple[Any, ...]:
        """See the parent. Raises ValueError if ``n_envs`` cannot be divided by the number of processes."""
        prepared = super()._preprocess_hyperparams(hyperparams)
        own, _ = self._world.run_on_main(lambda: torchrun.shard(self.n_envs))
        print(f"Processes of torchrun: {self._world.size}, each with {own} of {self.n_envs} environments")
        return prepared

    def create_log_folder(self) -> None:
        """See the parent. The first process makes the folder."""
        folder = self._world.run_on_main(self._note_launch)
        if not self._world.is_main_process:
            self._use_folder(Path(folder))
            ExperimentManager.create_log_folder(self)  # type: ignore[no-untyped-call]  # rl_zoo3 leaves it untyped

    def _note_launch(self) -> str:
        super().create_log_folder()
        (Path(self.save_path) / _LAUNCH).write_text(torchrun.launch_id())
        return self.save_path

    def create_envs(self, n_envs: int, eval_env: bool = False, no_log: bool = False) -> VecEnv:
        """See the parent. Environments for evaluation are not divided."""
        self._is_divided = not eval_env
        return super().create_envs(n_envs, eval_env, no_log)

    def build_vec_env(self, *args: Any, **kwargs: Any) -> VecEnv:
        """Build this process's share of the environments for training, or all of those for evaluation."""
        if not self._is_divided:
            return super().build_vec_env(*args, **kwargs)
        from sb3_vpg.distributed.environments import make_vec_env

        return make_vec_env(*args, **kwargs)

    def _save_config(self, saved_hyperparams: dict[str, Any]) -> None:
        if self._world.is_main_process:
            super()._save_config(saved_hyperparams)

    def learn(self, model: BaseAlgorithm) -> None:
        """See the parent. A signal to one process stops all."""
        super().learn(model)
        received = next((one for one in self._world.all_gather(self._signals.received) if one is not None), None)
        if received is not None and self._signals.received is None:
            self._signals.received = received
            # The signal to this process may still come, while the model is saved
            self._signals.on_signal = lambda: None

    def save_trained_model(self, model: BaseAlgorithm) -> None:
        """See the parent. Only the first process saves."""
        if self._world.is_main_process:
            super().save_trained_model(model)
