"""``sb3-vpg best_entry`` writes an entry that trains with the hyperparameters of the trial, and damages no file."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from helpers import CONTINUOUS, vector_env
from torch import nn

from sb3_vpg import VPG
from sb3_vpg.zoo import register
from sb3_vpg.zoo.cli import main
from sb3_vpg.zoo.tuning.best_entry import best_hyperparams, entry_text
from sb3_vpg.zoo.tuning.search_space import ENTRY_UNCHANGED, sample_vpg_params, suggest_n_envs
from sb3_vpg.zoo.tuning.study import StudyOrigin, as_json, open_storage
from sb3_vpg.zoo.tuning.yaml_editor import write_entry

ENTRY = {"policy": "MlpPolicy", "n_timesteps": 1e5, "n_envs": 2, "batch_size": 32, "normalize": True, "gae_lambda": 0.9}
ENTRY |= {"n_episodes": 3, "ent_coef": "lin_0.1", "policy_kwargs": "dict(net_arch=[8])", "stats_window_size": 7}
NAMES = ("n_episodes", "gamma", "learning_rate", "ent_coef", "max_grad_norm", "normalize_advantage", "baseline")
NAMES += ("reward_to_go", "discount_steps", "use_sde", "policy_kwargs", "n_envs", "_stats_window_size")
ZOO_KEYS = ("n_envs", "n_timesteps", "normalize")
CRITIC_NAMES = ("n_steps", "gae_lambda", "vf_learning_rate", "n_critic_updates", "batch_size")


def described(model: VPG) -> dict[str, Any]:
    """:return: the hyperparameters of a model"""
    names = NAMES + (CRITIC_NAMES if model.baseline == "value" else ())
    return {name: getattr(model, name) for name in names}


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A list that gets the hyperparameters of every model that is built."""
    models: list[dict[str, Any]] = []
    setup = VPG._setup_model
    monkeypatch.setattr(VPG, "_setup_model", lambda model: (setup(model), models.append(described(model)))[0])
    return models


