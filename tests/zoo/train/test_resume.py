"""``sb3-vpg train --resume``: a killed or stopped run ends like one that was never stopped, or a warning says why not."""

import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from killing_callback import VARIABLE

from sb3_vpg import VPG
from sb3_vpg.checkpoints.callback_state import restore_callbacks
from sb3_vpg.checkpoints.files import latest, progress
from sb3_vpg.common.locks import claimed
from sb3_vpg.zoo.cli import main
from sb3_vpg.zoo.train.callbacks import TrainingStarted

ACCIDENT = "callback:'killing_callback.Accident'"
TRAIN = ["train", "-n", "3000", "--eval-freq", "800", "--eval-episodes", "2", "--checkpoint-freq", "1000", "--seed", "3"]
TRAIN += ["--verbose", "0", "--num-threads", "1"]
# Signal in a new process, exit code, flags
CASES = {
    "killed": ("2500 SIGKILL", -9, ["--save-freq", "1000", "-params", ACCIDENT]),
    "killed native": ("2500 SIGKILL", -9, ["--vec-env", "native", "-params", ACCIDENT]),
    "killed normalised": ("2500 SIGKILL", -9, ["-params", ACCIDENT, "normalize:True", "n_envs:3"]),
    "killed early": ("900 SIGKILL", -9, ["-params", ACCIDENT]),
    "SIGTERM": ("1500 SIGTERM", 143, ["-params", ACCIDENT]),
    "Ctrl-C with workers": ("1500 SIGINT group", 130, ["--vec-env", "subproc", "-params", ACCIDENT, "n_envs:2"]),
}
HIDDEN = "QuietSubprocVecEnv keeps its environments in other processes; use DummyVecEnv"
WARNING = f"Warning: training goes on, but perhaps not to the last bit: new episodes begin, because {HIDDEN}; the callback "
WARNING += f"WholeEvalCallback evaluates in new episodes, because {HIDDEN}"
# When a model is refused, the zoo leaves its monitor files to the garbage collector
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in.*monitor.csv:pytest.PytestUnraisableExceptionWarning")


def start(arguments: list[str], accident: str) -> "subprocess.Popen[str]":
    support = Path(__file__).parents[2] / "support"
    path = os.pathsep.join([str(support), str(support.parents[1]), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "PYTHONPATH": path, VARIABLE: accident}
    command = [sys.executable, "-m", "sb3_vpg", *arguments]
    return subprocess.Popen(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, int, str, str]]:
    """:return: log folder, exit code, stdout and stderr of each case; two processes run at a time"""
    results, running = {}, {}
    for name, (accident, _, flags) in CASES.items():
        folder = tmp_path_factory.mktemp("stopped") / "logs"
        running[name] = folder, start([*TRAIN, *flags, "-f", str(folder)], accident)
        if len(running) == 2 or name == list(CASES)[-1]:
            for done, (where, process) in running.items():
                printed = process.communicate(timeout=240)
                results[done] = where, process.returncode, *printed
            running.clear()
    return results


def run_of(folder: Path) -> Path:
    (run,) = (folder / "vpg").iterdir()
    return run


def checkpoint_of(run: Path) -> Path:
    found = latest(run / "checkpoints")
    assert found is not None
    return found


def weights(file: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist() if name.endswith(".pth")}


def episodes(run: Path) -> dict[str, list[list[str]]]:
    """:return: return and length of each row"""
    files = sorted(run.glob("*.monitor.csv"))
    return {file.name: [row.split(",")[:2] for row in file.read_text().splitlines()[1:]] for file in files}


def modification_times(run: Path) -> dict[str, int]:
    """:return: of each file, except for the lock: filelock's release for Python 3.10 opens it for writing"""
    files = (file for file in run.rglob("*") if file.is_file() and file.name != ".lock")
    return {str(file.relative_to(run)): file.stat().st_mtime_ns for file in files}


def assert_same_run(run: Path, other: Path) -> None:
    for name in ("CartPole-v1.zip", "best_model.zip"):
        assert weights(run / name) == weights(other / name), name
    assert episodes(run) == episodes(other)
    mine, theirs = np.load(run / "evaluations.npz"), np.load(other / "evaluations.npz")
    assert mine.files == theirs.files
    for name in mine.files:
        np.testing.assert_array_equal(mine[name], theirs[name])
    assert set(modification_times(run)) == set(modification_times(other))


