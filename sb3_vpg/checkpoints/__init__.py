"""Checkpoints from which training resumes exactly."""

from sb3_vpg.checkpoints.callback import TrainingCheckpoint
from sb3_vpg.checkpoints.files import latest, progress

__all__ = ["TrainingCheckpoint", "latest", "progress"]
