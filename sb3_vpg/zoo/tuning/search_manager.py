"""``sb3-vpg optimize``: the zoo's search with a beginning, a sense of whose fault an error is, and pictures at the end."""

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
from sb3_vpg.zoo.algorithms import ALGORITHMS, DEFAULT_ALGORITHM
from sb3_vpg.zoo.patching import exchanged
from sb3_vpg.zoo.signals import Signals
from sb3_vpg.zoo.tuning.report import report
from sb3_vpg.zoo.tuning.search_space import AS_IT_STANDS, params_of, suggest_n_envs
from sb3_vpg.zoo.tuning.study import StudyOrigin, as_json, create_or_load, opened_for_search

# What other hyperparameters may mend
_UNFIT = (DivergedError, DistributionError, EndlessEpisodeError)


class SearchManager(ExperimentManager):
    """
    Differs from its parent, in a search, in five points:

    * the first trial is the entry that the search began with, so that the best is never worse than that;
    * VPG's number of environments is searched as well;
    * a trial of VPG is pruned if it diverges; an environment that fails ends the search, and is named;
    * a trial that was interrupted is queued again, and in storages that can tell also one whose worker was killed;
      processes that start a search in the same new database at the same moment do not trip over each other;
    * plots are drawn to files, and the best trial is shown as an entry of a hyperparameter file.
    """

    _signals: Signals
    _saved: dict[str, Any]

    def read_hyperparameters(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The zoo's, remembered for the study."""
        hyperparams, self._saved = super().read_hyperparameters()
        return hyperparams, self._saved

    def objective(self, trial: optuna.Trial) -> float:
        """The zoo's. A trial that is interrupted, or whose environment fails, fails without Optuna's traceback."""
        for name in ("seed", "n_timesteps", "n_eval_episodes"):
            trial.set_user_attr(name, getattr(self, name))
        manager = copy(self)
        try:
            if self.algo == DEFAULT_ALGORITHM:
                # Several jobs are several threads, with a number each
                manager.n_envs = suggest_n_envs(trial, self.n_envs)
            return ExperimentManager.objective(manager, trial)
        except optuna.TrialPruned as pruned:
            cause = pruned.__cause__
            if cause is None or self.algo not in ALGORITHMS or isinstance(cause, _UNFIT):
                raise
            failure: BaseException = cause
        except (Exception, KeyboardInterrupt) as error:
            failure = error
        self._note_failure(trial, failure)
        return math.nan

    def _note_failure(self, trial: optuna.Trial, failure: BaseException) -> None:
        self._errors.append(failure)
        trial.set_user_attr("failure", f"{type(failure).__name__}: {failure}"[:500])
        if self.storage is not None and isinstance(failure, KeyboardInterrupt):
            # For whoever goes on with the study
            trial.study.enqueue_trial(trial.params, {AS_IT_STANDS: True} if AS_IT_STANDS in trial.user_attrs else None)
        trial.study.stop()

    def hyperparameters_optimization(self) -> None:
        """
        Search. A database stays open until the report is written.

        :raises ValueError: if no trial was completed; an error of an environment goes on as it is
        """
        self._errors: list[BaseException] = []
        self._study: optuna.Study | None = None
        plots, self.no_optim_plots = not self.no_optim_plots, True
        with warnings.catch_warnings():
            # Optuna calls heartbeats, and plots by matplotlib, experimental
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            with opened_for_search(self.storage) as self._database:
                with exchanged("optuna:create_study", self._create_study):
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
            # The zoo asks for the best of them
            if self._study is None or self._study.get_trials(states=(TrialState.COMPLETE,)):
                raise
            for reason in self._errors:
                raise reason from None
            if self._signals.received is not None:
                raise KeyboardInterrupt from None
            n_trials = len(self._study.trials)
            raise ValueError(
                f"none of the {n_trials} trials of study {self._study.study_name!r} was completed: raise --n-trials, give the "
                "entry other hyperparameters to begin with, or look above at what the pruned ones say"
            ) from error

    def _create_study(self, load_if_exists: bool, storage: BaseStorage | None, **kwargs: Any) -> optuna.Study:
        """What the zoo takes for ``optuna.create_study``."""
        study, is_new = create_or_load(storage=self._database or storage, **kwargs)
        self._study = study
        # Each for itself: the sampler asks for it in the first trial
        study.set_user_attr("policy", str(self._hyperparams.get("policy")))
        entry = {**self._saved, **({"env_kwargs": self.env_kwargs} if self.env_kwargs else {})}
        begun = StudyOrigin(self.algo, self.env_name.gym_id, as_json(entry), list(self.args.gym_packages))
        if is_new:
            begun.note(study)
            if self.algo == DEFAULT_ALGORITHM:
                self._enqueue_entry(study)
        else:
            begun.check_same(study)
        return study

    def _enqueue_entry(self, study: optuna.Study) -> None:
        defaults = {name: parameter.default for name, parameter in inspect.signature(VPG).parameters.items()}
        hyperparams = {**defaults, "policy_kwargs": None, **self._hyperparams}
        params = params_of(hyperparams, self.n_envs, self.n_actions)
        if params is None:
            # No point of the space, so that the sampler learns nothing from it
            study.enqueue_trial({}, user_attrs={AS_IT_STANDS: True})
        else:
            study.enqueue_trial(params)
