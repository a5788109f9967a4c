"""What a user installs: the wheel holds what it should, and works where no checkout is near."""

import subprocess
import sys
import venv
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

import sb3_vpg

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(ROOT)], check=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """:return: the folder of the programs of an environment that holds the wheel and what it asks for, nothing else"""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    programs = folder / ("Scripts" if sys.platform == "win32" else "bin")
    install = [programs / "python", "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt", wheel]
    subprocess.run(install, check=True)
    return programs


def test_the_installed_version_is_the_one_in_the_code() -> None:
    assert version("sb3-vpg") == sb3_vpg.__version__


@pytest.mark.expensive
def test_the_wheel_carries_hyperparameters_and_agents_and_no_tests(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for needed in ("sb3_vpg/hyperparams/vpg.yml", "sb3_vpg/py.typed", "sb3_vpg/zoo/cli.py"):
        assert needed in names
    agents = ROOT / "trained_agents"
    shipped = {f"sb3_vpg/trained_agents/{file.relative_to(agents).as_posix()}" for file in agents.rglob("*") if file.is_file()}
    assert {name for name in names if name.startswith("sb3_vpg/trained_agents/")} == shipped
    assert "sb3_vpg/trained_agents/vpg/CartPole-v1_1/CartPole-v1.zip" in shipped
    assert {name.split("/")[0] for name in names} == {"sb3_vpg", f"sb3_vpg-{sb3_vpg.__version__}.dist-info"}


@pytest.mark.expensive
def test_the_wheel_alone_gives_a_command_line_that_trains(installed: Path, tmp_path: Path) -> None:
    def run(*arguments: str) -> str:
        command = [installed / "sb3-vpg", *arguments]
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    assert run("--version").startswith(f"sb3-vpg {sb3_vpg.__version__}")
    assert "ships, " in run("enjoy", "--env", "CartPole-v1", "--no-render", "-n", "20"), "before any training"
    assert "site-packages" in run("train", "--env", "CartPole-v1", "-n", "600", "--eval-freq", "-1"), "not the checkout's file"
    assert (tmp_path / "logs/vpg/CartPole-v1_1/CartPole-v1.zip").is_file()
    assert "Return over 2 episodes" in run("evaluate", "--env", "CartPole-v1", "-n", "2")
    run("enjoy", "--env", "CartPole-v1", "--no-render", "-n", "20")
    run("record_video", "--env", "CartPole-v1", "-n", "20")
    run("plot_train", "-e", "CartPole-v1", "-f", "logs", "--savefig", "curve.png")
    run(
        "optimize",
        "--env",
        "CartPole-v1",
        "--n-trials",
        "1",
        "-n",
        "600",
        "--storage",
        "sqlite:///study.db",
        "--study-name",
        "s",
    )
