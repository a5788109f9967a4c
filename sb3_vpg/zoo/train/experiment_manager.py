"""The zoo's ``ExperimentManager`` with our hyperparameter files, checked input, resumed runs, and models saved on errors."""

import os
import shlex
import shutil
import sys
import tempfile
import threading
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from pprint import pprint
from typing import Any

import yaml
from rl_zoo3.exp_manager import ExperimentManager
from rl_zoo3.utils import get_latest_run_id
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import SubprocVecEnv, VecEnv

from sb3_vpg.checkpoints.callback import TrainingCheckpoint
from sb3_vpg.checkpoints.files import latest
from sb3_vpg.common.atomic_files import atomic_write
from sb3_vpg.normalization import has_statistics, load_vec_normalize
from sb3_vpg.on_policy_algorithm import LeanOnPolicyAlgorithm
from sb3_vpg.zoo.advice import PYTHON_CONF
from sb3_vpg.zoo.algorithms import ALGORITHMS
from sb3_vpg.zoo.hyperparams import own_file
from sb3_vpg.zoo.hyperparams_schema import WRITTEN_IN_PYTHON, check_entry, evaluated
from sb3_vpg.zoo.own_modules import check_classes, import_modules_of
from sb3_vpg.zoo.patching import patched, replaced
from sb3_vpg.zoo.safe_yaml import as_read_back, has_python_tag
from sb3_vpg.zoo.train.callbacks import TrainingStarted
from sb3_vpg.zoo.train.saved_run import SavedRun, checkpoint_folder, mark_finished, resume_command
from sb3_vpg.zoo.train.session import Session
from sb3_vpg.zoo.train.subproc import QuietSubprocVecEnv
from sb3_vpg.zoo.tuning.search_manager import SearchManager

# The jobs of a search are threads that create environments at the same time
_LOCK = threading.Lock()


