"""The files of a run's checkpoints."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sb3_vpg.checkpoints.training_state import PARTS
from sb3_vpg.exceptions import RefusedFileError
from sb3_vpg.persistence.archives import DATA, TRAINING, best_member, read_archive
from sb3_vpg.persistence.class_names import with_current_names
from sb3_vpg.persistence.json_codec import decode
from sb3_vpg.persistence.memory_limit import loads
from sb3_vpg.persistence.unpacking import weights_of

_NAME = re.compile(r"checkpoint_(\d+)_steps\.zip")


@dataclass(frozen=True)
class Checkpoint:
    """
    :param path: its file
    :param data: settings and counters of the model, encoded
    :param weights: state dicts
    :param state: what ``training_state`` has returned
    :param best: contents of the best models
    """

    path: Path
    data: dict[str, Any]
    weights: dict[str, Any]
    state: dict[str, Any]
    best: list[bytes]

    @property
    def num_timesteps(self) -> int:
        return int(self.state["num_timesteps"])

    @property
    def total_timesteps(self) -> int:
        return int(self.state["total_timesteps"])

    @staticmethod
    def read(path: Path, trust: bool = False) -> "Checkpoint":
        """
        :param trust: as in ``VPG.load``
        :raises RefusedFileError: if it is damaged, or no checkpoint
        :raises OSError: if it cannot be read
        """
        members = read_archive(path, trust)
        if TRAINING not in members:
            raise RefusedFileError(f"{path} is a model, but no checkpoint: it does not say how training goes on")
        weights = weights_of(members, str(path), trust)
        try:
            data, state = with_current_names(loads(members[DATA])), decode(loads(members[TRAINING]))
            best = [members[best_member(index)] for index in range(len(state["best_models"]))]
            checkpoint = Checkpoint(path, data, weights, state, best)
            if not state.keys() >= PARTS:
                raise ValueError(f"it lacks {sorted(PARTS - state.keys())}")
            if checkpoint.num_timesteps < 0 or checkpoint.total_timesteps <= 0:
                raise ValueError(f"its counters say {checkpoint.num_timesteps} of {checkpoint.total_timesteps} steps")
            if not isinstance(data, dict):
                raise ValueError(f"its settings are a {type(data).__name__}")
        except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
            raise RefusedFileError(f"{path} is no whole checkpoint: {type(error).__name__}: {error}") from error
        return checkpoint


def latest(save_path: str | Path) -> Path | None:
    """:return: the newest checkpoint in a folder, without a look into it; None: there is none"""
    return next(reversed(_checkpoints(Path(save_path))), None)


def progress(path: str | Path) -> tuple[int, int]:
    """
    :return: environment steps that a checkpoint has behind it, and the total that was asked for
    :raises RefusedFileError: if it is damaged, or no checkpoint
    """
    checkpoint = Checkpoint.read(Path(path))
    return checkpoint.num_timesteps, checkpoint.total_timesteps


def _steps(path: Path) -> int:
    match = _NAME.fullmatch(path.name)
    return int(match.group(1)) if match else -1


def _checkpoints(folder: Path) -> list[Path]:
    """:return: the oldest first"""
    return sorted((path for path in folder.glob("checkpoint_*_steps.zip") if _steps(path) >= 0), key=_steps)
