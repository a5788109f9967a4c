"""Comparisons on a Ray cluster give the same scores, also if a worker is killed."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sb3_vpg.compare.api import compare
from sb3_vpg.compare.runs.records import RECORDS, read
from sb3_vpg.zoo.cli import main

ray = pytest.importorskip("ray")
pytestmark = [
    pytest.mark.expensive,
    # Ray leaves its sockets and processes to the garbage collector, and warns of its own changes
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning:ray.*"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
FEW = {"n_evaluations": 2, "eval_episodes": 2, "final_episodes": 3}

MARK = "SB3_VPG_TEST_OF_RAY"
"""Environment variable that marks the processes of a test: other tests may compare at the same time."""


@pytest.fixture(autouse=True)
def _normal_priority(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray gives its workers a low priority, so other tests would take nearly all CPU time."""
    monkeypatch.setenv("RAY_worker_niceness", "0")


def processes(words: str) -> Iterator[int]:
    """:return: the process ids of the marked processes whose command contains some words"""
    mark = f"{MARK}={os.environ[MARK]}".encode()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            matches = words in path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if matches and mark in path.with_name("environ").read_bytes().split(b"\0"):
                yield int(path.parent.name)
        except OSError:
            continue


@pytest.mark.processes
@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_a_worker_that_dies_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another worker runs its task, and the scores are those of processes on this machine."""
    monkeypatch.setenv(MARK, str(tmp_path))
    killed: list[int] = []

    def kill_one() -> None:
        end = time.monotonic() + 120
        while not killed and time.monotonic() < end:
            # Only once a worker runs a task
            if any(processes("sb3_vpg.compare.runs.worker")):
                killed.extend(list(processes("ray::run_remote"))[:1])
            time.sleep(0.1)
        for pid in killed:
            os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill_one)
    killer.start()
    found = compare(["random_search"], ["CartPole-v1"], 2, 600, tmp_path / "ray", engine="ray", n_jobs=2, **FEW)
    killer.join()
    assert len(killed) == 1
    assert not found.failures
    assert len(found.records) == 2
    assert not any(processes("sb3_vpg.compare.runs.worker")), "a worker still runs after the comparison"
    for seed in (1, 2):
        assert (tmp_path / f"ray/random_search/CartPole-v1_{seed}/CartPole-v1.zip").is_file()
    local = compare(["random_search"], ["CartPole-v1"], 2, 600, tmp_path / "local", n_jobs=2, **FEW)
    assert [run.final_returns for run in found.records] == [run.final_returns for run in local.records]
    assert len(read(tmp_path / "ray" / RECORDS)) == 2


def test_the_output_of_a_run_that_fails_on_the_cluster_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1] / "support"))
    where = ["-n", "600", "-f", str(tmp_path), "--engine", "ray", "-j", "1", "--gym-packages", "breaking_env"]
    few = ["--n-evaluations", "2", "--eval-episodes", "2", "--final-episodes", "3"]
    assert main(["compare", "--algos", "random_search", "--envs", "Breaks-v0", "--seeds", "1", *where, *few]) == 1
    assert "the pole has broken" in (tmp_path / "output/random_search-Breaks-v0-0/log.txt").read_text()


def test_an_address_without_a_cluster_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["-n", "600", "-f", str(tmp_path), "--engine", "ray", "--address", "127.0.0.1:1"]
    assert main(["compare", "--algos", "random_search", "--envs", "CartPole-v1", "--seeds", "1", *where]) == 1
    assert "127.0.0.1:1" in capsys.readouterr().err
