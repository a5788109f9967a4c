"""Comparisons with real runs: they are ordinary runs of the zoo, none is done twice or lost, and failures are named."""

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sb3_vpg.common.locks import claimed
from sb3_vpg.compare.api import compare
from sb3_vpg.compare.runs.records import RECORDS, read
from sb3_vpg.compare.runs.worker import train_flags
from sb3_vpg.zoo.cli import main

ALGOS, ENV = ["vpg", "random_search"], "CartPole-v1"
FEW = {"n_evaluations": 2, "eval_episodes": 2, "final_episodes": 3}
FLAGS = ["--n-evaluations", "2", "--eval-episodes", "2", "--final-episodes", "3"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The log folder of a comparison of two algorithms with two seeds."""
    path = tmp_path_factory.mktemp("comparison")
    found = compare(ALGOS, [ENV], 2, 600, path, n_jobs=2, **FEW)
    assert len(found.records) == 4
    assert not found.failures
    return path


def weights(folder: Path, run: str) -> bytes:
    with zipfile.ZipFile(folder / run / f"{ENV}.zip") as archive:
        return archive.read("policy.pth")


def test_a_run_has_the_weights_that_train_makes(folder: Path, tmp_path: Path) -> None:
    task = next(record.task for record in read(folder / RECORDS) if record.task.name == "vpg-CartPole-v1-1")
    assert main(train_flags(task, tmp_path)) == 0
    assert weights(folder, "vpg/CartPole-v1_2") == weights(tmp_path, "vpg/CartPole-v1_1")
    assert sorted(run.name for run in (folder / "vpg").iterdir()) == ["CartPole-v1_1", "CartPole-v1_2"]


def test_records_have_the_returns_that_evaluate_prints(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for record in read(folder / RECORDS):
        with np.load(record.task.run_folder(folder) / "evaluations.npz") as arrays:
            assert record.mean_returns == arrays["results"].mean(axis=1).tolist()
        assert record.cpu_seconds > 0
        assert record.num_timesteps >= 600 or record.task.algo == "random_search"
        algo, number = record.task.algo, str(record.task.exp_id)
        flags = ["-f", str(folder), "--exp-id", number, "-n", "3", "--seed", "1000000", "--device", "cpu"]
        assert main(["evaluate", "--algo", algo, "--env", ENV, *flags]) == 0
        assert f"mean {np.mean(record.final_returns):.1f}" in capsys.readouterr().out


def test_the_zoos_plots_read_the_runs(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """RandomSearch may stop before its last evaluations; the zoo's second program leaves those out."""
    monkeypatch.chdir(tmp_path)
    where = ["-a", "vpg", "-e", ENV, "-f", str(folder), "-o", "saved", "--savefig", "all.png"]
    assert main(["all_plots", *where]) == 0
    assert main(["plot_from_file", "-i", "saved", "--savefig", "from_file.png"]) == 0
    assert (tmp_path / "all.png").stat().st_size > 5000


def test_finished_runs_are_not_run_again(folder: Path) -> None:
    """Only the run whose record was cut off is done again."""
    file = folder / RECORDS
    *others, last = read(file)
    models = {path: path.stat().st_mtime_ns for path in folder.glob(f"*/*/{ENV}.zip")}
    file.write_bytes(file.read_bytes()[:-20])
    found = compare(ALGOS, [ENV], 2, 600, folder, n_jobs=1, **FEW)
    assert len(found.records) == 4
    call = "sb3_vpg.compare.compare(['vpg', 'random_search'], ['CartPole-v1'], [0, 1], 600, n_evaluations=2, eval_episodes=2"
    assert call in (folder / "report/report.md").read_text()
    assert read(file)[:-1] == others
    assert read(file)[-1].final_returns == last.final_returns, "the same seed"
    changed = {path for path, before in models.items() if path.stat().st_mtime_ns != before}
    assert changed <= {last.task.run_folder(folder) / f"{ENV}.zip"}


def test_a_fresh_clone_goes_on_from_the_records_alone(folder: Path, tmp_path: Path) -> None:
    """Runs take gigabytes and are not committed: nothing else of the comparison is needed."""
    *others, last = (folder / RECORDS).read_text().splitlines(keepends=True)
    (tmp_path / RECORDS).write_text("".join(others))
    before = read(tmp_path / RECORDS)
    found = compare(ALGOS, [ENV], 2, 600, tmp_path, n_jobs=1, **FEW)
    assert len(found.records) == 4
    done = read(tmp_path / RECORDS)
    assert done[:-1] == before
    assert done[-1].final_returns == json.loads(last)["final_returns"]
    assert [run for run in tmp_path.glob("*/*") if (run / f"{ENV}.zip").exists()] == [done[-1].task.run_folder(tmp_path)]


def test_other_settings_are_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="n_timesteps 600, not 700"):
        compare(ALGOS, [ENV], 2, 700, folder, **FEW)


