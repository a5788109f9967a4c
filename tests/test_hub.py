"""Agents on the hub: what is pushed can be loaded and plays the same, and nothing of a stranger's repository is run."""

import json
import pickle
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

from sb3_vpg import VPG
from sb3_vpg.normalization import load_vec_normalize
from sb3_vpg.zoo import hub
from sb3_vpg.zoo.cli import main

TRAIN = [
    "train",
    "--env",
    "CartPole-v1",
    "-n",
    "1500",
    "--eval-freq",
    "500",
    "--eval-episodes",
    "2",
    "--verbose",
    "0",
    "--seed",
    "1",
]
NAME = "vpg-CartPole-v1"
# The zoo leaves its monitor files to the garbage collector
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in.*monitor.csv:pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def pushed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """:return: a folder with ``logs`` of one run on normalised observations, and ``hub``, to which it was pushed"""
    folder = tmp_path_factory.mktemp("pushed")
    assert main([*TRAIN, "-params", "normalize:True", "-f", str(folder / "logs")]) == 0
    push = ["push_to_hub", "--env", "CartPole-v1", "-f", str(folder / "logs"), "-orga", "me", "--n-eval-episodes", "4"]
    assert main([*push, "-n", "30", "--seed", "7", "--local-hub", str(folder / "hub")]) == 0
    return folder


@pytest.fixture
def repository(pushed: Path, tmp_path: Path) -> Path:
    """:return: a copy to spoil"""
    return Path(shutil.copytree(pushed / "hub/me" / NAME, tmp_path / "hub/me" / NAME))


def load(repository: Path, *flags: str, env_id: str = "CartPole-v1") -> int:
    logs = repository.parents[2] / "logs"
    where = ["-orga", "me", "-name", NAME, "--local-hub", str(repository.parents[1]), "-f", str(logs)]
    return main(["load_from_hub", "--env", env_id, *where, *flags])


def test_it_plays_in_another_process_as_it_did(pushed: Path, repository: Path) -> None:
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


def test_the_score_is_what_sb3_measures(pushed: Path) -> None:
    repository = pushed / "hub/me" / NAME
    model = repository / f"{NAME}.zip"
    env = load_vec_normalize(model, make_vec_env("CartPole-v1", n_envs=4, seed=7))
    env.training = env.norm_reward = False
    mean, std = evaluate_policy(VPG.load(model, device="cpu"), env, n_eval_episodes=4)
    results = json.loads((repository / "results.json").read_text())
    assert (results["mean_reward"], results["std_reward"]) == pytest.approx((mean, std))
    assert results["n_eval_episodes"] == 4
    head = yaml.safe_load((repository / "README.md").read_text().split("---")[1])
    assert head["model-index"][0]["results"][0]["metrics"][0]["value"] == f"{mean:.2f} +/- {std:.2f}"


def test_there_is_a_film_and_no_pickle(pushed: Path) -> None:
    repository = pushed / "hub/me" / NAME
    assert (repository / "replay.mp4").read_bytes()[4:8] == b"ftyp"
    assert {path.suffix for path in repository.iterdir() if path.is_file()} == {".zip", ".yml", ".json", ".md", ".mp4", ""}
    with zipfile.ZipFile(repository / f"{NAME}.zip") as archive:
        assert "!pickle" not in archive.read("data").decode()


