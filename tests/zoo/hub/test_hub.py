"""Agents on the hub: a pushed agent can be loaded and plays as before, and its card has the measured score."""

import argparse
import json
import re
import shutil
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import yaml
from helpers import MAY_STAND_STILL
from hub_repositories import LEAVES_FILES_OPEN, NAME, load, push
from huggingface_sb3 import EnvironmentName
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecNormalize

from sb3_vpg import VPG
from sb3_vpg.export import OnnxPlayer
from sb3_vpg.normalization import load_vec_normalize
from sb3_vpg.zoo.agents.evaluation import evaluate_run
from sb3_vpg.zoo.cli import main
from sb3_vpg.zoo.hub import load as hub_load
from sb3_vpg.zoo.hub import remotes as hub

pytestmark = LEAVES_FILES_OPEN


def test_a_loaded_agent_plays_as_before_in_another_process(pushed: Path, repository: Path) -> None:
    assert load(repository) == 0
    logs, results = repository.parents[2] / "logs", []
    for folder in (pushed / "logs", logs):
        command = [
            sys.executable,
            "-m",
            "sb3_vpg",
            "evaluate",
            "--env",
            "CartPole-v1",
            "-n",
            "4",
            "-f",
            str(folder),
            "--seed",
            "7",
        ]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        results.append(re.findall("Return over 4 episodes.*", printed))
    assert results[0] == results[1] != []
    models = [VPG.load(folder / "vpg/CartPole-v1_1/CartPole-v1.zip", device="cpu") for folder in (pushed / "logs", logs)]
    observations = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    assert (
        models[0].predict(observations, deterministic=True)[0] == models[1].predict(observations, deterministic=True)[0]
    ).all()
    assert main(["enjoy", "--env", "CartPole-v1", "-f", str(logs), "--no-render", "-n", "20"]) == 0
    assert (logs / "vpg/CartPole-v1_1/evaluations.npz").is_file()


@pytest.mark.parametrize("choice", [[], ["--load-best"]], ids=["last", "best"])
def test_the_score_belongs_to_the_files_beside_it(choice: list[str], pushed: Path, tmp_path: Path) -> None:
    """Measured by SB3 from the repository alone, the score is the same, for the best model too, with its own statistics."""
    where = [*push(pushed), "--local-hub", str(tmp_path), "--seed", "7", "--no-render"]
    assert main([*where, *choice]) == 0
    repository = tmp_path / "me" / NAME
    model = repository / f"{NAME}.zip"
    assert (VPG.load(model, device="cpu").num_timesteps < 1500) == (choice != []), "the best is another model than the last"
    env = load_vec_normalize(model, make_vec_env("CartPole-v1", n_envs=4, seed=7))
    env.training = env.norm_reward = False
    mean, std = evaluate_policy(VPG.load(model, device="cpu"), env, n_eval_episodes=4)
    results = json.loads((repository / "results.json").read_text())
    assert (results["mean_reward"], results["std_reward"]) == pytest.approx((mean, std))
    assert results["n_eval_episodes"] == 4
    head = yaml.safe_load((repository / "README.md").read_text().split("---")[1])
    assert head["model-index"][0]["results"][0]["metrics"][0]["value"] == f"{mean:.2f} +/- {std:.2f}"


