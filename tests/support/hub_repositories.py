"""Push an agent to a folder that replaces the hub, and load it from there."""

from pathlib import Path

import pytest

from sb3_vpg.zoo.cli import main

TRAIN = ["train", "--env", "CartPole-v1", "-n", "1500", "--eval-freq", "500", "--eval-episodes", "2", "--verbose", "0"]
NAME = "vpg-CartPole-v1"
# The zoo does not close its monitor files
LEAVES_FILES_OPEN = pytest.mark.filterwarnings(
    "ignore:Exception ignored in.*monitor.csv:pytest.PytestUnraisableExceptionWarning"
)


def train_and_push(folder: Path) -> None:
    """Train an agent on normalised observations in ``folder/logs`` and push it to ``folder/hub``."""
    assert main([*TRAIN, "--seed", "4", "-params", "normalize:True", "-f", str(folder / "logs")]) == 0
    assert main([*push(folder), "-n", "30", "--seed", "7"]) == 0


def push(folder: Path, organization: str = "me") -> list[str]:
    """Return the arguments that push the run of ``folder/logs`` to ``folder/hub``, without an ONNX file."""
    where = ["-f", str(folder / "logs"), "-orga", organization, "--local-hub", str(folder / "hub")]
    return ["push_to_hub", "--env", "CartPole-v1", "--n-eval-episodes", "4", "--no-onnx", *where]


def load(repository: Path, *flags: str, env_id: str = "CartPole-v1") -> int:
    """Load a repository into the folder ``logs`` beside its hub, and return the exit code."""
    logs = repository.parents[2] / "logs"
    where = ["-orga", "me", "-name", NAME, "--local-hub", str(repository.parents[1]), "-f", str(logs)]
    return main(["load_from_hub", "--env", env_id, *where, *flags])
