"""What a stopped attempt at a run has left: gone on with if it is the same run, and removed if it is not."""

import threading
from dataclasses import replace
from pathlib import Path

import pytest
from comparison_results import task

from sb3_vpg.compare.runs.attempts import alone, begin, failures, note_failure
from sb3_vpg.compare.runs.tasks import Task


def stopped(of: Task, folder: Path) -> Path:
    """:return: a file of a run that was begun and stopped"""
    assert not begin(of, folder)
    file = of.run_folder(folder) / of.env_id / "args.yml"
    file.parent.mkdir(parents=True)
    file.touch()
    return file


def test_the_same_run_is_gone_on_with(tmp_path: Path) -> None:
    file = stopped(task(), tmp_path)
    assert begin(task(), tmp_path)
    assert file.exists()


@pytest.mark.parametrize("changed", [{"n_timesteps": 2000}, {"entry": {"n_timesteps": 2000.0, "n_critic_updates": 3}}])
def test_a_run_with_other_settings_is_begun_anew(changed: dict[str, object], tmp_path: Path) -> None:
    """What it was trained with until then is not what its record would say."""
    file = stopped(task(), tmp_path)
    assert not begin(replace(task(), **changed), tmp_path)
    assert not file.exists()


def test_an_algorithm_that_cannot_go_on_begins_anew(tmp_path: Path) -> None:
    file = stopped(task("a2c"), tmp_path)
    assert not begin(task("a2c"), tmp_path)
    assert not file.exists()


def test_a_damaged_state_says_nothing(tmp_path: Path) -> None:
    stopped(task(), tmp_path)
    (state,) = tmp_path.glob("output/*/task.json")
    state.write_text("{")
    assert not begin(task(), tmp_path)
    assert failures([task()], tmp_path) == {}


def test_a_failure_is_remembered_until_the_next_attempt(tmp_path: Path) -> None:
    others = task(seed=1)
    note_failure(task(), tmp_path, "no memory")
    assert failures([task(), others], tmp_path) == {task().name: "no memory"}
    begin(task(), tmp_path)
    assert failures([task(), others], tmp_path) == {}


def test_one_process_at_a_time_and_the_next_one_waits(tmp_path: Path) -> None:
    """The worker of a killed comparison needs a moment to notice."""
    claimed, over = threading.Event(), threading.Event()

    def work() -> None:
        with alone(task(), tmp_path):
            claimed.set()
            over.wait(60)

    thread = threading.Thread(target=work)
    thread.start()
    assert claimed.wait(60)
    with pytest.raises(ValueError, match="another process"), alone(task(), tmp_path, seconds=0):
        pass
    threading.Timer(0.5, over.set).start()
    with alone(task(), tmp_path):
        assert over.is_set()
    thread.join()