def test_the_entry_trains_with_the_hyperparameters_of_the_best_trial(
    tmp_path: Path, built: list[dict[str, Any]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    search = ["optimize", "--verbose", "0", "--eval-episodes", "1", "--n-startup-trials", "2", "--no-optim-plots"]
    # The search begins with an entry that learns nothing, so it is not the best
    search += ["--seed", "5", "-params", "learning_rate:0.0", "n_envs:1"]
    search += ["--storage", "logs/study.log", "--study-name", "mine"]
    assert main([*search, "--n-trials", "4", "-n", "800"]) == 0
    assert main(["best_entry", "--storage", "logs/study.log", "-o", "mine.yml"]) == 0
    printed = capsys.readouterr().out
    best = int(re.search(r"study mine: trial (\d+)", (tmp_path / "mine.yml").read_text()).group(1))
    command = next(line for line in printed.splitlines() if line.startswith("mine.yml has")).split("sb3-vpg ")[1]
    assert main([*command.split(), "--verbose", "0", "--eval-freq", "-1"]) == 0
    assert len(built) == 5
    assert built[4] == built[best]


def test_every_draw_survives_a_yaml_file() -> None:
    """The entry that the search began with has other values; the draws cover each baseline and the unchanged entry."""
    register()
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.enqueue_trial({}, user_attrs={ENTRY_UNCHANGED: True})
    origin = StudyOrigin("vpg", "CartPole-v1", as_json(ENTRY))
    kwargs = {**ENTRY, "policy_kwargs": {"net_arch": [8]}}
    for number in range(25):
        trial = study.ask()
        n_envs = suggest_n_envs(trial, ENTRY["n_envs"])
        drawn = sample_vpg_params(trial, 2, n_envs, {})
        trial.set_user_attr("n_timesteps", 1000 + number)
        study.tell(trial, 0.0)
        entry = yaml.safe_load(yaml.safe_dump(best_hyperparams(origin, study.trials[-1])))
        assert (entry.pop("n_timesteps"), entry.pop("normalize")) == (1000 + number, True)
        # The zoo reads it in the same way
        entry["policy_kwargs"] = eval(entry["policy_kwargs"], {"nn": nn, "dict": dict})
        read = VPG(env=vector_env(entry.pop("n_envs"), action_space=CONTINUOUS), **entry)
        of_vpg = {name: value for name, value in {**kwargs, **drawn}.items() if name not in ZOO_KEYS}
        assert described(read) == described(VPG(env=vector_env(n_envs, action_space=CONTINUOUS), **of_vpg))


def test_an_entry_is_readable_and_says_where_it_comes_from() -> None:
    register()
    study = optuna.create_study(direction="maximize", study_name="readable")
    StudyOrigin("vpg", "CartPole-v1", as_json({"policy": "MlpPolicy", "n_timesteps": 5e4})).save(study)
    study.enqueue_trial({"baseline": "none", "learning_rate": 0.0034567, "schedule": "linear", "one_minus_gamma": 0.0123456})
    for seed in (3, 4):
        trial = study.ask()
        sample_vpg_params(trial, 0, 4, {})
        for name, value in (("seed", seed), ("n_timesteps", 50_000), ("n_eval_episodes", 20)):
            trial.set_user_attr(name, value)
        study.tell(trial, 471.25 - seed)
    env_id, text = entry_text(study)
    assert env_id == "CartPole-v1"
    numbers = ("learning_rate: lin_0.00346\n", "gamma: 0.9877\n")
    for expected in ("2 trials", "50,000 steps", "468.25", "20 episodes", "3, 4", *numbers):
        assert expected in text
    assert not re.search(r"20\d\d-|one_minus|_pow|reward_to_go|vf_learning_rate", text)


def refusal(storage: str, capsys: pytest.CaptureFixture[str], *others: str) -> str:
    assert main(["best_entry", "--storage", storage, *others]) == 1
    return capsys.readouterr().err


def test_a_study_without_an_entry_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    database = f"sqlite:///{tmp_path}/s.db"
    assert "no such file" in refusal(database, capsys)
    assert "no such file" in refusal(f"{tmp_path}/s.log", capsys)
    assert "must be a journal file" in refusal("study.db", capsys)
    assert not (tmp_path / "s.db").exists(), "a refusal creates no database"
    with open_storage(database) as storage:
        study = optuna.create_study(storage=storage, study_name="foreign")
        assert "not created by sb3-vpg" in refusal(database, capsys)
        assert "it has 'foreign'" in refusal(database, capsys, "--study-name", "other")
        StudyOrigin("vpg", "CartPole-v1", as_json({"policy": "MlpPolicy"})).save(study)
        assert "no completed trial" in refusal(database, capsys)
        optuna.create_study(storage=storage, study_name="second")
        assert "several studies" in refusal(database, capsys)
        StudyOrigin("vpg", "CartPole-v1", as_json({"policy": nn.Tanh})).save(study)
        assert "YAML cannot express" in refusal(database, capsys, "--study-name", "foreign")


NEW = "B-v0:\n  # new\n  gamma: 0.5\n"
FILE = """# head
A-v0:
  gamma: 0.9 # mine

# of B
B-v0:
  gamma: 0.8
  policy_kwargs:
    net_arch: [8,
      8]
# of C
C-v0:
  n: 1
"""


def test_entries_are_added_and_everything_else_stays(tmp_path: Path) -> None:
    file = tmp_path / "new" / "mine.yml"
    write_entry(file, "B-v0", NEW)
    assert file.read_text() == NEW
    file.write_text(FILE.replace("B-v0", "D-v0").rstrip())
    write_entry(file, "B-v0", NEW)
    assert file.read_text() == FILE.replace("B-v0", "D-v0") + "\n" + NEW


def test_an_entry_is_replaced_only_with_force(tmp_path: Path) -> None:
    file = tmp_path / "mine.yml"
    file.write_text(FILE)
    with pytest.raises(ValueError, match="has an entry for B-v0 already: add --force"):
        write_entry(file, "B-v0", NEW)
    assert file.read_text() == FILE
    write_entry(file, "B-v0", NEW, force=True)
    old = FILE[FILE.index("B-v0") : FILE.index("# of C")]
    assert file.read_text() == FILE.replace(old, NEW)
    write_entry(file, "B-v0", NEW.replace("0.5", "0.6"), force=True)
    assert json.dumps(yaml.safe_load(file.read_text())["B-v0"]) == '{"gamma": 0.6}'


@pytest.mark.parametrize(
    "text",
    ["B-v0: &b\n  gamma: 0.8\nC-v0:\n  <<: *b\n", "{B-v0: {gamma: 0.8}, C-v0: {n: 1}}\n", "[B-v0]\n", "B-v0: {\n"],
    ids=["anchor", "flow", "list", "broken"],
)
def test_a_file_that_cannot_be_edited_safely_is_left_unchanged(tmp_path: Path, text: str) -> None:
    file = tmp_path / "mine.yml"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"mine\.yml"):
        write_entry(file, "B-v0", NEW, force=True)
    assert file.read_text() == text


def test_an_entry_that_is_an_alias_of_another_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / "mine.yml"
    file.write_text("A-v0: &a\n  gamma: 0.8\nB-v0: *a\nC-v0: *a\n")
    write_entry(file, "B-v0", NEW, force=True)
    assert file.read_text() == f"A-v0: &a\n  gamma: 0.8\n{NEW}C-v0: *a\n"


def test_rollouts_of_a_fixed_length_keep_it_without_a_critic() -> None:
    """``n_steps`` has no effect with ``n_episodes``, but it has without a critic."""
    register()
    fixed = {"n_envs": 1, "n_timesteps": 1e4, "policy": "MlpPolicy", "baseline": "none", "n_steps": 50, "gae_lambda": 0.9}
    unchanged = optuna.trial.create_trial(value=1.0, user_attrs={ENTRY_UNCHANGED: True})
    assert best_hyperparams(StudyOrigin("vpg", "CartPole-v1", fixed), unchanged) == fixed
    episodes = {**fixed, "n_episodes": 2}
    kept = best_hyperparams(StudyOrigin("vpg", "CartPole-v1", episodes), unchanged)
    assert kept == {name: value for name, value in episodes.items() if name not in ("n_steps", "gae_lambda")}


@pytest.mark.parametrize("style", [">", "|", "|-"])
def test_comments_after_a_block_of_text_stay(tmp_path: Path, style: str) -> None:
    file = tmp_path / "file.yml"
    first = f"CartPole-v1:\n  n_envs: 1\n  policy_kwargs: {style}\n    dict(\n    # no comment\n    net_arch=[])\n"
    rest = "\n# comment of Acrobot\nAcrobot-v1:\n  n_envs: 3\n"
    file.write_text(first + rest)
    write_entry(file, "CartPole-v1", "CartPole-v1:\n  n_envs: 2\n", force=True)
    assert file.read_text() == "CartPole-v1:\n  n_envs: 2\n" + rest


def test_an_entry_with_a_comment_at_the_margin_is_replaced_with_all_its_lines(tmp_path: Path) -> None:
    """An unindented comment inside an entry does not end it; an indented comment at its end belongs to it."""
    file = tmp_path / "file.yml"
    rest = "\n# comment of Acrobot\nAcrobot-v1:\n  n_envs: 3\n"
    file.write_text(f"CartPole-v1:\n  n_envs: 1\n# gamma: 0.9\n\n  n_steps: 8\n  # n_steps: 16\n{rest}")
    write_entry(file, "CartPole-v1", "CartPole-v1:\n  n_envs: 2\n", force=True)
    assert file.read_text() == "CartPole-v1:\n  n_envs: 2\n" + rest


def test_entries_that_threads_add_at_the_same_time_are_all_kept(tmp_path: Path) -> None:
    file = tmp_path / "file.yml"
    names = [f"Env{number}-v0" for number in range(12)]
    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(lambda name: write_entry(file, name, f"{name}:\n  n_envs: 1\n"), names))
    assert set(yaml.safe_load(file.read_text())) == set(names)
    assert [path.name for path in tmp_path.iterdir()] == ["file.yml"]
