"""Training that was interrupted or killed resumes exactly."""

import subprocess
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from helpers import CONTINUOUS, DICT, IMAGE, UsersBuffer, differing, make_model, weights
from killed_run import TOTAL, run
from resumption import Crash, CrashAt, assert_same, disturb, random_envs
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback, StopTrainingOnNoModelImprovement
from stable_baselines3.common.logger import KVWriter, Logger
from stable_baselines3.common.vec_env import VecNormalize

from sb3_vpg import VPG
from sb3_vpg.checkpoints.callback import TrainingCheckpoint
from sb3_vpg.checkpoints.files import latest, progress

CASES = {
    "plain": lambda: make_model(env=random_envs(), learning_rate="lin_0.01"),
    "minibatches": lambda: make_model(env=random_envs(3), batch_size=7),
    "normalised": lambda: make_model(env=VecNormalize(random_envs(2))),
    "episodes": lambda: make_model(env=random_envs(), n_episodes=2, baseline="leave_one_out"),
    "average": lambda: make_model(env=random_envs(1), n_episodes=1, baseline="average"),
    "images": lambda: make_model("CnnPolicy", random_envs(1, observation_space=IMAGE)),
    "dict": lambda: make_model("MultiInputPolicy", random_envs(1, observation_space=DICT)),
    "gsde": lambda: make_model(env=random_envs(action_space=CONTINUOUS), use_sde=True, sde_sample_freq=4),
    "users_buffer": lambda: make_model(env=random_envs(), rollout_buffer_class=UsersBuffer),
    "function": lambda: make_model(env=random_envs(), learning_rate=lambda progress: 0.01 * progress),
    "no_seed": lambda: make_model(env=random_envs(), seed=None),
}


@pytest.mark.filterwarnings(r"ignore:load\(path\) alone will not read")
@pytest.mark.parametrize("build", CASES.values(), ids=CASES.keys())
def test_resumed_training_equals_uninterrupted_training(build, tmp_path):
    """Equal to the last bit are weights, optimisers, streams and counters."""
    th.manual_seed(0)
    uninterrupted = build().learn(200, callback=TrainingCheckpoint(tmp_path / "uninterrupted", save_freq=60))
    after = th.get_rng_state()
    th.manual_seed(0)
    with pytest.raises(Crash):
        build().learn(200, callback=[TrainingCheckpoint(tmp_path / "killed", save_freq=60), CrashAt(150)])
    disturb()
    resumed = build().learn(200, callback=TrainingCheckpoint(tmp_path / "killed", save_freq=60, verbose=0))
    assert th.equal(after, th.get_rng_state())
    assert_same(uninterrupted, resumed)


KILLS = {"plain": [1300, 2200], "normalised": [2200], "native": [2200], "gsde": [2200]}
if find_spec("mujoco"):
    KILLS["mujoco"] = [2200]


@pytest.fixture(scope="module")
def killed_runs(tmp_path_factory):
    """A folder with runs, each killed in its own process; one more process then resumes and finishes all of them."""
    folder = tmp_path_factory.mktemp("killed")

    def process(step, *cases):
        program = Path(__file__).parents[1] / "support" / "killed_run.py"
        command = [sys.executable, str(program), str(folder), str(step), *cases]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == (-9 if step else 0), done.stderr

    for case, steps in KILLS.items():
        for step in steps:
            process(step, case)
    process(0, *KILLS)
    return folder


@pytest.mark.parametrize("case", KILLS)
def test_a_killed_process_resumes_in_another(case, killed_runs, tmp_path):
    """After ``kill -9`` in the middle of rollouts, models, evaluations, episodes and statistics are equal."""
    uninterrupted, killed = tmp_path / "uninterrupted", killed_runs / case
    model = run(uninterrupted, case, kill_at=0)
    resumed = VPG.load(killed / "final.zip", device="cpu")
    assert resumed.num_timesteps >= TOTAL
    assert not differing(weights(model), weights(resumed))
    assert not differing(weights(VPG.load(uninterrupted / "best_model")), weights(VPG.load(killed / "best_model")))
    assert len(np.load(killed / "evaluations.npz")["timesteps"]) >= 2
    assert (killed / "statistics.npz").is_file() == (case in ("normalised", "mujoco"))
    for path in uninterrupted.glob("*.npz"):
        first, second = np.load(path), np.load(killed / path.name)
        for key in first:
            np.testing.assert_array_equal(first[key], second[key])
    for path in uninterrupted.glob("*.monitor.csv"):
        assert rows(path) == rows(killed / path.name)
    assert case == "native" or list(uninterrupted.glob("*.monitor.csv"))


def rows(path: Path) -> list[list[str]]:
    """:return: return and length of each episode; the header has to occur exactly once"""
    lines = path.read_text().splitlines()
    assert lines[0].startswith("#")
    assert not any(line.startswith("#") for line in lines[1:])
    return [line.split(",")[:2] for line in lines[1:]]


