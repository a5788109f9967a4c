"""Flags that several commands share, and facts that exactly one module of the package states."""

import argparse
import re
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import SimpleNamespace

import gymnasium as gym
import pytest
from rl_zoo3 import ALGOS
from stable_baselines3 import PPO

import sb3_vpg
from sb3_vpg.zoo import algorithms
from sb3_vpg.zoo.cli import main
from sb3_vpg.zoo.flags import non_negative, positive
from sb3_vpg.zoo.thresholds import reward_threshold, scale_threshold

PACKAGE = Path(sb3_vpg.__file__).parent
OWNERS = {
    "--gym-packages": (r'"--gym-packages", nargs', {"zoo/flags.py"}),
    "types of flags": (r"ArgumentTypeError\(f?\"must be at least", {"zoo/flags.py"}),
    "versions": (r"importlib\.metadata|python_version\(", {"common/system_info.py"}),
    "thresholds": (r"spec\(.*\)\.reward_threshold", {"zoo/thresholds.py"}),
}


@pytest.mark.parametrize("fact", OWNERS)
def test_a_fact_is_stated_in_one_module(fact: str) -> None:
    pattern, owners = OWNERS[fact]
    files = (file for file in PACKAGE.rglob("*.py") if re.search(pattern, file.read_text(encoding="utf-8")))
    assert {file.relative_to(PACKAGE).as_posix() for file in files} == owners


def test_modules_of_gym_packages_are_imported_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "registers_nothing.py").touch()
    assert main(["evaluate", "-f", str(tmp_path), "--gym-packages", "registers_nothing", "nowhere_envs"]) == 1
    assert sys.modules.pop("registers_nothing").__file__ == str(tmp_path / "registers_nothing.py")
    assert "No module named 'nowhere_envs'" in capsys.readouterr().err


def test_numbers_that_are_too_small_are_refused() -> None:
    assert (non_negative("0"), positive("1")) == (0, 1)
    with pytest.raises(argparse.ArgumentTypeError, match="must be at least 0, but is -1"):
        non_negative("-1")
    with pytest.raises(argparse.ArgumentTypeError, match="must be at least 1, but is 0"):
        positive("0")


@pytest.mark.parametrize(
    "source", [None, "ALGOS = {}", "ALGOS: dict = {**others, name: 3}"], ids=["rl_zoo3", "other", "computed"]
)
def test_the_names_of_all_algorithms(source: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are read from the source of the installed rl_zoo3; if it has another form, rl_zoo3 is imported."""
    monkeypatch.setattr(algorithms, "sys", SimpleNamespace(modules={}))
    if source is not None:
        (tmp_path / "utils.py").write_text(source)
        spec = ModuleSpec("rl_zoo3", None, origin=str(tmp_path / "__init__.py"))
        monkeypatch.setattr(algorithms, "find_spec", lambda name: spec)
    zoo = [name for name in ALGOS if name not in algorithms.ADDED_ALGORITHMS]
    assert len(zoo) > 10
    assert algorithms.algorithm_names() == [*zoo, *algorithms.ADDED_ALGORITHMS]


def test_algorithms_that_a_program_has_added_are_choices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ALGOS, "my_ppo", PPO)
    assert "my_ppo" in algorithms.algorithm_names()


def test_thresholds() -> None:
    """A registered threshold comes first; ours are for scores only, and solve nothing."""
    assert (reward_threshold("CartPole-v1"), scale_threshold("CartPole-v1")) == (475, (475, "the task's own"))
    assert (reward_threshold("Pendulum-v1"), scale_threshold("Pendulum-v1")) == (None, (-200, "stated by sb3-vpg"))
    assert (reward_threshold("Blackjack-v1"), scale_threshold("Blackjack-v1")) == (None, None)


@pytest.mark.skipif("Taxi-v4" not in gym.registry, reason="gymnasium has it from 1.3 on")
def test_a_threshold_out_of_reach_is_a_scale_only() -> None:
    assert (reward_threshold("Taxi-v4"), scale_threshold("Taxi-v4")) == (None, (8, "the task's own"))