def test_the_card_does_what_it_says(pushed: Path, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its commands are typed as they stand, but for the hub; then its Python is run."""
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```(bash|python)\n(.*?)```", (repository / "README.md").read_text(), re.DOTALL)
    commands = [
        line.split()[1:] for kind, text in blocks if kind == "bash" for line in text.splitlines() if "sb3-vpg " in line
    ]
    commands = [words for words in commands if words and words[0] in ("load_from_hub", "enjoy", "evaluate")]
    assert [words[0] for words in commands] == ["load_from_hub", "enjoy", "evaluate"]
    more = [["--local-hub", "hub"], ["--no-render", "-n", "20"], ["-n", "2"]]
    for words, flags in zip(commands, more, strict=True):
        assert main([*words, *flags]) == 0
    (python,) = [text for kind, text in blocks if kind == "python"]
    printed = subprocess.run([sys.executable, "-c", python], capture_output=True, text=True, check=True).stdout
    assert re.match(r"\(\S*\d+\.\d", printed)


def test_uploading_and_downloading_ask_the_hub(pushed: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The two calls that leave this machine, with the hub's own function signatures."""
    asked: list[tuple[str, dict[str, Any]]] = []

    class Api:
        def create_repo(self, **kwargs: Any) -> str:
            asked.append(("create", kwargs))
            return "the repository's address"

        def upload_folder(self, **kwargs: Any) -> None:
            asked.append(("upload", {**kwargs, "files": sorted(path.name for path in Path(kwargs["folder_path"]).iterdir())}))

        def model_info(self, repo_id: str, files_metadata: bool) -> Any:
            size = self.size
            return SimpleNamespace(siblings=[SimpleNamespace(rfilename=f"{NAME}.zip", size=size)])

        def snapshot_download(self, repo_id: str, local_dir: Path, allow_patterns: list[str]) -> str:
            for name in allow_patterns:
                shutil.copy(repository / name, local_dir)
            return str(local_dir)

        size = 10**12

    monkeypatch.setattr(hub, "HfApi", Api)
    logs = repository.parents[2] / "logs"
    push = ["push_to_hub", "--env", "CartPole-v1", "-f", str(pushed / "logs"), "-orga", "me", "--n-eval-episodes", "2"]
    assert main([*push, "--no-render"]) == 0
    assert asked[0] == ("create", {"repo_id": f"me/{NAME}", "exist_ok": True})
    assert asked[1][1]["repo_id"] == f"me/{NAME}"
    assert {f"{NAME}.zip", "README.md", "results.json", "config.yml"} <= set(asked[1][1]["files"])
    assert main(["load_from_hub", "--env", "CartPole-v1", "-orga", "me", "-f", str(logs)]) == 1, "too large to be downloaded"
    Api.size = 10**5
    assert main(["load_from_hub", "--env", "CartPole-v1", "-orga", "me", "-f", str(logs)]) == 0


def in_config(**settings: Any) -> Callable[[Path, str], None]:
    def spoil(repository: Path, canary: str) -> None:
        config = yaml.safe_load((repository / "config.yml").read_text())
        text = json.loads(json.dumps(settings).replace("CANARY", canary))
        (repository / "config.yml").write_text(yaml.safe_dump({**config, **text}))

    return spoil


def written(name: str, text: str) -> Callable[[Path, str], None]:
    return lambda repository, canary: (repository / name).write_text(text.replace("CANARY", canary)) and None


class Payload:
    def __init__(self, canary: str) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return Path.touch, (Path(self.canary),)


def pickled(repository: Path, canary: str) -> None:
    """A run folder's own statistics are made of the model's; those of a stranger are not even looked at."""
    (repository / "vec_normalize.pkl").write_bytes(pickle.dumps(Payload(canary)))
    (repository / "config.yml").write_text("!!python/object:nothing {}")


def pickled_evaluations(repository: Path, canary: str) -> None:
    array = np.array([Payload(canary)], dtype=object)
    np.savez(repository / "evaluations.npz", timesteps=array, results=array, ep_lengths=array)
    with zipfile.ZipFile(repository / "train_eval_metrics.zip", "w") as archive:
        archive.write(repository / "evaluations.npz", "evaluations.npz")


def bomb(repository: Path, canary: str) -> None:
    with zipfile.ZipFile(repository / "train_eval_metrics.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("0.monitor.csv", bytes(10**8))


def cut(repository: Path, canary: str) -> None:
    model = repository / f"{NAME}.zip"
    model.write_bytes(model.read_bytes()[:-1000])


def linked(repository: Path, canary: str) -> None:
    (repository / "config.yml").unlink()
    (repository / "config.yml").symlink_to("/etc/hostname")


def huge(repository: Path, canary: str) -> None:
    with (repository / "args.yml").open("wb") as file:
        file.truncate(10**9)


def pickled_model(repository: Path, canary: str) -> None:
    """A function has to be pickled, with whatever its author puts beside it."""
    VPG("MlpPolicy", "CartPole-v1", device="cpu", learning_rate=lambda progress: 0.1).save(repository / NAME)


CODE = "__import__('pathlib').Path('CANARY').touch()"
HOSTILE: dict[str, tuple[Callable[[Path, str], None], str]] = {
    "pickled statistics": (pickled, "config.yml"),
    "python in args.yml": (written("args.yml", "env_kwargs: !!python/object/apply:os.system ['touch CANARY']"), "env_kwargs"),
    "python in config.yml": (
        written("config.yml", "env_wrapper: !!python/object/apply:os.system ['touch CANARY']"),
        "wrapper",
    ),
    "no YAML": (written("config.yml", "a: ["), "config.yml"),
    "no mapping": (written("config.yml", "- 1"), "config.yml"),
    "code for normalize": (in_config(normalize=CODE), "normalize is"),
    "code inside of normalize": (in_config(normalize=f"dict(norm_obs={CODE})"), "normalize is"),
    "a wrapper that acts": (in_config(env_wrapper=[{"os.system": {"command": "touch CANARY"}}]), "os.system"),
    "a wrapper that writes": (
        in_config(env_wrapper=[{"gymnasium.wrappers.RecordVideo": {"video_folder": "x"}}]),
        "RecordVideo",
    ),
    "a wrapper for all": (in_config(vec_env_wrapper="os.system"), "vec_env_wrapper"),
    "a callback": (in_config(callback="os.system"), "callback"),
    "a path for the environment": (in_config(env_kwargs={"xml_file": "/etc/passwd"}), "xml_file"),
    "too many frames": (in_config(frame_stack=10**9), "frame_stack"),
    "pickled evaluations": (pickled_evaluations, "train_eval_metrics.zip"),
    "a bomb": (bomb, "train_eval_metrics.zip"),
    "cut off": (cut, "CartPole-v1.zip"),
    "a link": (linked, "config.yml"),
    "huge": (huge, "args.yml"),
    "a model with pickles": (pickled_model, "pickles"),
    "no model": (lambda repository, canary: (repository / f"{NAME}.zip").unlink(), NAME),
    "no settings": (lambda repository, canary: (repository / "config.yml").unlink(), "config.yml"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_would_run_code_is_refused_by_name(name: str, repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spoil, said = HOSTILE[name]
    canary = repository.parents[2] / "canary"
    spoil(repository, str(canary))
    assert load(repository) == 1
    message = capsys.readouterr().err
    assert said in message
    assert message.count("\n") == 1
    assert not canary.exists()
    assert not list((repository.parents[2] / "logs").rglob("*.zip")), "a run of which a part is missing"


def test_the_payloads_are_live(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Payload(str(tmp_path / "canary"))))
    assert (tmp_path / "canary").exists()
    eval(CODE.replace("CANARY", str(tmp_path / "other")))
    assert (tmp_path / "other").exists()


def test_another_environment_is_refused(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (repository / f"{NAME}.zip").rename(repository / "vpg-Acrobot-v1.zip")
    assert load(repository, env_id="Acrobot-v1") == 1
    assert "Acrobot-v1" in capsys.readouterr().err


def test_texts_that_training_would_evaluate_are_left_out(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    in_config(policy_kwargs=CODE)(repository, "x")
    assert load(repository) == 0
    assert "policy_kwargs" in capsys.readouterr().out
    assert "pathlib" not in (repository.parents[2] / "logs/vpg/CartPole-v1_1/CartPole-v1/config.yml").read_text()


def test_a_run_that_is_there_is_not_replaced_unless_told(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
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


def test_nothing_to_push(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["push_to_hub", "--env", "CartPole-v1", "-f", str(tmp_path), "-orga", "me"]) == 1
    assert "no agent to push" in capsys.readouterr().err