def test_a_report_names_missing_runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With ``--report-only`` nothing runs, and the report names the runs that are missing."""
    flags = ["--algos", *ALGOS, "--envs", ENV, "--seeds", "3", "-n", "600", "-f", str(folder), *FLAGS, "--report-only"]
    assert main(["compare", *flags]) == 0
    assert "4 of 6 runs finished" in capsys.readouterr().out
    assert "2 runs not finished yet: vpg-CartPole-v1-2" in (folder / "report/report.md").read_text()


def test_a_run_that_fails_is_named_and_the_others_finish(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The workers import the module from this process's ``sys.path``; the environment variable does not have it."""
    flags = ["--envs", "Breaks-v0", ENV, "--seeds", "1", "-n", "600", "-f", str(tmp_path), "--gym-packages", "breaking_env"]
    assert main(["compare", "--algos", "random_search", *flags, "-j", "2", *FLAGS]) == 1
    printed, message = capsys.readouterr()
    assert "default hyperparameters, which are not tuned: random_search on Breaks-v0\n" in printed, "CartPole-v1 has its own"
    log = tmp_path / "output/random_search-Breaks-v0-0/log.txt"
    assert "1 run failed: random_search-Breaks-v0-0" in message
    assert str(log) in message
    assert "the pole has broken" in message
    assert "the pole has broken" in log.read_text()
    assert [record.task.env_id for record in read(tmp_path / RECORDS)] == [ENV]
    for _ in range(2):
        twin = (tmp_path / "report/report.md").read_text()
        assert "1 of 2 runs are finished" in twin
        assert "the pole has broken" in twin
        # A report that is made again names the failure again
        assert main(["compare", "--algos", "random_search", *flags, *FLAGS, "--report-only"]) == 1


def test_a_comparison_that_was_killed_resumes_its_runs(tmp_path: Path) -> None:
    """SIGKILL also ends its workers; the same command then resumes their runs."""
    words = ["compare", "--algos", "vpg", "--envs", ENV, "--seeds", "1", "-n", "30000", "-f", str(tmp_path), "-j", "1", *FLAGS]
    command = [sys.executable, "-m", "sb3_vpg", *words]
    monitor = tmp_path / "vpg/CartPole-v1_1/0.monitor.csv"
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        wait_until(lambda: any((tmp_path / "vpg/CartPole-v1_1/checkpoints").glob("*")) or process.poll() is not None)
        os.kill(process.pid, signal.SIGKILL)
    assert not (tmp_path / RECORDS).exists()
    log = tmp_path / "output/vpg-CartPole-v1-0/log.txt"
    # The worker has ended once its files stop changing
    wait_until(lambda: is_quiet(monitor) and is_quiet(log))
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert "Hyperparameters of" in log.read_text(), "the run was resumed"
    (record,) = read(tmp_path / RECORDS)
    assert record.timesteps[-1] >= 29_000
    assert record.num_timesteps >= 30_000
    assert record.cpu_seconds is record.wall_seconds is None, "the time of the killed attempt is unknown"
    assert [run.name for run in (tmp_path / "vpg").iterdir()] == ["CartPole-v1_1"]
    assert json.loads((tmp_path / "references.json").read_text())[ENV]["threshold"] == 475.0


def test_a_folder_with_other_runs_is_refused(tmp_path: Path) -> None:
    """A comparison would take them for incomplete runs of its own and remove them."""
    mine = tmp_path / "random_search/CartPole-v1_1/mine.txt"
    mine.parent.mkdir(parents=True)
    mine.touch()
    with pytest.raises(ValueError, match="holds files, but no comparison"):
        compare(["random_search"], [ENV], 1, 600, tmp_path, **FEW)
    assert mine.exists()


def test_a_folder_that_another_process_uses_is_refused(folder: Path) -> None:
    with claimed(folder), pytest.raises(ValueError, match="another process"):
        compare(ALGOS, [ENV], 2, 600, folder, report_only=True, **FEW)


def test_ctrl_c_stops_the_workers_and_prints_how_to_continue(tmp_path: Path) -> None:
    words = ["compare", "--algos", "vpg", "--envs", ENV, "--seeds", "1", "-n", "1000000", "-f", str(tmp_path), "-j", "1"]
    with subprocess.Popen([sys.executable, "-m", "sb3_vpg", *words], stdout=subprocess.PIPE, text=True) as process:
        monitor = tmp_path / "vpg/CartPole-v1_1/0.monitor.csv"
        wait_until(lambda: (monitor.is_file() and monitor.stat().st_size > 500) or process.poll() is not None)
        process.send_signal(signal.SIGINT)
        printed, _ = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "To continue, run the same command: sb3-vpg compare --algos vpg" in printed
    assert any((tmp_path / "vpg/CartPole-v1_1/checkpoints").iterdir()), "the worker wrote a checkpoint before it ended"


def is_quiet(file: Path) -> bool:
    before = file.stat().st_size if file.exists() else 0
    time.sleep(1.0)
    return (file.stat().st_size if file.exists() else 0) == before


def wait_until(happened: Callable[[], bool], seconds: float = 300.0) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.05)
