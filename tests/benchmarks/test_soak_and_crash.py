"""benchmarks/soak.py detects leaks, and benchmarks/crash.py detects runs that a kill damaged."""

import gc
import os
import shutil
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.save_util import load_from_zip_file, save_to_zip_file

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    soak, crash = map(import_module, ("soak", "crash"))
    kill_times, killed_process, run_integrity = (
        import_module(f"harness.{name}") for name in ("kill_times", "killed_process", "run_integrity")
    )

linux = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="memory and open files are read from /proc")
TOTAL = 1_000_000
FLAT = [soak.Sample(steps, steps / 1e5, steps / 1e5, 300.0, 7, 1, 340.0) for steps in range(10_000, TOTAL + 1, 10_000)]


def missed(samples: list[Any]) -> list[str]:
    return [goal.what for goal in soak.goals(samples, TOTAL) if not goal.met]


LEAKS = {
    "memory at the end": (lambda sample: replace(sample, memory=300 + sample.steps / 5e4), 2),
    "most memory": (lambda sample: replace(sample, memory=400 if 5e5 < sample.steps < 6e5 else 300), 1),
    "open files": (lambda sample: replace(sample, handles=7 + (sample.steps == 7e5)), 1),
    "threads": (lambda sample: replace(sample, threads=1 + (sample.steps > 7e5)), 1),
    "CPU": (lambda sample: replace(sample, cpu=sample.cpu + (sample.steps / 1e5) ** 2 / 50), 1),
}


@pytest.mark.parametrize("name", LEAKS)
def test_a_leak_misses_its_goal(name: str) -> None:
    leak, number = LEAKS[name]
    assert missed(FLAT) == []
    goals = missed([leak(sample) for sample in FLAT])
    assert goals[0].startswith(name)
    assert len(goals) == number


@linux
def test_samples_see_memory_and_open_files(tmp_path: Path) -> None:
    samples: list[Any] = []
    sampler = soak.SampleCallback(1, tmp_path, samples)
    sampler._on_training_start()
    gc.collect()
    sampler._take()
    held: list[Any] = [np.ones(200 * 2**17)]
    held += [(tmp_path / str(index)).open("w") for index in range(3)]
    sampler._take()
    for file in held[1:]:
        file.close()
    assert samples[1].handles - samples[0].handles == 3
    # What other tests have left may be freed meanwhile
    assert 170 < samples[1].memory - samples[0].memory < 210


