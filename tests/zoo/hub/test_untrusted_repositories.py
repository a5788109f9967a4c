"""Malicious and damaged repositories: none of their code runs, and a refused one leaves no files."""

import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hub_repositories import LEAVES_FILES_OPEN, NAME, load
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from sb3_vpg import VPG
from sb3_vpg.zoo.cli import main

pytestmark = LEAVES_FILES_OPEN


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
    """Pickled statistics are not read; here the invalid config.yml is the reason for the refusal."""
    (repository / "vec_normalize.pkl").write_bytes(pickle.dumps(Payload(canary)))
    (repository / "config.yml").write_text("!!python/object:nothing {}")


def pickled_evaluations(repository: Path, canary: str) -> None:
    array = np.array([Payload(canary)], dtype=object)
    np.savez(repository / "evaluations.npz", timesteps=array, results=array, ep_lengths=array)
    with zipfile.ZipFile(repository / "train_eval_metrics.zip", "w") as archive:
        archive.write(repository / "evaluations.npz", "evaluations.npz")


def curves(text: str) -> Callable[[Path, str], None]:
    def spoil(repository: Path, canary: str) -> None:
        with zipfile.ZipFile(repository / "train_eval_metrics.zip", "w") as archive:
            archive.writestr("0.monitor.csv", text)

    return spoil


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
    """A model with a learning rate that is a function, which SB3 pickles."""
    model = VPG("MlpPolicy", "CartPole-v1", device="cpu", learning_rate=lambda progress: 0.1)
    with pytest.warns(UserWarning, match="learning_rate.*is pickled"):
        model.save(repository / NAME)


