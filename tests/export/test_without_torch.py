"""The program of docs/export.md plays an exported agent where neither torch nor Stable-Baselines3 is installed."""

import os
import subprocess
from pathlib import Path

import pytest
from documentation import ROOT, items
from linked_environment import make_linked_environment

from sb3_vpg.zoo.agents.export_run import export_run
from sb3_vpg.zoo.package_data import shipped_folder


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a new environment with NumPy, onnxruntime and gymnasium."""
    folder = tmp_path_factory.mktemp("environment")
    return make_linked_environment(folder, ["numpy", "onnxruntime", "gymnasium"])


def run(python: Path, program: str, folder: Path) -> tuple[str, str]:
    """:return: what the program prints, and its errors"""
    # It would show packages of other folders
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [python, "-W", "error", "-c", program]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    return done.stdout, done.stderr


@pytest.mark.expensive
@pytest.mark.parametrize("name", ["torch", "stable_baselines3", "sb3_vpg", "onnx"])
def test_other_packages_cannot_be_imported(name: str, python: Path, tmp_path: Path) -> None:
    """Otherwise the next test would prove nothing."""
    assert f"No module named '{name}'" in run(python, f"import {name}", tmp_path)[1]


@pytest.mark.expensive
def test_the_program_of_the_page_plays_the_agent(python: Path, tmp_path: Path) -> None:
    """The agent that ships keeps the pole up for all 500 steps."""
    program = next(item.text for item in items(ROOT / "docs/export.md") if item.kind == "block")
    export_run(str(shipped_folder()), "vpg", "CartPole-v1", tmp_path / "cartpole.onnx", n_checked=50)
    assert run(python, program, tmp_path) == ("500.0\n", "")