@linux
def test_a_short_soak(tmp_path: Path) -> None:
    """A short run has a sample in each tenth, a monitor file, checkpoints, evaluations and the best model."""
    samples = soak.measure(100_000, tmp_path)
    assert [sample.steps * 10 // 100_000 for sample, _, _ in soak.tenths(samples, 100_000)] == list(range(1, 11))
    assert samples[-1].checkpoint > 0
    assert {"0.monitor.csv", "best_model.zip", "checkpoints", "evaluations.npz"} == set(os.listdir(tmp_path))
    assert len(np.load(tmp_path / "evaluations.npz")["timesteps"]) >= soak.N_EVALUATIONS - 1


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A run that was killed once, in the middle, and its folder."""
    folder = tmp_path_factory.mktemp("killed")
    size = kill_times.RunSize(steps=3_000, eval_freq=600, checkpoint_freq=500, episodes=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(crash, "draw_kill_times", lambda *_: [kill_times.KillTime("anywhere", 1_500, 0.0)])
        run = crash.kill_and_resume("run", "default", 2, 1, size, folder)
    return run, folder


@pytest.mark.expensive
def test_a_killed_run_is_resumed_and_ends_like_the_reference(killed: tuple[Any, Path]) -> None:
    run, _ = killed
    (kill,) = run.kills
    assert (kill.outcome, kill.damaged, run.differences) == ("resumed", [], [])
    assert kill.taken_up == kill.checkpoint >= 1_024
    assert kill.lost >= 0
    assert all(goal.met for goal in crash.goals([run], 1, crash.QUICK))
    bad_kill = replace(kill, steps=9_999, damaged=["best_model.zip"], outcome="damaged")
    bad_run = replace(run, kills=[bad_kill], differences=["best_model.zip: differs"])
    assert not any(goal.met for goal in crash.goals([bad_run], 1, crash.QUICK))


FILES = ["CartPole-v1.zip", "best_model.zip", "evaluations.npz", "0.monitor.csv"]
FILES += ["CartPole-v1/args.yml", "CartPole-v1/finished.txt"]


@pytest.mark.expensive
@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_reported(name: str, killed: tuple[Any, Path], tmp_path: Path) -> None:
    run = shutil.copytree(crash.find_run(killed[1] / "killed"), tmp_path / "run")
    assert run_integrity.damaged_files(run) == []
    content = (run / name).read_bytes()
    (run / name).write_bytes(content[:-3] if name.endswith((".zip", ".npz", ".csv")) else b"")
    (run / f".{name.replace('/', '')}.abc.part").write_bytes(content[:-3])
    (damaged,) = run_integrity.damaged_files(run)
    assert damaged.startswith(f"{name}: ")


def change_weights(run: Path) -> str:
    data, params, variables = load_from_zip_file(run / "best_model.zip", load_data=False)
    weight = params["policy"]["action_net.bias"]
    weight[0] = th.nextafter(weight[0], th.tensor(1.0))
    save_to_zip_file(run / "best_model.zip", data, params, variables)
    return "best_model.zip: differs"


def change_evaluation(run: Path) -> str:
    with np.load(run / "evaluations.npz") as log:
        arrays = dict(log)
    arrays["results"][-1, 0] += 1
    np.savez(run / "evaluations.npz", **arrays)
    return "evaluations.npz: differs"


def repeat_episode(run: Path) -> str:
    file = run / "1.monitor.csv"
    text = file.read_text()
    file.write_text(text + text.splitlines(keepends=True)[-1])
    return "1.monitor.csv: differs"


def leave_part(run: Path) -> str:
    (run / ".evaluations.npz.abc.part").mkdir()
    return ".evaluations.npz.abc.part: is not in both"


@pytest.mark.expensive
@pytest.mark.parametrize("change", [change_weights, change_evaluation, repeat_episode, leave_part])
def test_the_smallest_difference_is_reported(change: Any, killed: tuple[Any, Path], tmp_path: Path) -> None:
    run = shutil.copytree(crash.find_run(killed[1] / "killed"), tmp_path / "run")
    reference = crash.find_run(killed[1] / "reference")
    assert run_integrity.differences(run, reference) == []
    expected = change(run)
    assert run_integrity.differences(run, reference) == [expected]


def process_with_output(*lines: str) -> Any:
    """:return: a ``TrainingProcess`` that has printed these lines, without a process behind it"""
    process = killed_process.TrainingProcess.__new__(killed_process.TrainingProcess)
    process.events, process.lines, process._started = [], [], 0.0
    for line in lines:
        process._record(line)
    return process


OUTPUTS = {
    "resumed": ("Taking up training after 2,048 of 9,000 steps, from checkpoint.zip", 2048, "resumed"),
    "from another": ("Taking up training after 1,024 of 9,000 steps, from checkpoint.zip", 1024, "another point than 2,048"),
    "restarted": (
        "run_1 was killed before its first checkpoint, so it begins once more; its files are in run_1/interrupted_1",
        0,
        "another point",
    ),
    "complete": ("run_1 is complete: 2,048 of 2,000 steps", 2048, "resumed"),
    "silent": ("Seed: 1", None, "never started again"),
}


def test_the_package_prints_the_messages_that_the_patterns_match() -> None:
    package = Path(__file__).parents[2] / "sb3_vpg"
    sources = "".join((package / name).read_text() for name in ("checkpoints/callback.py", "zoo/train/session.py"))
    for message in ("Taking up training after ", "Training is complete after ", "begins once more", " is complete: "):
        assert message in sources, message


@pytest.mark.parametrize("name", OUTPUTS)
def test_the_outcome_of_a_kill_depends_on_where_training_continues(name: str) -> None:
    line, taken_up, outcome = OUTPUTS[name]
    kill = crash.Kill("", "", "", 2_300, 2_048, [])
    crash.set_outcomes(pending := [kill], process_with_output(line), fresh=False)
    assert kill.taken_up == taken_up
    assert outcome in kill.outcome
    assert bool(pending) == (name == "silent")


def test_the_table_of_an_evaluation_is_not_taken_for_that_of_a_rollout() -> None:
    process = process_with_output(
        "| total_timesteps | 512 |", "Eval num_timesteps=600, episode_reward=9", "|   total_timesteps   | 600   |"
    )
    assert [(event.kind, event.steps) for event in process.events] == [
        ("rollout", 512),
        ("evaluation", 600),
        ("evaluation table", 0),
    ]
    assert process.steps == 600


ACTIVITIES = {
    "imports": ([], []),
    "making the model": (["Seed: 1"], []),
    "training": (["| total_timesteps | 512 |"], []),
    "evaluating": (["| total_timesteps | 512 |"], [".evaluations.npz.abc.part/"]),
    "writing evaluations.npz": ([], [".evaluations.npz.abc.part/evaluations.npz"]),
    "writing checkpoint_8_steps.zip": ([], ["checkpoints/.checkpoint_8_steps.zip.abc.part"]),
    "ending": (["| total_timesteps | 512 |", "Saving to run_1"], []),
    "writing CartPole-v1.zip": (["Saving to run_1"], [".CartPole-v1.zip.abc.part/"]),
}


@pytest.mark.parametrize("expected", ACTIVITIES)
def test_partial_files_and_output_show_what_a_process_was_doing(expected: str, tmp_path: Path) -> None:
    lines, left = ACTIVITIES[expected]
    for name in left:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).mkdir() if name.endswith("/") else (tmp_path / name).touch()
    parts = [path for path in tmp_path.rglob("*") if run_integrity.name_of_partial(path.relative_to(tmp_path))]
    assert crash.activity(process_with_output(*lines), parts) == expected


def test_kill_times_have_every_target_and_are_uniform_over_the_run() -> None:
    events = [killed_process.Event(5 + index / 100, "rollout", 256 * (index + 1)) for index in range(200)]
    events.append(killed_process.Event(8.0, "saving", 0))
    size, rng, draw = kill_times.RunSize(), np.random.default_rng(0), kill_times.draw_kill_times
    drawn = [draw(events, 9, True, size, rng) for _ in range(100)]
    assert all(sorted(kill.target for kill in run) == sorted([*kill_times.TARGETS, kill_times.END]) for run in drawn)
    assert all((run[0].target, run[-1].target) == ("anywhere", kill_times.END) for run in drawn)
    assert all(run[0].steps < size.checkpoint_freq for run in drawn)
    assert max(kill.seconds for run in drawn for kill in run if kill.target == "the start") < 5
    steps = np.array([draw(events, 1, False, size, rng)[0].steps for _ in range(1000)])
    # The last third of this run's time comes after its last table
    assert [round(np.mean(part), 1) for part in (steps < 100 * 256, steps == 200 * 256)] == [0.3, 0.3]


def test_an_error_in_the_with_block_kills_the_process() -> None:
    with pytest.raises(RuntimeError), killed_process.TrainingProcess(["--env", "CartPole-v1"]) as process:
        raise RuntimeError
    with pytest.raises(ProcessLookupError):
        os.kill(process._process.pid, 0)
    assert sys.exc_info() == (None, None, None)