def test_the_best_model_plays_with_its_own_statistics(pushed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``evaluate`` and ``enjoy`` do not use ``vecnormalize.pkl``, which has the statistics of the end of the run."""
    logs, run = str(pushed / "logs"), pushed / "logs/vpg/CartPole-v1_1"

    def returns(n_envs: int, seed: int, n_episodes: int, statistics: Path) -> list[float]:
        env = make_vec_env("CartPole-v1", n_envs=n_envs, seed=seed)
        env = VecNormalize.load(str(statistics), env) if statistics.suffix == ".pkl" else load_vec_normalize(statistics, env)
        env.training = env.norm_reward = False
        model = VPG.load(run / "best_model.zip", device="cpu")
        return evaluate_policy(model, env, n_episodes, return_episode_rewards=True)[0]

    own = returns(4, 7, 4, run / "best_model.zip")
    assert own != returns(4, 7, 4, run / "CartPole-v1/vecnormalize.pkl"), "the statistics make a difference"
    assert list(evaluate_run(logs, "vpg", "CartPole-v1", n_episodes=4, seed=7, load_best=True).returns) == own
    assert main(["enjoy", "--env", "CartPole-v1", "-f", logs, "--load-best", "--no-render", "-n", "600", "--seed", "7"]) == 0
    played = [float(number) for number in re.findall(r"Episode Reward: (\S+)", capsys.readouterr().out)]
    assert played == returns(1, 7, len(played), run / "best_model.zip") != []


@MAY_STAND_STILL
def test_continued_training_starts_from_the_statistics_of_the_best_model(pushed: Path, tmp_path: Path) -> None:
    best = pushed / "logs/vpg/CartPole-v1_1/best_model.zip"
    command = ["train", "--env", "CartPole-v1", "-i", str(best), "-f", str(tmp_path), "-params", "normalize:True", "n_envs:1"]
    assert main([*command, "-n", "1", "--eval-freq", "-1", "--verbose", "0"]) == 0
    counts = []
    for model in (best, tmp_path / "vpg/CartPole-v1_1/CartPole-v1.zip"):
        counts.append(load_vec_normalize(model, make_vec_env("CartPole-v1")).obs_rms.count)
    # One rollout of 64 steps, and the observation before it
    assert counts[1] - counts[0] == pytest.approx(65)


def test_a_repository_has_a_film_and_no_pickle(pushed: Path) -> None:
    repository = pushed / "hub/me" / NAME
    assert (repository / "replay.mp4").read_bytes()[4:8] == b"ftyp"
    assert {path.suffix for path in repository.iterdir() if path.is_file()} == {".zip", ".yml", ".json", ".md", ".mp4", ""}
    with zipfile.ZipFile(repository / f"{NAME}.zip") as archive:
        assert "!pickle" not in archive.read("data").decode()


def test_the_commands_and_the_program_on_the_card_work(
    pushed: Path, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commands run as printed, with a local hub; the program prints the score of ``results.json``."""
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```(bash|python)\n(.*?)```", (repository / "README.md").read_text(), re.DOTALL)
    commands = [
        line.split()[1:] for kind, text in blocks if kind == "bash" for line in text.splitlines() if "sb3-vpg " in line
    ]
    commands = [words for words in commands if words and words[0] in ("load_from_hub", "enjoy", "evaluate")]
    assert [words[0] for words in commands] == ["load_from_hub", "enjoy", "evaluate"]
    extra_flags = [["--local-hub", "hub"], ["--no-render", "-n", "20"], ["-n", "2"]]
    for words, flags in zip(commands, extra_flags, strict=True):
        assert main([*words, *flags]) == 0
    (python,) = [text for kind, text in blocks if kind == "python"]
    assert "from huggingface_hub import hf_hub_download" in python
    local = "hf_hub_download = lambda repository, file: f'hub/{repository}/{file}'"
    python = python.replace("from huggingface_hub import hf_hub_download", local)
    printed = subprocess.run([sys.executable, "-c", python], capture_output=True, text=True, check=True).stdout
    results = json.loads((repository / "results.json").read_text())
    numbers = [float(number) for number in re.findall(r"\d+\.\d+", printed)]
    assert numbers == pytest.approx([results["mean_reward"], results["std_reward"]])


def test_push_and_load_call_the_hubs_api(pushed: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands call functions of ``HfApi`` with its signatures; only sizes that were checked are downloaded."""
    calls: list[tuple[str, dict[str, Any]]] = []

    class Api:
        def create_repo(self, **kwargs: Any) -> str:
            calls.append(("create", kwargs))
            return "the repository's address"

        def upload_folder(self, **kwargs: Any) -> None:
            calls.append(("upload", {**kwargs, "files": sorted(path.name for path in Path(kwargs["folder_path"]).iterdir())}))

        def model_info(self, repo_id: str, files_metadata: bool) -> Any:
            sizes = {path.name: path.stat().st_size for path in repository.iterdir()} | self.claimed
            return SimpleNamespace(sha="0123", siblings=[SimpleNamespace(rfilename=name, size=sizes[name]) for name in sizes])

        def snapshot_download(self, repo_id: str, revision: str, local_dir: Path, allow_patterns: list[str]) -> str:
            assert revision == "0123", "the files are those whose list was checked"
            calls.append(("download", {"files": sorted(allow_patterns)}))
            for name in allow_patterns:
                shutil.copy(repository / name, local_dir)
            return str(local_dir)

        claimed: ClassVar[dict[str, int | None]] = {}

    monkeypatch.setattr(hub, "HfApi", Api)
    logs = repository.parents[2] / "logs"
    flags = ["push_to_hub", "--env", "CartPole-v1", "-f", str(pushed / "logs"), "-orga", "me", "--n-eval-episodes", "2"]
    assert main([*flags, "--no-render"]) == 0
    assert calls[0] == ("create", {"repo_id": f"me/{NAME}", "exist_ok": True})
    assert calls[1][1]["repo_id"] == f"me/{NAME}"
    assert {f"{NAME}.zip", f"{NAME}.onnx", "README.md", "results.json", "config.yml"} <= set(calls[1][1]["files"])
    assert calls[1][1]["delete_patterns"] == ["replay.mp4", "vec_normalize.pkl"], "what an earlier push may have left"
    del calls[:]
    flags = ["load_from_hub", "--env", "CartPole-v1", "-orga", "me", "-f", str(logs)]
    for claimed in ({f"{NAME}.zip": 10**12}, {f"{NAME}.zip": None}, {"../x": 1}, {str(number): 1 for number in range(10**4)}):
        Api.claimed = claimed
        assert main(flags) == 1
    assert not calls, "nothing is downloaded of what is too large, or would leave its folder"
    Api.claimed = {}
    assert main(flags) == 0
    files = ["args.yml", "config.yml", "env_kwargs.yml", "train_eval_metrics.zip", f"{NAME}.zip"]
    assert calls == [("download", {"files": files})]


def test_an_existing_run_is_replaced_only_with_force(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert load(repository) == load(repository) == 0
    logs = repository.parents[2] / "logs/vpg"
    assert sorted(run.name for run in logs.iterdir()) == ["CartPole-v1_1", "CartPole-v1_2"]
    (logs / "CartPole-v1_1/mine.txt").touch()
    assert load(repository, "--exp-id", "1") == 1
    assert "--force" in capsys.readouterr().err
    assert (logs / "CartPole-v1_1/mine.txt").exists()
    assert load(repository, "--exp-id", "1", "--force") == 0
    assert not (logs / "CartPole-v1_1/mine.txt").exists()
    assert len(list(logs.iterdir())) == 2


def contents(folder: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def test_a_folder_with_other_runs_is_not_replaced(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The folder of ``--exp-id -1`` also contains all numbered runs, so ``--force`` does not replace it."""
    assert load(repository, "--exp-id", "-1") == load(repository, "--exp-id", "-1", "--force") == 0
    logs = repository.parents[2] / "logs"
    assert main(["enjoy", "--env", "CartPole-v1", "--exp-id", "-1", "-f", str(logs), "--no-render", "-n", "10"]) == 0
    for other in ("vpg/Acrobot-v1_1/Acrobot-v1/args.yml", "vpg/Acrobot-v1/args.yml"):
        (logs / other).parent.mkdir(parents=True)
        (logs / other).touch()
        before = contents(logs)
        capsys.readouterr()
        assert load(repository, "--exp-id", "-1", "--force") == 1
        assert "choose another --exp-id" in capsys.readouterr().err
        assert contents(logs) == before
        shutil.rmtree((logs / other).parent)


@pytest.mark.parametrize("earlier", [False, True], ids=["the first run", "in the place of another"])
def test_a_load_that_fails_late_leaves_what_was_there(
    earlier: bool, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If copying or the final renaming fails, the log folder is as before."""
    logs = repository.parents[2] / "logs"
    if earlier:
        assert load(repository) == 0
    before = contents(logs)

    def fails(*args: Any, **kwargs: Any) -> None:
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copytree", fails)
        assert load(repository, "--exp-id", "1", "--force") == 1
    assert contents(logs) == before
    rename = Path.rename
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", lambda path, to: fails() if path.name == "new" else rename(path, to))
        assert load(repository, "--exp-id", "1", "--force") == 1
    locks = str(logs / "vpg/CartPole-v1_1/.lock")
    assert {name: content for name, content in contents(logs).items() if name != locks} == before
    assert logs.exists() == earlier


def test_pushing_without_a_run_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["push_to_hub", "--env", "CartPole-v1", "-f", str(tmp_path), "-orga", "me"]) == 1
    assert "no agent to push" in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags", [["-name", "."], ["-name", ".."], ["-name", "a/b"], ["-orga", ".."], ["-orga", "/tmp"], ["-name", ""]]
)
def test_a_name_that_is_a_path_is_refused(
    flags: list[str], pushed: Path, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Such a name could replace all repositories of an organization, or write outside the hub."""
    hub_folder = repository.parents[1]
    before = sorted(hub_folder.parent.rglob("*"))
    where = ["--local-hub", str(hub_folder), "--no-render", *flags]
    assert main([*push(pushed), *where]) == 1
    assert (
        main(
            ["load_from_hub", "--env", "CartPole-v1", "-orga", "me", "-f", str(hub_folder.parent / "logs"), *where[:2], *flags]
        )
        == 1
    )
    assert sorted(hub_folder.parent.rglob("*")) == before
    assert capsys.readouterr().err.count("\n") == 2


def test_a_second_push_replaces_its_own_files_only(pushed: Path, repository: Path) -> None:
    (repository / "notes.txt").write_text("mine")
    model = (repository / f"{NAME}.zip").read_bytes()
    where = ["--local-hub", str(repository.parents[1]), "--no-render", "--load-best"]
    assert main([*push(pushed), *where]) == 0
    assert (repository / "notes.txt").read_text() == "mine"
    assert (repository / f"{NAME}.zip").read_bytes() != model
    assert not (repository / "replay.mp4").exists(), "the old film showed another model"


def test_the_onnx_file_is_beside_the_model(
    pushed: Path, repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It plays as the pushed model does, and the card names it; a push without the extra removes it."""
    flags = [*push(pushed), "--local-hub", str(repository.parents[1]), "--no-render"]
    flags.remove("--no-onnx")
    assert main(flags) == 0
    player, env = OnnxPlayer(repository / f"{NAME}.onnx"), make_vec_env("CartPole-v1", 4, seed=0)
    assert evaluate_policy(player, env, 4)[0] == json.loads((repository / "results.json").read_text())["mean_reward"]
    assert f"`{NAME}.onnx` is the same agent" in (repository / "README.md").read_text()
    assert load(repository) == 0
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert main(flags) == 0
    assert "No ONNX file, because onnxscript is not installed: pip install 'sb3-vpg[export]'" in capsys.readouterr().out
    assert not (repository / f"{NAME}.onnx").exists()
    assert "onnx" not in (repository / "README.md").read_text()


def test_algorithms_of_the_zoo_are_refused_with_the_zoos_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["load_from_hub", "--algo", "ppo", "--env", "CartPole-v1", "-orga", "sb3", "-f", str(tmp_path)]) == 1
    assert "python -m rl_zoo3.load_from_hub" in capsys.readouterr().err


def test_simultaneous_loads_get_different_numbers(repository: Path, tmp_path: Path) -> None:
    new_run = tmp_path / "new_run"
    (new_run / "CartPole-v1").mkdir(parents=True)
    (new_run / "CartPole-v1/args.yml").touch()
    args = argparse.Namespace(env=EnvironmentName("CartPole-v1"), exp_id=0, force=False)
    runs = tmp_path / "logs/vpg"
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(lambda _: hub_load._put_in_place(new_run, runs, args), range(8)))
    assert sorted(run.name for run in taken) == [f"CartPole-v1_{number}" for number in range(1, 9)]
    assert sorted(path.name for path in runs.iterdir()) == sorted(run.name for run in taken)
    assert all((run / "CartPole-v1/args.yml").is_file() for run in taken)
