"""The command line: its texts, and each of the zoo's programs with VPG."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image, ImageSequence

from sb3_vpg.version import __version__
from sb3_vpg.zoo.cli import COMMANDS, main

SHORT = ["--env", "CartPole-v1", "-n", "1000", "--verbose", "0", "--num-threads", "1"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose ``logs`` hold two short runs of VPG, with evaluations and checkpoints."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in ("0", "1"):
        arguments = ["train", *SHORT, "--seed", seed, "--eval-freq", "512", "--eval-episodes", "2", "--save-freq", "512"]
        assert main([*arguments, "-f", str(folder / "logs")]) == 0
    return folder


@pytest.fixture
def in_runs(runs: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(runs)
    return runs


def run_in_new_process(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "sb3_vpg", *arguments], cwd=cwd, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]], ids=["bare", "help", "h"])
def test_the_overview_names_every_command(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert all(f"  {name} " in printed for name in COMMANDS)


def test_version_names_our_own_and_the_libraries(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    printed = capsys.readouterr().out
    assert __version__ in printed
    assert "stable-baselines3" in printed


def test_an_unknown_command_suggests_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trian"]) == 2
    assert "did you mean 'train'" in capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_shows_the_flags_of_the_zoo_and_ours(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert "--traceback" in printed
    flags = {
        "benchmark": "--benchmark-dir",
        "evaluate": "--n-eval-episodes",
        "plot_from_file": "--rliable",
        "all_plots": "--algos",
        "best_entry": "--storage",
    }
    zoo_flag = flags.get(name, "--algo")
    assert zoo_flag in printed
    assert ("--savefig" in printed) == COMMANDS[name].plots


def test_train_leaves_the_layout_of_the_zoo(runs: Path) -> None:
    for run in (runs / "logs/vpg/CartPole-v1_1", runs / "logs/vpg/CartPole-v1_2"):
        for name in ("CartPole-v1.zip", "best_model.zip", "evaluations.npz", "0.monitor.csv", "rl_model_512_steps.zip"):
            assert (run / name).is_file(), name
        for name in ("config.yml", "args.yml", "command.txt"):
            assert (run / "CartPole-v1" / name).is_file(), name


def test_enjoy_replays_what_train_wrote(in_runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["enjoy", "--env", "CartPole-v1", "--no-render", "-n", "600", "-f", "logs"]) == 0
    printed = capsys.readouterr().out
    assert "CartPole-v1_2/CartPole-v1.zip" in printed
    assert "Mean reward" in printed


@pytest.mark.parametrize("choice", [["--load-best"], ["--load-checkpoint", "512"], ["--load-last-checkpoint"]], ids=str)
def test_enjoy_finds_best_models_and_checkpoints(in_runs: Path, choice: list[str]) -> None:
    assert main(["enjoy", "--no-render", "-n", "20", *choice]) == 0


def test_evaluate_scores_the_model_and_draws_the_curve(in_runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--exp-id", "1", "--n-eval-episodes", "12"]) == 0
    printed = capsys.readouterr().out
    assert "Return over 12 episodes" in printed
    curve = in_runs / "logs/vpg/CartPole-v1_1/learning_curve.png"
    assert str(curve.relative_to(in_runs)) in printed
    assert curve.read_bytes().startswith(b"\x89PNG")


def test_plots_write_pictures_without_a_screen(in_runs: Path) -> None:
    assert main(["plot_train", "-e", "CartPole-v1", "-f", "logs", "-w", "5", "--savefig", "train.png"]) == 0
    assert main(["all_plots", "-e", "CartPole-v1", "-f", "logs", "-o", "saved", "--savefig", "all.png"]) == 0
    assert main(["plot_from_file", "-i", "saved", "--savefig", "from_file.png"]) == 0
    for picture in ("train.png", "all.png"):
        assert (in_runs / picture).stat().st_size > 5000
    assert len(list(in_runs.glob("from_file*.png"))) >= 1


@pytest.mark.expensive
def test_videos_of_a_model_and_of_its_training(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Videos need no screen. They are filmed in new processes, because those load a window library."""
    # The second command starts a process for each model of the run: two models are enough
    run = Path(shutil.copytree(runs / "logs/vpg/CartPole-v1_2", tmp_path / "logs/vpg/CartPole-v1_2"))
    for name in ("best_model.zip", "rl_model_1024_steps.zip"):
        (run / name).unlink()
    monkeypatch.chdir(tmp_path)
    for display in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(display, raising=False)
    filmed = run_in_new_process("record_video", "-n", "40", "--gif", cwd=tmp_path)
    assert filmed.returncode == 0, filmed.stderr
    videos = run / "videos"
    (film,) = videos.glob("final-model-*.mp4")
    assert str(film) in filmed.stdout
    assert str(film.with_suffix(".gif")) in filmed.stdout
    unpack = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", film, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    pictures = np.frombuffer(subprocess.run(unpack, check=True, capture_output=True).stdout, np.uint8).reshape(-1, 400, 600, 3)
    assert len(set(map(bytes, pictures))) > 20, "the pole moves"
    with Image.open(film.with_suffix(".gif")) as gif:
        assert gif.n_frames >= 10
        assert len({frame.convert("RGB").tobytes() for frame in ImageSequence.Iterator(gif)}) > 5
    # The folder's name needs quotes in a shell, and in ffmpeg
    logs = (tmp_path / "logs").rename(tmp_path / "my 'logs' $(touch here); touch here")
    videos = logs / videos.relative_to(tmp_path / "logs")
    assert main(["record_training", "-n", "40", "--gif", "-f", logs.name]) == 0
    assert not (tmp_path / "here").exists()
    assert len(list(videos.glob("checkpoint-512-*.mp4"))) == len(list(videos.glob("final-model-*.mp4"))) == 1
    assert (videos / "training.mp4").stat().st_size > 1000
    assert (videos / "training.gif").read_bytes().startswith(b"GIF8")


