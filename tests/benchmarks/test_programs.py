"""Every program of benchmarks/, examples/ and scripts/ starts, and its help has the command that starts it."""

import runpy
import sys
from pathlib import Path

import pytest

from sb3_vpg import VPG

ROOT = Path(__file__).parents[2]
PROGRAMS = [*(ROOT / "benchmarks").glob("*.py"), *(ROOT / "examples").glob("*_notebook.py"), ROOT / "scripts/train_agents.py"]


@pytest.fixture(autouse=True)
def _paths(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python finds the modules beside a program, as in ``python benchmarks/x.py``."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    monkeypatch.syspath_prepend(ROOT / "scripts")


@pytest.mark.parametrize("program", sorted(PROGRAMS), ids=lambda program: program.stem)
def test_the_help_has_the_command(program: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", [str(program), "--help"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(program), run_name="__main__")
    assert end.value.code == 0
    assert f"python {program.relative_to(ROOT).as_posix()}" in capsys.readouterr().out


def test_training_measures_methods_that_exist() -> None:
    phases = runpy.run_path(str(ROOT / "benchmarks/harness/phases.py"))["PHASES"]
    assert all(callable(getattr(VPG, name)) for name in phases.values())
