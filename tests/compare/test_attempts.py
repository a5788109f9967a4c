"""An attempt at a run that was stopped is resumed if it is the same run, and removed if it is not."""

import threading
from dataclasses import replace
from pathlib import Path

import pytest
from comparison_results import task

from sb3_vpg.compare.runs.attempts import begin, claimed_task, failures, note_failure
from sb3_vpg.compare.runs.tasks import Task


def stopped(of: Task, folder: Path) -> Path:
    """Leave what an attempt that was stopped leaves, and return one of its files."""
    assert not begin(of, folder)
    file = of.run_folder(folder) / of.env_id / "args.yml"
    file.parent.mkdir(parents=True)
    file.touch()
    return file


def test_the_same_run_is_resumed(tmp_path: Path) -> None:
    file = stopped(task(), tmp_path)
    assert begin(task(), tmp_path)
    assert file.exists()


@pytest.mark.parametrize("changed", [{"n_timesteps": 2000}, {"entry": {"n_timesteps": 2000.0, "n_critic_updates": 3}}])
def test_a_run_with_other_settings_starts_again(changed: dict[str, object], tmp_path: Path) -> None:
    """A resumed run would have been trained with two sets of settings, and its record would name one."""
    file = stopped(task(), tmp_path)
    assert not begin(replace(task(), **changed), tmp_path)
    assert not file.exists()


def test_an_algorithm_without_checkpoints_starts_again(tmp_path: Path) -> None:
    file = stopped(task("a2c"), tmp_path)
    assert not begin(task("a2c"), tmp_path)
    assert not file.exists()


def test_a_damaged_state_file_is_ignored(tmp_path: Path) -> None:
    stopped(task(), tmp_path)
    (state,) = tmp_path.glob("output/*/task.json")
    state.write_text("{")
    assert not begin(task(), tmp_path)
    assert failures([task()], tmp_path) == {}


def test_a_failure_is_kept_until_the_next_attempt(tmp_path: Path) -> None:
    others = task(seed=1)
    note_failure(task(), tmp_path, "no memory")
    assert failures([task(), others], tmp_path) == {task().name: "no memory"}
    begin(task(), tmp_path)
    assert failures([task(), others], tmp_path) == {}


def test_a_locked_task_is_waited_for(tmp_path: Path) -> None:
    """The worker of a comparison that was killed needs a moment to end; its task can be claimed then."""
    is_claimed, over = threading.Event(), threading.Event()

    def work() -> None:
        with claimed_task(task(), tmp_path):
            is_claimed.set()
            over.wait(60)

    thread = threading.Thread(target=work)
    thread.start()
    assert is_claimed.wait(60)
    with pytest.raises(ValueError, match="another process"), claimed_task(task(), tmp_path, seconds=0):
        pass
    threading.Timer(0.5, over.set).start()
    with claimed_task(task(), tmp_path):
        assert over.is_set()
    thread.join()
