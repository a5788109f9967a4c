"""The tasks of a comparison, their records and references, and all settings that are refused before anything runs."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from comparison_results import record, task

from sb3_vpg.compare.api import _references
from sb3_vpg.compare.command import _steps
from sb3_vpg.compare.runs import tasks
from sb3_vpg.compare.runs.records import add, finished, read
from sb3_vpg.compare.runs.tasks import Plan, entry
from sb3_vpg.compare.score_normalization import random_return, references
from sb3_vpg.zoo.cli import main

ENVS = ("CartPole-v1", "Pendulum-v1")


def plan(**changed: Any) -> Plan:
    usual = Plan(("vpg", "a2c"), ENVS, (3, 4), {}, n_evaluations=20, eval_episodes=5, final_episodes=50, gym_packages=())
    return replace(usual, **changed)


def test_steps_are_common_or_those_of_each_entry() -> None:
    found = plan(n_timesteps={"CartPole-v1": 100_000}).tasks()
    steps = {(each.algo, each.env_id): each.n_timesteps for each in found}
    assert steps["vpg", "CartPole-v1"] == steps["a2c", "CartPole-v1"] == 100_000
    assert steps["a2c", "Pendulum-v1"] == 1_000_000, "the zoo's entry"
    assert {each.eval_freq * 20 for each in found if each.env_id == "CartPole-v1"} == {100_000}


def test_every_task_has_its_own_run_folder_and_tasks_are_ordered_by_seed() -> None:
    found = plan().tasks()
    assert len({each.run_folder(Path()) for each in found}) == len(found) == 8
    assert [each.seed for each in found] == [3] * 4 + [4] * 4
    assert found[0].run_folder(Path("x")) == Path("x/vpg/CartPole-v1_4")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"algos": ("vpg", "a3c")}, "a3c"),
        ({"algos": ("vpg", "vpg")}, "twice"),
        ({"algos": ()}, "no algorithm"),
        ({"env_ids": ("CartPole-v9",)}, "CartPole-v9"),
        ({"seeds": ()}, "no seed"),
        ({"n_timesteps": {"Acrobot-v1": 5}}, "Acrobot-v1"),
        ({"n_timesteps": {"CartPole-v1": 0}}, "n_timesteps of CartPole-v1 must be at least 1, but is 0"),
        ({"eval_episodes": 0}, "eval_episodes"),
        ({"algos": ("her",)}, "her"),
        ({"seeds": (-1, 0)}, "seeds must be from 0 .* one is -1"),
        ({"seeds": (10**6,)}, "seeds must be from 0"),
        ({"algos": ("vpg", "a2c"), "env_ids": ("CliffWalking-v1",)}, "different environments"),
    ],
)
def test_plans_that_cannot_run_are_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan(**changed).tasks()


def test_entries_are_those_that_train_uses() -> None:
    assert entry("a2c", "CartPole-v1") == {"n_envs": 8, "n_timesteps": 5e5, "policy": "MlpPolicy", "ent_coef": 0.0}
    assert entry("vpg", "Swimmer-v3") == {"n_timesteps": 1e6, "policy": "MlpPolicy"}, "the default"


def test_a_line_that_was_cut_off_is_ignored_and_then_replaced(tmp_path: Path) -> None:
    file = tmp_path / "deep/records.jsonl"
    runs = [record(task(seed=seed), 80.0 + seed) for seed in range(3)]
    for run in runs[:2]:
        add(run, file)
    file.write_bytes(file.read_bytes()[:-5])
    assert read(file) == runs[:1], "the process that wrote the second one was killed"
    add(runs[2], file)
    assert read(file) == [runs[0], runs[2]]
    assert set(finished([run.task for run in runs], file)) == {runs[0].task.name, runs[2].task.name}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"task": 3}, "not a record"),
        ({"final_returns": [1.0, math.nan]}, "missing or not finite"),
        ({"final_returns": []}, "missing or not finite"),
        ({"mean_returns": [1.0]}, "10 evaluations have 1 returns"),
        ({"final_returns": "abc"}, "not a record"),
        ({"num_timesteps": None}, "another version"),
    ],
)
def test_the_line_of_a_damaged_record_is_named(changed: dict[str, Any], message: str, tmp_path: Path) -> None:
    file = tmp_path / "records.jsonl"
    for seed in range(2):
        add(record(task(seed=seed), 80.0), file)
    lines = file.read_text().splitlines(keepends=True)
    values = {**json.loads(lines[0]), **changed}
    file.write_text(json.dumps({name: value for name, value in values.items() if value is not None}) + "\n" + lines[1])
    with pytest.raises(ValueError, match=rf"records.jsonl, line 1, .*{message}"):
        read(file)


def test_records_survive_an_editor_that_changes_the_end_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "records.jsonl"
    runs = [record(task(seed=seed), 80.0 + seed) for seed in range(3)]
    add(runs[0], file)
    file.write_bytes(file.read_bytes() + b"\n")
    add(runs[1], file)
    file.write_bytes(file.read_bytes().rstrip())
    assert read(file) == runs[:2]
    add(runs[2], file)
    assert read(file) == runs


def test_entries_with_different_environments_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    kwargs = {"vpg": {"max_episode_steps": 500}, "a2c": None}
    monkeypatch.setattr(tasks, "entry", lambda algo, env_id: {"n_timesteps": 1e5, "env_kwargs": kwargs[algo]})
    with pytest.raises(ValueError, match=r"different environments of CartPole-v1 .*vpg: .*500.*a2c: none"):
        plan().tasks()
    kwargs["a2c"] = kwargs["vpg"]
    assert {str(each.env_kwargs) for each in plan().tasks()} == {"{'max_episode_steps': 500}"}


def test_random_search_and_vpg_have_the_same_cliff() -> None:
    found = plan(algos=("vpg", "random_search"), env_ids=("CliffWalking-v1",)).tasks()
    assert {each.env_kwargs["max_episode_steps"] for each in found} == {500}


def test_environments_with_the_same_run_name_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for env_id in ("ns/Same-v0", "ns-Same-v0"):
        monkeypatch.setitem(gym.registry, env_id, gym.envs.registration.EnvSpec(env_id, "tests:none"))
    with pytest.raises(ValueError, match="environment named twice: ns-Same-v0, ns-Same-v0"):
        plan(env_ids=("ns/Same-v0", "ns-Same-v0")).tasks()


def test_a_given_threshold_is_used_for_one_call_only(tmp_path: Path) -> None:
    file = tmp_path / "references.json"
    assert _references({"CartPole-v1": {}}, {"CartPole-v1": 200.0}, file)["CartPole-v1"].threshold == 200
    assert _references({"CartPole-v1": {}}, {}, file)["CartPole-v1"].threshold == 475
    file.write_text('{"CartPole-v1": {}}')
    with pytest.raises(ValueError, match=r"references.json is damaged"):
        _references({"CartPole-v1": {}}, {}, file)


def test_records_of_runs_with_other_settings_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "records.jsonl"
    add(record(task(n_timesteps=1000), 80.0), file)
    with pytest.raises(ValueError, match=r"n_timesteps 1000, not 2000"):
        finished([task(n_timesteps=2000)], file)
    other = replace(task(n_timesteps=1000), entry={"n_timesteps": 5.0})
    with pytest.raises(ValueError, match="entry"):
        finished([other], file)
    assert list(finished([other], file, any_entry=True)) == [other.name], "as --report-only does"
    with pytest.raises(ValueError, match="n_timesteps 1000, not 2000"):
        finished([task(n_timesteps=2000)], file, any_entry=True)


def test_the_return_of_random_actions_is_measured() -> None:
    """On CartPole it is known: a little more than 22 steps."""
    assert 20 < random_return("CartPole-v1") < 25
    assert random_return("CartPole-v1", 3) == random_return("CartPole-v1", 3)
    # No time limit: the episodes end after 1,000 steps
    assert random_return("CliffWalking-v1", 2) < -1000
    kwargs = {"max_episode_steps": 5}
    assert random_return("CliffWalking-v1", 2, kwargs) >= -500, "five steps, each into the cliff at worst"


@pytest.mark.parametrize(
    ("env_id", "given", "message"),
    [
        ("Walker2d-v4", {}, r"--threshold Walker2d-v4=VALUE"),
        ("CartPole-v1", {"CartPole-v1": 10.0}, "above"),
        ("CartPole-v1", {"CartPole-v1": float("inf")}, "above"),
        ("CartPole-v1", {"Acrobot-v1": 10.0}, "not one of the environments"),
    ],
)
def test_thresholds_that_are_missing_or_not_valid_are_refused(env_id: str, given: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        references({env_id: {}}, given)


def test_the_source_of_a_threshold_is_named() -> None:
    found = references({"CartPole-v1": {}, "Pendulum-v1": {}}, {})
    assert (found["CartPole-v1"].threshold, found["CartPole-v1"].source) == (475.0, "the task's own")
    assert found["Pendulum-v1"].source == "stated by sb3-vpg"
    assert references({"CartPole-v1": {}}, {"CartPole-v1": 200.0})["CartPole-v1"].source == "given"


def test_the_flag_n_gives_steps_for_all_environments_or_for_one() -> None:
    assert _steps(["1e5"], ["A", "B"]) == {"A": 100_000, "B": 100_000}
    assert _steps(["B=2e5", "1e5"], ["A", "B"]) == {"A": 100_000, "B": 200_000}
    assert _steps(None, ["A"]) == {}
    for refused in (["many"], ["=1000"], ["1500.7"]):
        with pytest.raises(ValueError, match="ENV=N"):
            _steps(refused, ["A"])
    for twice in (["1000", "2000"], ["A=1", "A=2"]):
        with pytest.raises(ValueError, match="had"):
            _steps(twice, ["A"])


@pytest.mark.parametrize(
    ("flags", "refusal"),
    [
        (["--algos", "a3c"], "a3c"),
        (["-n", "0"], "n_timesteps"),
        (["--address", "auto"], "engine"),
        (["--report-only"], "holds no records.jsonl"),
    ],
)
def test_the_command_refuses_bad_flags_in_one_line(
    flags: list[str], refusal: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", "--envs", "CartPole-v1", "-f", str(tmp_path), *flags]) == 1
    message = capsys.readouterr().err
    assert refusal in message
    assert message.count("\n") == 1
    assert not (tmp_path / "vpg").exists()
