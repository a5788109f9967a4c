"""The zoo's ``ExperimentManager`` with our hyperparameter files, clear refusals, and no training lost to an error."""

import inspect
import shutil
import tempfile
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import optuna
import rl_zoo3.train
import yaml
from rl_zoo3.exp_manager import ExperimentManager
from sqlalchemy.exc import SQLAlchemyError
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from sb3_vpg.arguments import OnPolicyKwargs, real_number, refuse_unknown, whole_number
from sb3_vpg.random_search import BaseKwargs
from sb3_vpg.zoo import OURS
from sb3_vpg.zoo.hyperparams import hyperparams_file
from sb3_vpg.zoo.registration import our_class
from sb3_vpg.zoo.replaced import replaced

_ATTEMPTS = 5
_READ_BY_THE_ZOO = (
    "n_timesteps",
    "n_envs",
    "normalize",
    "frame_stack",
    "env_wrapper",
    "vec_env_wrapper",
    "callback",
    "monitor_kwargs",
    "env_kwargs",
)
_SET_BY_FLAGS = ("env", "seed", "verbose", "device", "tensorboard_log", "_init_setup_model", "kwargs")


class VPGExperimentManager(ExperimentManager):
    """
    Differs from its parent in five points:

    * without ``-conf``, our algorithms find their YAML file in our package;
    * a YAML file that cannot be read, or an entry with missing, unknown or unusable keys, is refused with the file's name;
    * no run folder stays behind that would hide an earlier run from those who look for the latest;
    * when training fails, the model is saved where a finished one would be, and then the error goes on;
    * processes that start a search in the same new database at the same moment do not trip over each other.
    """

    def __init__(self, args: Any, algo: str, *others: Any, **kwargs: Any) -> None:
        super().__init__(args, algo, *others, **kwargs)
        if kwargs.get("config") is None and algo in OURS:
            self.config = str(hyperparams_file(algo))

    def read_hyperparameters(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """:raises ValueError: if the file is no YAML mapping, or if an entry lacks a key or has one too many"""
        try:
            hyperparams, saved = super().read_hyperparameters()
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"{self.config} is no readable YAML file: {error}") from error
        except (AttributeError, TypeError) as error:
            raise ValueError(f"{self.config} must map environment ids to hyperparameters ({error})") from error
        if self.algo in OURS:
            self._check_keys(hyperparams)
        return hyperparams, saved

    def _check_keys(self, hyperparams: dict[str, Any]) -> None:
        for key in ("n_timesteps", "policy"):
            if key not in hyperparams:
                raise ValueError(f"{self.config}: the entry for {self.env_name.gym_id} needs {key!r}")
        hyperparams["n_timesteps"] = real_number(f"{self.config}: n_timesteps", hyperparams["n_timesteps"], low=1.0)
        whole_number(f"{self.config}, or -params: n_envs", hyperparams.get("n_envs", 1), at_least=1)
        algorithm = our_class(self.algo)
        passed_on = OnPolicyKwargs if issubclass(algorithm, OnPolicyAlgorithm) else BaseKwargs
        accepted = {*inspect.signature(algorithm).parameters, *passed_on.__annotations__, *_READ_BY_THE_ZOO}
        known = sorted(accepted.difference(_SET_BY_FLAGS))
        try:
            refuse_unknown(algorithm.__name__, hyperparams, known)
        except TypeError as error:
            raise ValueError(f"{self.config}, or -params: {error}") from None

    def _preprocess_schedules(self, hyperparams: dict[str, Any]) -> dict[str, Any]:  # type: ignore[override]  # static there
        """Ours read ``"lin_0.001"`` themselves, and refuse what they cannot read by its name."""
        return hyperparams if self.algo in OURS else ExperimentManager._preprocess_schedules(hyperparams)

    def create_log_folder(self) -> None:
        if self.optimize_hyperparameters:
            # What a search writes here, nobody reads; workers of one study would share the folder
            self.save_path = tempfile.mkdtemp(prefix="sb3-vpg-optimize-")
            self.params_path = f"{self.save_path}/{self.env_name}"
        super().create_log_folder()  # type: ignore[no-untyped-call]  # rl_zoo3 leaves it untyped

    def setup_experiment(self) -> tuple[BaseAlgorithm, dict[str, Any]] | None:
        """Prepare a run; where none comes of it, because it is refused or a search, remove its folder again."""
        results = None
        try:
            results = super().setup_experiment()
        finally:
            # args.yml is what the zoo writes last
            if results is None and not any(Path(self.save_path).glob("*/args.yml")):
                shutil.rmtree(self.save_path, ignore_errors=True)
        return results

    def learn(self, model: BaseAlgorithm) -> None:
        """Train; if that fails, save the last good weights before the error goes on."""
        finished = False
        try:
            super().learn(model)
            finished = True
        finally:
            if not finished:
                self.save_trained_model(model)

    def hyperparameters_optimization(self) -> None:
        """Search. Optuna's tables are made first, again and again while another process is making the same ones."""
        if self.storage is not None and "://" in self.storage:
            for _ in range(_ATTEMPTS - 1):
                try:
                    optuna.storages.get_storage(self.storage)
                    break
                except (SQLAlchemyError, optuna.exceptions.StorageInternalError):
                    time.sleep(1.0)
        super().hyperparameters_optimization()


def our_experiment_manager(ours: type[VPGExperimentManager] = VPGExperimentManager) -> AbstractContextManager[Any]:
    """
    Let ``rl_zoo3.train`` use ours. It offers no hook, so its name is replaced, in the process of our own command line
    and for as long as the command runs.
    """
    return replaced(rl_zoo3.train, "ExperimentManager", ours)