def test_a_signal_ends_training_quietly_after_the_rollout(stopped: dict[str, tuple[Path, int, str, str]]) -> None:
    for name, (_, expected, _) in CASES.items():
        folder, code, out, err = stopped[name]
        assert code == expected, err
        assert "Traceback" not in out + err
        if code > 0:
            assert (run_of(folder) / "CartPole-v1.zip").is_file()
            assert f"Stopped by {signal.Signals(code - 128).name} after 1,536 of 3,000 steps. Continue with: " in out
            assert out.rstrip().endswith(f"sb3-vpg train --env CartPole-v1 -f {folder} --resume")
            assert progress(checkpoint_of(run_of(folder))) == (1536, 3000)


@pytest.mark.parametrize(
    ("step", "said", "kept"), [(1500, "Continue with", (1024, 3000)), (900, "Begin again with", None)], ids=["late", "early"]
)
def test_a_second_signal_does_not_wait_for_the_rollout(
    step: int,
    said: str,
    kept: tuple[int, int] | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(VARIABLE, f"{step} SIGINT SIGTERM")
    assert main([*TRAIN, "-params", ACCIDENT, "-f", str(tmp_path)]) == 130
    assert f"Stopped by SIGINT after {step:,} of 3,000 steps. {said}: " in capsys.readouterr().out
    assert (run_of(tmp_path) / "CartPole-v1.zip").is_file()
    found = latest(run_of(tmp_path) / "checkpoints")
    assert (found and progress(found)) == kept


OTHERS = {
    "no checkpoints": (["--checkpoint-freq", "0"], "Stopped by SIGTERM after 1,536 of 3,000 steps.\n"),
    "a2c": (["--algo", "a2c"], "Stopped by SIGTERM after 1,504 of 3,000 steps.\n"),
    "search": (["-optimize", "--n-trials", "2"], "Number of finished trials:  1"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_signals_without_checkpoints(
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv(VARIABLE, "1500 SIGTERM")
    before = signal.getsignal(signal.SIGTERM)
    flags, said = OTHERS[name]
    train = [flag for flag in TRAIN if flag not in ("--checkpoint-freq", "1000")]
    assert main([*train, *flags, "-params", ACCIDENT, "-f", str(tmp_path)]) == 143
    assert said in capsys.readouterr().out
    assert not any(record.exc_info for record in caplog.records), "Optuna would show how the trial was interrupted"
    assert signal.getsignal(signal.SIGTERM) is before
    assert not list(tmp_path.rglob("checkpoints"))
    assert len(list(tmp_path.rglob("CartPole-v1.zip"))) == (name != "search")


def test_a_signal_before_training_starts() -> None:
    process = start(["train"], "")
    time.sleep(1.0)
    process.terminate()
    assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == 143


@pytest.mark.parametrize("name", CASES)
def test_a_resumed_run_ends_like_one_that_was_never_stopped(
    name: str, stopped: dict[str, tuple[Path, int, str, str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same command with ``--resume``, in another process, gives the same files as an uninterrupted reference run."""
    flags = CASES[name][2]
    assert main([*TRAIN, *flags, "-f", str(tmp_path)]) == 0
    run, reference = run_of(stopped[name][0]), run_of(tmp_path)
    (run / ".evaluations.npz.left.part").mkdir()
    (run / ".evaluations.npz.left.part/evaluations.npz").touch()
    settings = (run / "CartPole-v1/args.yml").read_bytes()
    resume = [*TRAIN, *flags, "--verbose", "1", "-f", str(run.parents[1]), "--resume"]
    if name == "Ctrl-C with workers":
        printed, errors = start(resume, "0").communicate(timeout=240)
        assert [line for line in errors.splitlines() if "QuietSubprocVecEnv" in line] == [WARNING]
        assert "checkpoints.py" not in errors
    else:
        assert main(resume) == 0
        printed = capsys.readouterr().out
        if name == "killed early":
            assert (run / "interrupted_1/0.monitor.csv").is_file()
            shutil.rmtree(run / "interrupted_1")
        assert_same_run(run, reference)
    assert ("begins once more" in printed) == (name == "killed early")
    assert (run / "CartPole-v1/args.yml").read_bytes() == settings
    assert len((run / "CartPole-v1/command.txt").read_text().splitlines()) == 2

    before = modification_times(run)
    assert main(resume) == 0
    assert "is complete: 3,072 of 3,000 steps" in capsys.readouterr().out
    assert modification_times(run) == before


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that looks as if it was killed before its last rollout."""
    folder = tmp_path_factory.mktemp("short") / "logs"
    conf = folder.parent / "mine.yml"
    folder.parent.mkdir(exist_ok=True)
    conf.write_text("CartPole-v1: {policy: MlpPolicy, n_timesteps: 900, n_steps: 100, gamma: 0.9}")
    network = "policy_kwargs:dict(net_arch=[8],activation_fn=nn.ReLU)"
    train = ["train", "-conf", str(conf), "--eval-freq", "-1", "--checkpoint-freq", "200", "--verbose", "0", "--seed", "1"]
    assert main([*train, "-params", network, "-f", str(folder)]) == 0
    run = run_of(folder)
    (run / "checkpoints/checkpoint_900_steps.zip").unlink()
    (run / "CartPole-v1/finished.txt").unlink()
    conf.unlink()
    return run


def resume(run: Path, *flags: str) -> int:
    return main(["train", "-f", str(run.parents[1]), "--resume", *flags])


NETWORK = ["-params", "policy_kwargs:dict(net_arch=[8],activation_fn=nn.ReLU)"]
CONTRADICTIONS = {
    "seed": (["--seed", "5"], ("--seed 5", "began with 1")),
    "steps": (["-n", "901"], ("--n-timesteps 901", "began with 900")),
    "hyperparameter": (["-params", "gamma:0.8"], ("gamma:0.8", "began with 0.9")),
    "object": (["-params", "policy_kwargs:dict(net_arch=[8],activation_fn=nn.Tanh)"], ("policy_kwargs", "nn.modules")),
    "vec_env": (["--vec-env", "native"], ("--vec-env native", "began with dummy")),
    "freq": (["--checkpoint-freq", "100"], ("--checkpoint-freq 100", "began with 200")),
    "algo": (["--algo", "ppo"], ("for --algo vpg, maskable_vpg and vpg_lstm, not for a run of ppo",)),
    "search": (["-optimize"], ("not for a search",)),
    "object missing": ([], ("policy_kwargs", "give the same -params again")),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_flags_that_contradict_the_run_are_refused(name: str, short: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags, said = CONTRADICTIONS[name]
    before = modification_times(short)
    assert resume(short, *flags) == 1
    message = capsys.readouterr().err
    assert all(text in message for text in said), message
    assert message.count("\n") == 1
    assert modification_times(short) == before
    assert [run.name for run in short.parent.iterdir()] == ["CartPole-v1_1"]


def test_a_run_that_another_process_trains_is_refused(short: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with claimed(short):
        assert resume(short, *NETWORK) == 1
    assert "is in use by another process" in capsys.readouterr().err


def test_damaged_checkpoints_change_no_other_file(short: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "vpg/CartPole-v1_1"
    shutil.copytree(short, run)
    for checkpoint in (run / "checkpoints").iterdir():
        checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    before = {name: time for name, time in modification_times(run).items() if not name.endswith("command.txt")}
    assert resume(run, *NETWORK) == 1
    assert "Remove them to begin anew" in capsys.readouterr().err
    assert before.items() <= modification_times(run).items()


@pytest.mark.filterwarnings("ignore:rich is experimental")
def test_output_flags_may_change_and_a_folder_names_a_run(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run keeps its hyperparameters although their file has changed; a Python object comes from the command."""
    monkeypatch.chdir(short.parents[2])
    (short.parent / "CartPole-v1_2").mkdir()
    free = ["--log-interval", "2", "--verbose", "0", "--progress", "--gym-packages", "math"]
    conf = short.parents[2] / "mine.yml"
    conf.write_text("default: {policy: MlpPolicy, n_timesteps: 7}")
    assert main(["train", "--resume", str(short), *free, *NETWORK]) == 0
    assert (short / "CartPole-v1/finished.txt").read_text() == "900 of 900 steps\n"
    assert VPG.load(short / "CartPole-v1.zip").gamma == 0.9


def test_a_checkpoint_under_the_old_name_of_a_callback_resumes_without_a_warning() -> None:
    """``TrainingStarted`` was called ``First``, and checkpoints hold callbacks' states under the names of their classes."""
    now = TrainingStarted(lambda model: None, [])
    before = {"First 0": {"attributes": {"n_calls": 512, "num_timesteps": 2048, "verbose": 0, "parent": None}}}
    assert restore_callbacks(now, before, {}) == []


def test_nothing_to_resume(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty/vpg").mkdir(parents=True)
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange/model.zip").touch()
    train = ["train", "--verbose", "0", "--eval-freq", "-1", "-n", "300", "--checkpoint-freq", "0"]
    train += ["-f", str(tmp_path / "none")]
    assert main(train) == 0
    for flags, said in (
        (["-f", str(tmp_path / "nowhere"), "--resume"], "no run of vpg on CartPole-v1"),
        (["-f", str(tmp_path / "none"), "--resume", "--uuid"], "name the folder of the run: --resume FOLDER"),
        (["-f", str(tmp_path / "empty"), "--resume", "4"], "CartPole-v1_4 is not the folder of a run"),
        (["--resume", str(tmp_path / "strange")], "has 0 args.yml"),
        ([*train[1:], "--resume"], "was trained with --checkpoint-freq 0"),
    ):
        assert main(["train", *flags]) == 1
        assert said in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "none", "strange"]
    assert not list((tmp_path / "empty/vpg").iterdir())


def test_a_run_without_settings_begins_with_those_of_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run that was killed before it wrote its settings begins with those of the command."""
    (tmp_path / "vpg/CartPole-v1_7/CartPole-v1").mkdir(parents=True)
    train = ["train", "--verbose", "0", "--eval-freq", "-1", "-n", "300", "--resume", "-f", str(tmp_path)]
    assert main([*train, "-params", "gamma:5"]) == 1, "what is refused leaves no folder behind"
    assert not list((tmp_path / "vpg").iterdir())
    (tmp_path / "vpg/CartPole-v1_7/CartPole-v1").mkdir(parents=True)
    assert main(train) == 0
    assert "killed before it wrote its settings" in capsys.readouterr().out
    assert (run_of(tmp_path) / "CartPole-v1/finished.txt").is_file()


def test_two_processes_that_start_together_use_different_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rl_zoo3.exp_manager.get_latest_run_id", lambda *_: 0)
    (tmp_path / "vpg/CartPole-v1_1").mkdir(parents=True)
    assert main(["train", "--verbose", "0", "--eval-freq", "-1", "-n", "300", "-f", str(tmp_path)]) == 0
    assert (tmp_path / "vpg/CartPole-v1_2/CartPole-v1/finished.txt").is_file()
    assert not list((tmp_path / "vpg/CartPole-v1_1").iterdir())


@pytest.mark.parametrize(("command", "has_them"), [("train", True), ("optimize", False), ("enjoy", False)])
def test_only_train_offers_to_resume(command: str, has_them: bool, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    printed = capsys.readouterr().out
    assert ("--resume" in printed) == ("--checkpoint-freq" in printed) == has_them


def test_settings_make_no_objects(short: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The files of an untrusted run create no Python objects; the zoo's own loader would run their code."""
    settings = tmp_path / "vpg/CartPole-v1_1/CartPole-v1"
    settings.mkdir(parents=True)
    evil = f"!!python/object/apply:os.mkdir ['{tmp_path}/made']"
    (settings / "args.yml").write_text(f"{{algo: vpg, env: CartPole-v1, checkpoint_freq: 5, env_kwargs: {evil}}}")
    (settings / "config.yml").write_text(f"{{policy: MlpPolicy, n_timesteps: 300, gamma: {evil}}}")
    assert main(["train", "--resume", "-f", str(tmp_path)]) == 1
    assert "--env-kwargs" in capsys.readouterr().err
    (settings / "args.yml").write_text("{algo: vpg, env: CartPole-v1, checkpoint_freq: 5}")
    assert main(["train", "--resume", "-f", str(tmp_path)]) == 1
    assert "gamma" in capsys.readouterr().err
    assert not (tmp_path / "made").exists()