def test_the_algorithms_of_the_zoo_are_still_there(in_runs: Path) -> None:
    assert main(["train", "--algo", "a2c", *SHORT, "--eval-freq", "-1", "-f", "logs"]) == 0
    assert main(["evaluate", "--algo", "a2c", "-n", "2"]) == 0
    assert main(["enjoy", "--algo", "a2c", "--no-render", "-n", "20", "-f", "logs"]) == 0


def test_training_continues_from_a_trained_agent(in_runs: Path) -> None:
    agent = "logs/vpg/CartPole-v1_1/CartPole-v1.zip"
    assert main(["train", *SHORT, "--eval-freq", "-1", "-i", agent, "-f", "more"]) == 0
    assert (in_runs / "more/vpg/CartPole-v1_1/CartPole-v1.zip").is_file()


def test_vec_normalize_statistics_are_saved_and_evaluate_loads_them(in_runs: Path) -> None:
    normalize = "normalize:dict(norm_obs=True,norm_reward=False)"
    assert main(["train", *SHORT, "--eval-freq", "500", "--eval-episodes", "1", "-f", "normal", "-params", normalize]) == 0
    assert (in_runs / "normal/vpg/CartPole-v1_1/CartPole-v1/vecnormalize.pkl").is_file()
    assert main(["evaluate", "-f", "normal", "-n", "2"]) == 0


def test_same_seed_same_model(tmp_path: Path) -> None:
    weights = []
    for name in ("first", "second"):
        assert main(["train", *SHORT, "--seed", "7", "--eval-freq", "-1", "-f", str(tmp_path / name)]) == 0
        with zipfile.ZipFile(tmp_path / name / "vpg/CartPole-v1_1/CartPole-v1.zip") as archive:
            weights.append(archive.read("policy.pth"))
    np.testing.assert_array_equal(*[np.frombuffer(w, np.uint8) for w in weights])


def test_python_dash_m_is_the_console_script(tmp_path: Path) -> None:
    done = run_in_new_process("--version", cwd=tmp_path)
    assert done.stdout.startswith(f"sb3-vpg {__version__}")
    assert run_in_new_process("no-such-command", cwd=tmp_path).returncode == 2
