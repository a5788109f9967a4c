"""The command line writes files atomically, and reading files creates no Python objects."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from torch import nn

from sb3_vpg.zoo.cli import main
from sb3_vpg.zoo.safe_yaml import PythonTag, as_read_back, has_python_tag, read_yaml

TRAIN = ["train", "--algo", "a2c", "-n", "400", "--eval-freq", "200", "--eval-episodes", "1", "--verbose", "0", "--seed", "1"]
TRAIN += ["--num-threads", "1", "-params", "normalize:True"]
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in.*monitor.csv:pytest.PytestUnraisableExceptionWarning")


def half_to_path(*args: Any, **kwargs: Any) -> None:
    """Write half of the file that the first path among the arguments names, then fail as on a full disk."""
    Path(next(arg for arg in args if isinstance(arg, (str, Path)))).write_bytes(b"half")
    raise OSError("no space left on device")


def half_archive(path: str, **kwargs: Any) -> None:
    half_to_path(path if path.endswith(".npz") else f"{path}.npz")


def half_to_file(content: Any, file: Any, *args: Any, **kwargs: Any) -> None:
    file.write(content if isinstance(content, str) else b"half")
    raise OSError("no space left on device")


SAVE = "stable_baselines3.common.base_class.save_to_zip_file"
WRITERS = {
    "CartPole-v1.zip": (SAVE, half_to_path, "-1"),
    "best_model.zip": (SAVE, half_to_path, "200"),
    "evaluations.npz": ("numpy.savez", half_archive, "200"),
    "CartPole-v1/vecnormalize.pkl": ("stable_baselines3.common.vec_env.vec_normalize.pickle.dump", half_to_file, "-1"),
    "CartPole-v1/args.yml": ("rl_zoo3.exp_manager.yaml.dump", lambda _, file: half_to_file("half", file), "-1"),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_failed_write_leaves_no_file(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    writer, broken, eval_freq = WRITERS[name]
    run = tmp_path / "a2c/CartPole-v1_1"
    monkeypatch.setattr(writer, broken)
    assert main([*TRAIN, "--eval-freq", eval_freq, "-f", str(tmp_path)]) == 1
    assert "no space left on device" in capsys.readouterr().err
    assert not (run / name).exists()
    assert not list(tmp_path.rglob("*.part"))


def test_a_failed_plot_keeps_the_previous_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main([*TRAIN, "-f", str(tmp_path)]) == 0
    evaluate = ["evaluate", "--algo", "a2c", "-n", "2", "-f", str(tmp_path)]
    assert main(evaluate) == 0
    picture = tmp_path / "a2c/CartPole-v1_1/learning_curve.png"
    before = picture.read_bytes()
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", half_to_path)
    assert main(evaluate) == 1
    plot = ["plot_train", "-a", "a2c", "-e", "CartPole-v1", "-f", str(tmp_path), "--savefig", str(picture)]
    assert main(plot) == 1
    assert picture.read_bytes() == before
    assert not list(tmp_path.rglob("*.part"))


def test_python_objects_in_a_file_are_read_as_tags(tmp_path: Path) -> None:
    value = {"sizes": (8, 8), "activation_fn": nn.ReLU, "more": [{"deep": nn.Tanh}], "none": None}
    (tmp_path / "config.yml").write_text(yaml.dump(value))
    plain = read_yaml(tmp_path / "config.yml")
    assert plain["sizes"] == (8, 8)
    assert isinstance(plain["activation_fn"], PythonTag)
    assert str(plain["activation_fn"]) == "!!python/name:torch.nn.modules.activation.ReLU"
    assert [has_python_tag(plain[key]) for key in value] == [False, True, True, False]
    assert as_read_back(value) == plain
    assert as_read_back(nn.Tanh) != plain["activation_fn"]


@pytest.mark.parametrize("text", ["[1, 2]", "a: {", "3"], ids=["list", "torn", "number"])
def test_a_file_that_is_not_a_mapping_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "args.yml").write_text(text)
    with pytest.raises(ValueError, match=r"args.yml is not a readable YAML mapping"):
        read_yaml(tmp_path / "args.yml")
