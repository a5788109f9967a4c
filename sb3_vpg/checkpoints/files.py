"""The checkpoint files of a run."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sb3_vpg.checkpoints.training_state import REQUIRED_KEYS
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
    The content of a checkpoint file.

    :param path: the file
    :param data: settings and counters of the model, encoded
    :param weights: state dicts
    :param state: as ``training_state`` returned it
    :param best: file contents of the best models
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
        :raises RefusedFileError: if the file is damaged or is no checkpoint
        :raises OSError: if the file cannot be read
        """
        members = read_archive(path, trust)
        if TRAINING not in members:
            raise RefusedFileError(f"{path} is a model but no checkpoint: it has no member {TRAINING!r}")
        weights = weights_of(members, str(path), trust)
        try:
            data, state = with_current_names(loads(members[DATA])), decode(loads(members[TRAINING]))
            best = [members[best_member(index)] for index in range(len(state["best_models"]))]
            checkpoint = Checkpoint(path, data, weights, state, best)
            if not state.keys() >= REQUIRED_KEYS:
                raise ValueError(f"{sorted(REQUIRED_KEYS - state.keys())} are missing")
            if checkpoint.num_timesteps < 0 or checkpoint.total_timesteps <= 0:
                raise ValueError(f"its counters are {checkpoint.num_timesteps} of {checkpoint.total_timesteps} steps")
            if not isinstance(data, dict):
                raise ValueError(f"its settings are a {type(data).__name__}")
        except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
            raise RefusedFileError(f"{path} is no complete checkpoint: {type(error).__name__}: {error}") from error
        return checkpoint


def latest(save_path: str | Path) -> Path | None:
    """:return: the newest checkpoint in a folder, which is not opened; None if there is none"""
    return next(reversed(checkpoints_in(Path(save_path))), None)


def progress(path: str | Path) -> tuple[int, int]:
    """
    :return: environment steps done at this checkpoint, and ``total_timesteps`` of its run
    :raises RefusedFileError: if the file is damaged or is no checkpoint
    """
    checkpoint = Checkpoint.read(Path(path))
    return checkpoint.num_timesteps, checkpoint.total_timesteps


def steps_of(path: Path) -> int:
    """:return: the number of environment steps in the name of a checkpoint; -1 for other names"""
    match = _NAME.fullmatch(path.name)
    return int(match.group(1)) if match else -1


def checkpoints_in(folder: Path) -> list[Path]:
    """:return: the checkpoints in a folder, the oldest first"""
    return sorted((path for path in folder.glob("checkpoint_*_steps.zip") if steps_of(path) >= 0), key=steps_of)
