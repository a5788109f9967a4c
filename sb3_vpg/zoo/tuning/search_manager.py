"""The zoo's search for hyperparameters as ``sb3-vpg optimize`` runs it."""

import inspect
import math
import warnings
from copy import copy
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.trial import TrialState
from rl_zoo3.exp_manager import ExperimentManager

from sb3_vpg import VPG
from sb3_vpg.exceptions import DistributionError, DivergedError, EndlessEpisodeError
from sb3_vpg.zoo.algorithms import ALGORITHMS, VPG_ALGORITHMS
from sb3_vpg.zoo.patching import patched
from sb3_vpg.zoo.signals import Signals
from sb3_vpg.zoo.tuning.report import report
from sb3_vpg.zoo.tuning.search_space import ENTRY_UNCHANGED, params_of, suggest_n_envs
from sb3_vpg.zoo.tuning.study import StudyOrigin, as_json, create_or_load, open_search_storage

# Other hyperparameters may avoid these errors
_PRUNED = (DivergedError, DistributionError, EndlessEpisodeError)


class SearchManager(ExperimentManager):
    """
    A search differs from that of the parent class as follows:

    * the first trial trains the entry that the search began with, so the best trial is never worse than it;
    * the number of environments of VPG is searched as well;
    * a trial of VPG is pruned if it diverges, and an error of the environment ends the search;
    * a trial that was interrupted is queued again; in a database, also one whose worker was killed;
    * several processes can start the same search in a new database at the same time;
    * plots are written to files, and the best trial is printed as an entry of a hyperparameter file.
    """

    _signals: Signals
    _saved: dict[str, Any]

    def read_hyperparameters(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Read the hyperparameters as the zoo does, and keep them for the study."""
        hyperparams, self._saved = super().read_hyperparameters()
        return hyperparams, self._saved

    def objective(self, trial: optuna.Trial) -> float:
        """Run a trial as the zoo does. If it is interrupted or its environment fails, stop without Optuna's traceback."""
        for name in ("seed", "n_timesteps", "n_eval_episodes"):
            trial.set_user_attr(name, getattr(self, name))
        manager = copy(self)
        try:
            if self.algo in VPG_ALGORITHMS:
                # Parallel jobs are threads, and each trial has its own n_envs
                manager.n_envs = suggest_n_envs(trial, self.n_envs)
            return ExperimentManager.objective(manager, trial)
        except optuna.TrialPruned as pruned:
            cause = pruned.__cause__
            if cause is None or self.algo not in ALGORITHMS or isinstance(cause, _PRUNED):
                raise
            failure: BaseException = cause
        except (Exception, KeyboardInterrupt) as error:
            failure = error
        self._note_failure(trial, failure)
        # Optuna marks a trial with this value as failed
        return math.nan

    def _note_failure(self, trial: optuna.Trial, failure: BaseException) -> None:
        self._errors.append(failure)
        trial.set_user_attr("failure", f"{type(failure).__name__}: {failure}"[:500])
        if self.storage is not None and isinstance(failure, KeyboardInterrupt):
            # For the next process that continues the study
            trial.study.enqueue_trial(trial.params, {ENTRY_UNCHANGED: True} if ENTRY_UNCHANGED in trial.user_attrs else None)
        trial.study.stop()

    def hyperparameters_optimization(self) -> None:
        """
        Search, and report the result.

        :raises ValueError: if no trial was completed
        :raises Exception: the error of an environment
        """
        self._errors: list[BaseException] = []
        self._study: optuna.Study | None = None
        plots, self.no_optim_plots = not self.no_optim_plots, True
        with warnings.catch_warnings():
            # In Optuna, heartbeats and matplotlib plots are experimental
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            with open_search_storage(self.storage) as self._database:
                with patched("optuna:create_study", self._create_study):
                    self._search()
                assert self._study is not None
                report(self._study, self.storage, Path(self.log_folder) / self.algo if plots else None)
        for error in self._errors:
            if isinstance(error, Exception):
                raise error

    def _search(self) -> None:
        try:
            super().hyperparameters_optimization()
        except ValueError as error:
            # The zoo asks for the best trial, and there is none
            if self._study is None or self._study.get_trials(states=(TrialState.COMPLETE,)):
                raise
            if self._errors:
                raise self._errors[0] from None
            if self._signals.received is not None:
                raise KeyboardInterrupt from None
            n_trials = len(self._study.trials)
            raise ValueError(
                f"none of the {n_trials} trials of study {self._study.study_name!r} was completed: raise --n-trials, "
                "begin with other hyperparameters, or see above why trials were pruned"
            ) from error

    def _create_study(self, load_if_exists: bool, storage: BaseStorage | None, **kwargs: Any) -> optuna.Study:
        """Replaces ``optuna.create_study`` in the zoo's search."""
        study, is_new = create_or_load(storage=self._database or storage, **kwargs)
        self._study = study
        # Every process sets it: the sampler needs it in the first trial
        study.set_user_attr("policy", str(self._hyperparams.get("policy")))
        entry = {**self._saved, **({"env_kwargs": self.env_kwargs} if self.env_kwargs else {})}
        origin = StudyOrigin(self.algo, self.env_name.gym_id, as_json(entry), list(self.args.gym_packages))
        if is_new:
            origin.save(study)
            if self.algo in VPG_ALGORITHMS:
                self._enqueue_entry(study)
        else:
            origin.check_same(study)
        return study

    def _enqueue_entry(self, study: optuna.Study) -> None:
        defaults = {name: parameter.default for name, parameter in inspect.signature(VPG).parameters.items()}
        hyperparams = {**defaults, "policy_kwargs": None, **self._hyperparams}
        params = params_of(hyperparams, self.n_envs, self.n_actions)
        if params is None:
            # Not a point of the search space, so the sampler learns nothing from it
            study.enqueue_trial({}, user_attrs={ENTRY_UNCHANGED: True})
        else:
            study.enqueue_trial(params)
