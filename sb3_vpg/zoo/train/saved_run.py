"""The folder of a run that ``train`` began: find it, and read its settings and its state."""

from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from huggingface_sb3 import EnvironmentName
from rl_zoo3.utils import get_latest_run_id

from sb3_vpg.checkpoints.files import latest
from sb3_vpg.common.atomic_files import atomic_write, remove_partial_files
from sb3_vpg.zoo.advice import command_line
from sb3_vpg.zoo.safe_yaml import read_yaml

_FINISHED = "finished.txt"
_WRITTEN_BY_TRAINING = ("*.monitor.csv", "evaluations.npz", "best_model.zip", "rl_model_*_steps.*", "replay_buffer.pkl")


def checkpoint_folder(run: Path) -> Path:
    """:return: the folder of ``TrainingCheckpoint``'s files"""
    return run / "checkpoints"


def find_run(name: str, log_folder: str, algo: str, env_id: str) -> Path:
    """
    :param name: number or folder of a run; empty for the latest
    :param log_folder: the ``-f`` of ``train``
    :return: the folder of the run
    :raises ValueError: if there is no such run
    """
    runs, env_name = Path(log_folder) / algo, EnvironmentName(env_id)
    if name and not name.isdigit():
        run = Path(name)
    else:
        number = int(name) if name else get_latest_run_id(str(runs), env_name)
        if number == 0:
            raise ValueError(
                f"no run of {algo} on {env_id} in {runs} to resume; begin one without --resume, or name the folder of a run "
                "(for example one with --uuid): --resume FOLDER"
            )
        run = runs / f"{env_name}_{number}"
    if not run.is_dir():
        raise ValueError(f"{run} is not the folder of a run; nothing to resume")
    return run


@dataclass(frozen=True)
class SavedRun:
    """
    :param folder: folder of the run
    :param settings: folder of its ``args.yml`` and ``config.yml``
    :param args: content of ``args.yml``
    :param hyperparams: content of ``config.yml``
    """

    folder: Path
    settings: Path
    args: dict[str, Any]
    hyperparams: dict[str, Any]

    @staticmethod
    def read(folder: Path) -> "SavedRun | None":
        """
        :return: the run; None if it was killed before it wrote its settings, which are its first files
        :raises ValueError: if the folder does not hold a run of ours that can be resumed
        """
        files = list(folder.glob("*/args.yml"))
        if not files and not any(folder.rglob("*.zip")):
            return None
        if len(files) != 1:
            raise ValueError(f"{folder} has {len(files)} args.yml in its subfolders, but a run has one; nothing to resume")
        settings = files[0].parent
        args = read_yaml(files[0])
        if not args.get("checkpoint_freq"):
            why = "--checkpoint-freq 0" if "checkpoint_freq" in args else f"{args.get('algo')} without checkpoints"
            raise ValueError(f"{folder} was trained with {why}: there is nothing to resume. Begin a new run without --resume")
        return SavedRun(folder, settings, args, read_yaml(settings / "config.yml"))

    @property
    def finished(self) -> str | None:
        """:return: the number of steps as text if the run is complete, else None"""
        file = self.settings / _FINISHED
        return file.read_text().strip() if file.is_file() else None

    @property
    def has_checkpoint(self) -> bool:
        """:return: True if there is a checkpoint to resume from"""
        return latest(checkpoint_folder(self.folder)) is not None

    def set_aside(self) -> Path | None:
        """
        Move what training wrote, but not the settings, so that the run can begin again.

        :return: the folder that it is moved to; None if training wrote nothing
        """
        name = self.settings.name
        patterns = (*_WRITTEN_BY_TRAINING, f"{name}.zip", f"{name}/vecnormalize.pkl")
        files = [file for pattern in patterns for file in self.folder.glob(pattern)]
        if not files:
            return None
        place = next(place for number in count(1) if not (place := self.folder / f"interrupted_{number}").exists())
        place.mkdir()
        for file in files:
            file.rename(place / file.name)
        return place

    def tidy(self) -> None:
        """Remove partial files of a killed process."""
        for folder in (self.folder, self.settings):
            remove_partial_files(folder)


def resume_command(run: Path, log_folder: str, algo: str, env_id: str) -> str:
    """:return: the command that resumes a run"""
    runs, env_name = Path(log_folder) / algo, EnvironmentName(env_id)
    number = run.name.removeprefix(f"{env_name}_")
    if run.parent != runs or not number.isdigit():
        return command_line("train", algo, env_id, "--resume", str(run))
    name = [] if int(number) == get_latest_run_id(str(runs), env_name) else [number]
    return command_line("train", algo, env_id, "--resume", *name, folder=log_folder)


def mark_finished(settings: Path, num_timesteps: int, total: int) -> None:
    """Write the last file of a run, which says that the run is complete."""
    with atomic_write(settings / _FINISHED) as file:
        file.write(f"{num_timesteps:,} of {total:,} steps\n".encode())