class Recorder(KVWriter):
    """Keeps what is logged, except for times."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def write(self, key_values, key_excluded, step=0):
        self.lines.append({key: value for key, value in key_values.items() if key not in ("time/fps", "time/time_elapsed")})

    def close(self) -> None:
        pass


def test_the_log_continues_without_gaps_or_doubles(tmp_path):
    """It has the same values at the same iterations, also values that were recorded before the checkpoint."""

    def learn(folder, *callbacks):
        model, recorder = make_model(env=random_envs()), Recorder()
        model.set_logger(Logger(folder=None, output_formats=[recorder]))
        with suppress(Crash):
            model.learn(500, [TrainingCheckpoint(tmp_path / folder, save_freq=32 * 4, verbose=0), *callbacks], log_interval=3)
        return recorder.lines

    uninterrupted = learn("uninterrupted")
    # The checkpoint lies after iteration 8, so that the line of iteration 9 needs what was recorded before it
    before, after = learn("killed", CrashAt(32 * 8 + 5)), learn("killed")
    assert len(uninterrupted) >= 5
    assert before + after == uninterrupted
    assert "train/value_loss" in after[0]


def test_tensorboard_shows_each_step_once(tmp_path):
    """The run continues in its own folder, and the points after the checkpoint are purged."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")

    def learn(folder, *callbacks):
        model = make_model(env=random_envs(), tensorboard_log=str(tmp_path / folder))
        with suppress(Crash):
            checkpoint = TrainingCheckpoint(tmp_path / f"{folder}_c", save_freq=150, verbose=0)
            model.learn(500, [checkpoint, *callbacks], log_interval=1)

    learn("uninterrupted")
    learn("killed", CrashAt(420))
    learn("killed")
    assert [path.name for path in (tmp_path / "killed").iterdir()] == ["VPG_1"]
    points = {}
    for folder in ("uninterrupted", "killed"):
        events = accumulator.EventAccumulator(str(tmp_path / folder / "VPG_1"))
        events.Reload()
        points[folder] = [(event.step, event.value) for event in events.Scalars("train/value_loss")]
    assert points["killed"] == points["uninterrupted"]


def counting_callbacks(folder, eval_env):
    stop = StopTrainingOnNoModelImprovement(max_no_improvement_evals=1000)
    evaluation = EvalCallback(
        eval_env,
        callback_after_eval=stop,
        eval_freq=20,
        log_path=str(folder),
        best_model_save_path=str(folder),
        verbose=0,
        warn=False,
    )
    return evaluation, stop


def test_callbacks_continue_their_counts(tmp_path):
    """Callbacks of SB3, also nested ones, are restored by their attributes, a user's by its ``state_dict``."""

    class Own(BaseCallback):
        def __init__(self):
            super().__init__()
            self.found = {1, 2}

        def _on_step(self):
            self.found.add(self.num_timesteps)
            return True

        def state_dict(self):
            return {"found": sorted(self.found)}

        def load_state_dict(self, state):
            self.found = set(state["found"])

    def learn(folder, *more):
        evaluation, stop = counting_callbacks(tmp_path / folder, random_envs(1))
        own = Own()
        callbacks = [evaluation, own, TrainingCheckpoint(tmp_path / folder / "c", save_freq=64, verbose=0), *more]
        with suppress(Crash):
            make_model(env=random_envs()).learn(300, callbacks)
        return evaluation, stop, own

    uninterrupted = learn("uninterrupted")
    learn("killed", CrashAt(210))
    resumed = learn("killed")
    for one, other in zip(uninterrupted, resumed, strict=True):
        assert one.n_calls == other.n_calls
    assert uninterrupted[0].evaluations_results == resumed[0].evaluations_results
    assert uninterrupted[0].best_mean_reward == resumed[0].best_mean_reward
    assert (uninterrupted[1].no_improvement_evals, uninterrupted[1].last_best_mean_reward) == (
        resumed[1].no_improvement_evals,
        resumed[1].last_best_mean_reward,
    )
    assert uninterrupted[2].found == resumed[2].found


def test_results_after_the_checkpoint_are_dropped(tmp_path):
    """Best model and evaluations are those at the checkpoint until the run evaluates again."""
    evaluation, _ = counting_callbacks(tmp_path, random_envs(1))
    checkpoint = TrainingCheckpoint(tmp_path / "c", save_freq=64, verbose=0)
    with pytest.raises(Crash):
        make_model(env=random_envs()).learn(300, [evaluation, checkpoint, CrashAt(210)])
    steps = progress(latest(tmp_path / "c"))[0]
    assert np.load(tmp_path / "evaluations.npz")["timesteps"][-1] > steps

    class StopAtOnce(BaseCallback):
        def _on_training_start(self):
            raise Crash

        def _on_step(self):
            return True

    evaluation, _ = counting_callbacks(tmp_path, random_envs(1))
    checkpoint = TrainingCheckpoint(tmp_path / "c", save_freq=64, verbose=0)
    with pytest.raises(Crash):
        make_model(env=random_envs()).learn(300, [StopAtOnce(), evaluation, checkpoint])
    assert np.load(tmp_path / "evaluations.npz")["timesteps"].tolist() == evaluation.evaluations_timesteps
    assert evaluation.evaluations_timesteps[-1] <= steps
    assert VPG.load(tmp_path / "best_model").num_timesteps <= steps


def test_a_callback_whose_state_is_not_plain_is_refused_at_the_start(tmp_path):
    class Hidden(BaseCallback):
        def _on_step(self):
            return True

        def state_dict(self):
            return {"socket": object()}

    with pytest.raises(TypeError, match=r"state_dict\(\) of Hidden\['socket'\] is of the type builtins.object"):
        make_model(env=random_envs()).learn(64, [TrainingCheckpoint(tmp_path), Hidden()])
