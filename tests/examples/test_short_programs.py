"""The short programs of examples/ run, and print what they promise."""

import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
SMALL: dict[str, tuple[dict[str, Any], str]] = {
    "quickstart": ({"total_timesteps": 512}, "Return over 20 episodes"),
    "custom_policy": ({"total_timesteps": 512}, "Polynomials"),
    "custom_environment": ({}, "At -0.8: right"),
    "callbacks_and_tensorboard": ({"total_timesteps": 10_240}, "Best mean return of an evaluation"),
    "vec_normalize": ({"total_timesteps": 1024}, "random actions: about -1200"),
    "images_and_dicts": ({"total_timesteps": 128}, "MultiInputPolicy: reward"),
    "baselines": ({"total_timesteps": 512}, "leave_one_out: return"),
    "vector_environment": ({"total_timesteps": 8192}, "256 environments: "),
    "several_processes": ({"total_timesteps": 2048}, "after 2048 steps of 1 processes"),
    "resume_training": ({"total_timesteps": 2048}, "Trained for 2048 steps"),
    "safe_loading": ({"total_timesteps": 512}, "Refused: "),
    "compare_algorithms": ({"total_timesteps": 512, "seeds": 1}, "a2c: normalised returns"),
}
"""Arguments of ``main`` for a short run, and a part of the output."""
LONG = ("reinforce_notebook", "random_weights_notebook")


@pytest.fixture(autouse=True)
def _folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python finds the examples, which run in an empty folder."""
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", SMALL)
def test_the_example_runs(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each example runs and prints its result."""
    kwargs, printed = SMALL[name]
    import_module(name).main(**kwargs)
    assert printed in capsys.readouterr().out


def test_the_resumed_example_trains_only_the_missing_steps(capsys: pytest.CaptureFixture[str]) -> None:
    """The second start of a complete run trains nothing."""
    for _ in range(2):
        import_module("resume_training").main(total_timesteps=2048)
    first, second = capsys.readouterr().out.split("Resuming after 2048 steps\n")
    assert first == "Starting\nTrained for 2048 steps\n"
    assert second.startswith("Training is complete")


def test_two_processes_print_the_result_of_one(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Started by torchrun, one of them prints, and the return is that of a single process."""
    import_module("several_processes").main(8192)
    alone = re.fullmatch(r"Return over 20 episodes: ([\d.]+), after (8192 steps) of 1 processes\n", capsys.readouterr().out)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([*sys.path, str(EXAMPLES)]))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]
    command = [*torchrun, sys.executable, "-c", "import several_processes; several_processes.main(8192, 'logs/two')"]
    printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    both = re.fullmatch(r"Return over 20 episodes: ([\d.]+), after (8192 steps) of 2 processes\n", printed)
    assert both is not None
    assert alone is not None
    assert both[2] == alone[2]
    # Rounding of sums could change an action at the end of a long episode
    assert float(both[1]) == pytest.approx(float(alone[1]), rel=0.02)


def test_every_example_is_tested_and_names_its_command() -> None:
    """The first lines of an example have the command that starts it."""
    assert sorted(path.stem for path in EXAMPLES.glob("*.py")) == sorted([*SMALL, *LONG])
    for name in SMALL:
        assert f"python examples/{name}.py" in (EXAMPLES / f"{name}.py").read_text()