class VPGExperimentManager(SearchManager):
    """
    Differs from the zoo's manager in these points, and in a search as its parent does:

    * without ``-conf``, the YAML files of our package are used where they say more than the zoo's: see ``own_file``;
    * evaluations in training use the ``env_kwargs`` of an entry;
    * with ``-i``, the modules of that agent's run are imported, and the statistics in its own file are used;
    * errors name the YAML file if it cannot be read, or if an entry has missing, unknown or unusable keys;
    * a refused training leaves no folder behind, which would count as the latest run;
    * VPG saves checkpoints; to resume a run, it continues in the folder of that run, with its hyperparameters;
    * a signal lets VPG finish its rollout; all files are written atomically;
    * if training fails, the model is saved as at the end of a run, and then the error is raised.

    :param session: the call of ``train``; other parameters: see ``ExperimentManager``
    """

    def __init__(self, args: Any, algo: str, *others: Any, session: Session, **kwargs: Any) -> None:
        super().__init__(args, algo, *others, **kwargs)
        self._session, self._signals = session, session.signals
        self._folder_made = self._started = self._finished_learning = False
        own = own_file(algo, self.env_name.gym_id)
        if kwargs.get("config") is None and own is not None:
            self.config = str(own)
        if session.folder is not None:
            self._use_folder(session.folder)
        elif session.exp_id is not None:
            self._use_folder(Path(self.log_path) / f"{self.env_name}_{session.exp_id}")
        if self.vec_env_class is SubprocVecEnv:
            self.vec_env_class = QuietSubprocVecEnv

    def _use_folder(self, folder: Path) -> None:
        self.save_path = str(folder)
        self.params_path = f"{folder}/{self.env_name}"

    def read_hyperparameters(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """:raises ValueError: if the file is not a YAML mapping, or if a key of the entry is missing or unknown"""
        run = self._session.run
        if run is None:
            hyperparams, saved = self._read_file()
        else:
            saved = self._read_run(run)
            hyperparams = dict(saved)
        if self.algo in ALGORITHMS:
            check_entry(self.config, self.algo, self.env_name.gym_id, hyperparams)
        if self._eval_env_kwargs_args is None and not self.env_kwargs:
            # The zoo ignores the env_kwargs of an entry here, and would evaluate in another environment
            self.eval_env_kwargs = hyperparams.get("env_kwargs") or {}
        return hyperparams, saved

    def _read_file(self) -> tuple[dict[str, Any], dict[str, Any]]:
        try:
            return super().read_hyperparameters()
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            if "tag:yaml.org,2002:python/" in str(error):
                raise ValueError(
                    f"{self.config} names a Python object, which is not supported in YAML ({error}); write it {PYTHON_CONF}"
                ) from error
            raise ValueError(f"{self.config} is not a readable YAML file: {error}") from error
        except (AttributeError, TypeError) as error:
            raise ValueError(f"{self.config} must map environment ids to hyperparameters ({error})") from error

    def _read_run(self, run: SavedRun) -> dict[str, Any]:
        """:return: the hyperparameters of a run; Python objects are not read from its files, but taken from the command"""
        saved = OrderedDict(run.hyperparams)
        objects = [key for key, value in saved.items() if has_python_tag(value)]
        current = self._current_hyperparams() if objects else {}
        for key in objects:
            if as_read_back(current.get(key)) != saved[key]:
                raise ValueError(
                    f"{run.folder} began with {key}: {saved[key]}, which is not read from a file: give the same -params again"
                )
            saved[key] = current[key]
        print(f"Hyperparameters of {run.folder}:")
        pprint(saved)
        return saved

    def _preprocess_hyperparams(self, hyperparams: dict[str, Any]) -> tuple[Any, ...]:
        """:raises ValueError: if Python cannot evaluate a value, or if a class cannot be imported"""
        where = f"{self.config}, or -params"
        check_classes(hyperparams, where)
        prepared: tuple[Any, ...] = super()._preprocess_hyperparams(evaluated(hyperparams, WRITTEN_IN_PYTHON, where))
        return prepared

    def _preprocess_schedules(self, hyperparams: dict[str, Any]) -> dict[str, Any]:  # type: ignore[override]  # static there
        """Our algorithms read ``"lin_0.001"`` themselves, and their errors name the key."""
        return hyperparams if self.algo in ALGORITHMS else ExperimentManager._preprocess_schedules(hyperparams)

    def _current_hyperparams(self) -> dict[str, Any]:
        """:return: the hyperparameters of a new run; if their file is gone, only those of ``-params``"""
        try:
            return self._read_file()[1]
        except (OSError, ImportError):
            return self.custom_hyperparams or {}

    def create_log_folder(self) -> None:
        if self.optimize_hyperparameters:
            # Nobody reads the files that a search writes here, and the workers of one study would share the folder
            self._use_folder(Path(tempfile.mkdtemp(prefix="sb3-vpg-optimize-")))
        elif self._session.folder is None:
            self._make_folder()
            if self._checkpoint_freq > 0:
                self._session.claim(Path(self.save_path))
        self._folder_made = True
        super().create_log_folder()  # type: ignore[no-untyped-call]  # rl_zoo3 leaves it untyped

    def _make_folder(self) -> None:
        """Make the folder of a new run. If it exists, take the next number, or raise ValueError if the user chose one."""
        while True:
            try:
                os.makedirs(self.save_path)
                return
            except FileExistsError:
                if self._session.exp_id is not None:
                    raise ValueError(
                        f"{self.save_path} already exists: give another --exp-id, or --resume {self._session.exp_id}"
                    ) from None
                number = get_latest_run_id(self.log_path, self.env_name) + 1
                self._use_folder(Path(self.log_path) / f"{self.env_name}_{number}")

    @property
    def _checkpoint_freq(self) -> int:
        """:return: steps between checkpoints; 0 for none, as in a search and for all algorithms but VPG"""
        return getattr(self.args, "checkpoint_freq", 0)

    def create_callbacks(self) -> None:
        super().create_callbacks()  # type: ignore[no-untyped-call]  # rl_zoo3 leaves it untyped
        if self._checkpoint_freq > 0:
            folder = checkpoint_folder(Path(self.save_path))
            self.callbacks.append(
                TrainingCheckpoint(folder, self._checkpoint_freq, monitor_dir=self.save_path, verbose=self.verbose)
            )
        self.callbacks.insert(0, TrainingStarted(self._start, self.callbacks))

    def _start(self, model: BaseAlgorithm) -> None:
        """Training has started: from now on a failure saves the model, and a signal lets the rollout finish."""
        self._started = True
        if isinstance(model, LeanOnPolicyAlgorithm):
            self._signals.on_signal = model.request_stop

    def create_envs(self, n_envs: int, eval_env: bool = False, no_log: bool = False) -> VecEnv:
        """See the parent. ``_make_vec_env`` takes the place of SB3's function."""
        with _LOCK, patched("rl_zoo3.exp_manager:make_vec_env", self._make_vec_env):
            return super().create_envs(n_envs, eval_env, no_log)

    def _make_vec_env(self, *args: Any, **kwargs: Any) -> VecEnv:
        """Call SB3's function, but keep the Monitor files of a resumed run, which ``TrainingCheckpoint`` shortens."""
        run = self._session.run
        if run is not None and run.has_checkpoint:
            kwargs["monitor_kwargs"] = {**(kwargs.get("monitor_kwargs") or {}), "override_existing": False}
        return self.build_vec_env(*args, **kwargs)

    def build_vec_env(self, *args: Any, **kwargs: Any) -> VecEnv:
        """Call SB3's function; a subclass may build other environments."""
        return make_vec_env(*args, **kwargs)

    def _maybe_normalize(self, env: VecEnv, eval_env: bool) -> VecEnv:
        """See the parent. If the ``-i`` agent holds its own statistics, use them, not those at the end of its run."""
        if not (self.normalize and self.trained_agent and has_statistics(self.trained_agent)):
            return super()._maybe_normalize(env, eval_env)
        normalized = load_vec_normalize(self.trained_agent, env)
        if eval_env:
            normalized.training = normalized.norm_reward = False
        return normalized

    def _load_pretrained_agent(self, hyperparams: dict[str, Any], env: VecEnv) -> BaseAlgorithm:
        run = Path(self.trained_agent).parent
        usual = run / self.env_name
        # The agent may have been trained in an environment of another name
        for settings in [usual] if usual.is_dir() else [file.parent for file in run.glob("*/config.yml")]:
            import_modules_of(settings)
        return super()._load_pretrained_agent(hyperparams, env)

    def setup_experiment(self) -> tuple[BaseAlgorithm, dict[str, Any]] | None:
        """See the parent. If there is no run, because of an error or in a search, remove its folder."""
        results = None
        try:
            results = super().setup_experiment()
        finally:
            if results is None and self._folder_made and not any(Path(self.save_path).glob("*/args.yml")):
                shutil.rmtree(self.save_path, ignore_errors=True)
        return results

    def _save_config(self, saved_hyperparams: dict[str, Any]) -> None:
        """Keep the settings of a resumed run; else write ``args.yml`` last, which shows that the other files exist."""
        if self._session.run is not None:
            command = Path(self.params_path) / "command.txt"
            before = command.read_text() if command.is_file() else ""
            with atomic_write(command) as file:
                file.write(f"{before}\n{shlex.join(sys.orig_argv)}".encode())
            print(f"Log path: {self.save_path}")
            return
        with tempfile.TemporaryDirectory() as folder:
            with replaced(self, "params_path", folder):
                super()._save_config(saved_hyperparams)
            (Path(folder) / "command.txt").write_text(shlex.join(sys.orig_argv))
            for name in ("config.yml", "command.txt", "args.yml"):
                with atomic_write(Path(self.params_path) / name) as file:
                    file.write((Path(folder) / name).read_bytes())

    def learn(self, model: BaseAlgorithm) -> None:
        """
        Train. If that fails, save the model before the error is raised.

        :raises KeyboardInterrupt: if a signal was received before training started
        """
        signals = self._signals
        try:
            super().learn(model)
            self._finished_learning = True
        except Exception as error:
            # A signal to all processes of a job also ends the workers of a SubprocVecEnv: then the run was stopped, not failed
            if signals.received is None or not isinstance(error.__cause__, (EOFError, ConnectionError)):
                if self._started:
                    self.save_trained_model(model)
                raise
        finally:
            signals.on_signal = None
        if not self._started and signals.received is not None:
            raise KeyboardInterrupt

    def save_trained_model(self, model: BaseAlgorithm) -> None:
        """Save as the zoo does, but in another order: the last file says that the run is complete."""
        # The reader of our output may be gone, but the files must be written
        with suppress(BrokenPipeError):
            print(f"Saving to {self.save_path}")
        if self.normalize:
            normalizer = model.get_vec_normalize_env()
            assert normalizer is not None
            normalizer.save(os.path.join(self.params_path, "vecnormalize.pkl"))
        if isinstance(model, OffPolicyAlgorithm) and self.save_replay_buffer:
            with suppress(BrokenPipeError):
                print("Saving replay buffer")
            model.save_replay_buffer(os.path.join(self.save_path, "replay_buffer.pkl"))
        model.save(f"{self.save_path}/{self.env_name}")
        self._finish_run(model)

    def _finish_run(self, model: BaseAlgorithm) -> None:
        """Mark a complete run; of a stopped one, print how to resume it."""
        received = self._signals.received
        complete = self._finished_learning and (received is None or model.num_timesteps >= self.n_timesteps)
        if complete and self._checkpoint_freq > 0:
            mark_finished(Path(self.params_path), model.num_timesteps, self.n_timesteps)
        if received is None or complete:
            return
        advice = ""
        if self._checkpoint_freq > 0:
            run = Path(self.save_path)
            what = "Continue" if latest(checkpoint_folder(run)) else "Begin again"
            advice = f" {what} with: {resume_command(run, self.log_folder, self.algo, self.env_name.gym_id)}"
        print(f"Stopped by {received.name} after {model.num_timesteps:,} of {self.n_timesteps:,} steps.{advice}")