CODE = "__import__('pathlib').Path('CANARY').touch()"
CALL = "!!python/object/apply:os.system ['touch CANARY']"
ALIASES = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefghijk", "bcdefghijkl", strict=True)
)
HOSTILE: dict[str, tuple[Callable[[Path, str], None], str]] = {
    "pickled statistics": (pickled, "config.yml"),
    "python in args.yml": (
        written("args.yml", "algo: vpg\nenv: CartPole-v1\nenv_kwargs: !!python/object/apply:os.system ['touch CANARY']"),
        "env_kwargs",
    ),
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
    "a path for the environment": (in_config(env_kwargs={"xml_file": "/etc/passwd"}), "xml_file"),
    "too many frames": (in_config(frame_stack=10**9), "frame_stack"),
    "pickled evaluations": (pickled_evaluations, "train_eval_metrics.zip"),
    "a bomb": (bomb, "train_eval_metrics.zip"),
    "cut off": (cut, "CartPole-v1.zip"),
    "a link": (linked, "config.yml"),
    "huge": (huge, "args.yml"),
    "a model with pickles": (pickled_model, "pickles"),
    "aliases without end": (written("config.yml", ALIASES), "more than once"),
    "aliases in args.yml": (written("args.yml", ALIASES), "more than once"),
    "an alias to itself": (written("env_kwargs.yml", "a: &a [*a]"), "more than once"),
    "another algorithm": (written("args.yml", "algo: random_search\nenv: CartPole-v1"), "random_search"),
    "no algorithm": (written("args.yml", "env: CartPole-v1"), "algo"),
    "no environment": (written("args.yml", "algo: vpg"), "env"),
    "depth": (written("config.yml", "a: " + "[" * 5000 + "]" * 5000), "deep"),
    "a wrapper that never steps": (in_config(env_wrapper=[{"rl_zoo3.wrappers.FrameSkip": {"skip": 0}}]), "cannot play"),
    "a curve that is none": (curves("garbage"), "train_eval_metrics.zip"),
    "a curve without numbers": (curves("#{}\nr,l,t\nx,y,z\n"), "train_eval_metrics.zip"),
    "no model": (lambda repository, canary: (repository / f"{NAME}.zip").unlink(), NAME),
    "no settings": (lambda repository, canary: (repository / "config.yml").unlink(), "config.yml"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_would_run_code_is_refused_by_name(name: str, repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spoil, expected = HOSTILE[name]
    canary = repository.parents[2] / "canary"
    spoil(repository, str(canary))
    assert load(repository) == 1
    message = capsys.readouterr().err
    assert expected in message
    assert message.count("\n") == 1
    assert not canary.exists()
    assert not (repository.parents[2] / "logs").exists(), "a refused repository leaves nothing"


def test_modules_that_a_repository_names_are_not_imported(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Playing a run imports the modules that it names; those that a repository names are removed when it is loaded."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "of_its_author.py").write_text("raise SystemExit('imported')")
    names = {
        "policy": "of_its_author.Policy",
        "policy_kwargs": "__import__('of_its_author')",
        "gym_packages": ["of_its_author"],
    }
    in_config(**names, callback="of_its_author.Callback")(repository, "")
    args = yaml.safe_load((repository / "args.yml").read_text())
    (repository / "args.yml").write_text(yaml.safe_dump({**args, **names}))
    assert load(repository) == 0
    logs = repository.parents[2] / "logs"
    assert "of_its_author" not in "".join(file.read_text() for file in logs.glob("*/*/*/*.yml"))
    assert main(["evaluate", "--env", "CartPole-v1", "-f", str(logs), "-n", "1"]) == 0
    assert main(["enjoy", "--env", "CartPole-v1", "-f", str(logs), "--no-render", "-n", "5"]) == 0


def test_the_payloads_do_act_when_they_run(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Payload(str(tmp_path / "canary"))))
    assert (tmp_path / "canary").exists()
    eval(CODE.replace("CANARY", str(tmp_path / "other")))
    assert (tmp_path / "other").exists()


def test_another_environment_with_the_same_spaces_is_refused(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (repository / f"{NAME}.zip").rename(repository / "vpg-CartPole-v0.zip")
    assert load(repository, env_id="CartPole-v0") == 1
    assert "'CartPole-v1', but 'CartPole-v0'" in capsys.readouterr().err
    (repository / "args.yml").write_text("algo: vpg\nenv: CartPole-v0\n")
    assert load(repository, env_id="CartPole-v0") == 0


def test_a_model_with_other_spaces_is_refused(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The spaces of the model itself count, not what the repository says."""
    (repository / f"{NAME}.zip").rename(repository / "vpg-Acrobot-v1.zip")
    (repository / "args.yml").write_text("algo: vpg\nenv: Acrobot-v1\n")
    assert load(repository, env_id="Acrobot-v1") == 1
    assert "does not fit" in capsys.readouterr().err


FOR_TRAINING: dict[str, dict[str, Any]] = {
    "code": {"policy_kwargs": CODE},
    "a name to evaluate": {"policy_kwargs": "pathlib"},
    "a policy to import": {"policy": "pathlib.Path"},
    "a callback": {"callback": ["pathlib.Path"]},
    "a monitor": {"monitor_kwargs": "pathlib"},
    "unheard of": {"unheard_of": "pathlib"},
}


@pytest.mark.parametrize("settings", FOR_TRAINING.values(), ids=FOR_TRAINING)
def test_settings_that_only_training_would_run_are_left_out(
    settings: dict[str, Any], repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    in_config(**settings)(repository, "x")
    assert load(repository) == 0
    assert f"Left out, because playing does not need it: {min(settings)}" in capsys.readouterr().out
    assert "pathlib" not in (repository.parents[2] / "logs/vpg/CartPole-v1_1/CartPole-v1/config.yml").read_text()


def as_the_zoo_saves(repository: Path) -> None:
    """Write a model with a pickled function, and pickled statistics beside it."""
    env = VecNormalize(make_vec_env("CartPole-v1"))
    with pytest.warns(UserWarning, match="learning_rate.*is pickled"):
        model = VPG("MlpPolicy", env, device="cpu", n_steps=8, learning_rate=lambda progress: 0.1).learn(8)
    env.save(str(repository / "vec_normalize.pkl"))
    model.env = None
    with pytest.warns(UserWarning, match="learning_rate.*is pickled"):
        model.save(repository / NAME)


@pytest.mark.parametrize("normalize", [False, True], ids=["bare", "normalised"])
def test_a_run_that_was_loaded_with_trust_plays_without_it(
    normalize: bool, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """``load_from_hub --trust`` writes a run without pickles."""
    as_the_zoo_saves(repository) if normalize else pickled_model(repository, "")
    in_config(normalize=normalize)(repository, "")
    assert load(repository) == 1
    error = capsys.readouterr().err
    assert load(repository, "--trust") == 0
    logs = str(repository.parents[2] / "logs")
    model = VPG.load(f"{logs}/vpg/CartPole-v1_1/CartPole-v1.zip", device="cpu")
    assert model.learning_rate == 0.1
    assert main(["evaluate", "--env", "CartPole-v1", "-f", logs, "-n", "2"]) == 0
    assert main(["enjoy", "--env", "CartPole-v1", "-f", logs, "--no-render", "-n", "10"]) == 0
    assert "if you trust its author, load it with --trust" in error
    assert "trust=True" not in error
