"""Checkpoint files: when they are written, what they hold, and how damaged ones and those of other runs are treated."""

import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from helpers import CONTINUOUS, RandomEnv, differing, make_model, weights
from resumption import Crash, CrashAt, assert_same, disturb, random_envs
from stable_baselines3 import A2C
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_vpg import VPG
from sb3_vpg.checkpoints.callback import TrainingCheckpoint
from sb3_vpg.checkpoints.files import latest, progress


class StopAt(BaseCallback):
    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    def _on_step(self) -> bool:
        return self.num_timesteps < self.step


def test_a_checkpoint_holds_no_pickle_and_is_a_model(tmp_path):
    """It holds plain data and arrays, and ``VPG.load`` reads it like any other model."""
    model = make_model(env=VecNormalize(random_envs()), learning_rate=lambda progress: 0.01)
    with pytest.warns(UserWarning, match="learning_rate.*custom_objects"):
        model.learn(100, TrainingCheckpoint(tmp_path))
    path = latest(tmp_path)
    with zipfile.ZipFile(path) as archive:
        for name in ("data", "training.json", "vecnormalize.json"):
            assert ":serialized:" not in archive.read(name).decode()
            json.loads(archive.read(name))
    with pytest.raises(ValueError, match=r"learning_rate.*custom_objects"):
        VPG.load(path)
    loaded = VPG.load(path, custom_objects={"learning_rate": 0.01})
    observations = np.zeros((5, 3), dtype=np.float32)
    np.testing.assert_array_equal(
        model.predict(observations, deterministic=True)[0], loaded.predict(observations, deterministic=True)[0]
    )


def test_checkpoints_are_written_between_iterations_and_on_request(tmp_path):
    """They are written before the first rollout after ``save_freq`` steps, before the next on request, and at the end."""

    class Request(BaseCallback):
        def _on_step(self):
            if self.num_timesteps == 70:
                checkpoint.request()
            return True

    checkpoint = TrainingCheckpoint(tmp_path, save_freq=100, keep=10)
    make_model(env=random_envs()).learn(320, [Request(), checkpoint])
    # 32 steps in an iteration
    names = [f"checkpoint_{steps}_steps.zip" for steps in (96, 128, 224, 320)]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    assert progress(latest(tmp_path)) == (320, 320)


def test_only_the_latest_are_kept(tmp_path):
    make_model(env=random_envs()).learn(320, TrainingCheckpoint(tmp_path, save_freq=32, keep=3))
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"checkpoint_{steps}_steps.zip" for steps in (256, 288, 320)]


def test_a_requested_stop_loses_nothing(tmp_path):
    """After ``request_stop`` in a rollout, the rollout is finished and learned from, and the run resumes from there."""

    class Stop(BaseCallback):
        def _on_step(self):
            if self.num_timesteps == 70:
                self.model.request_stop()
            return True

    uninterrupted = make_model(env=random_envs()).learn(200)
    stopped = make_model(env=random_envs()).learn(200, [TrainingCheckpoint(tmp_path), Stop()])
    assert stopped.num_timesteps == 96
    assert progress(latest(tmp_path)) == (96, 200)
    disturb()
    assert_same(uninterrupted, make_model(env=random_envs()).learn(200, TrainingCheckpoint(tmp_path)))


def test_a_stop_in_the_middle_of_a_rollout_leaves_the_checkpoint_before(tmp_path):
    """A callback that returns False ends training at once, and training cannot resume in the middle of a rollout."""
    make_model(env=random_envs()).learn(200, [TrainingCheckpoint(tmp_path, save_freq=60), StopAt(70)])
    assert progress(latest(tmp_path)) == (64, 200)


def test_a_finished_run_is_not_trained_further(tmp_path, capsys):
    finished = make_model(env=random_envs()).learn(100, TrainingCheckpoint(tmp_path))
    again = make_model(env=random_envs()).learn(100, TrainingCheckpoint(tmp_path))
    assert_same(finished, again)
    printed = capsys.readouterr().out
    assert f"Training is complete after {finished.num_timesteps} of 100 steps" in printed
    assert "Taking up" not in printed


def test_further_training_of_the_same_model_does_not_resume(tmp_path):
    """``reset_num_timesteps=False`` continues from the model's own state; the checkpoints in the folder are not read."""
    model = make_model(env=random_envs()).learn(64, TrainingCheckpoint(tmp_path))
    model.learn(64, TrainingCheckpoint(tmp_path), reset_num_timesteps=False)
    assert model.num_timesteps == 128
    assert progress(latest(tmp_path)) == (128, 128)


def test_a_run_can_start_anew(tmp_path, capsys):
    first = make_model(env=random_envs()).learn(64, TrainingCheckpoint(tmp_path))
    again = make_model(env=random_envs(), seed=1).learn(96, TrainingCheckpoint(tmp_path, resume=False))
    assert differing(weights(first), weights(again))
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint_96_steps.zip"]
    assert "Taking up" not in capsys.readouterr().out


def damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    if how == "half":
        path.write_bytes(content[: len(content) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "bit":
        position = content.index(b"PK\x03\x04", 100) + 2000
        path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
    else:
        make_model().save(path)


@pytest.mark.parametrize("how", ["half", "empty", "bit", "model"])
def test_a_damaged_checkpoint_is_skipped(how, tmp_path):
    """The one before is used, with a warning that names the damaged file, and the result is the same."""
    uninterrupted = make_model(env=random_envs()).learn(200)
    with pytest.raises(Crash):
        make_model(env=random_envs()).learn(200, [TrainingCheckpoint(tmp_path, save_freq=32), CrashAt(150)])
    damage(latest(tmp_path), how)
    with pytest.warns(UserWarning, match=r"damaged checkpoints skipped: checkpoint_128_steps\.zip"):
        resumed = make_model(env=random_envs()).learn(200, TrainingCheckpoint(tmp_path, save_freq=32))
    assert_same(uninterrupted, resumed)
    assert progress(latest(tmp_path)) == (224, 200)


def test_a_run_whose_checkpoints_are_all_damaged_does_not_start_anew(tmp_path):
    make_model(env=random_envs()).learn(100, TrainingCheckpoint(tmp_path, keep=1))
    damage(latest(tmp_path), "half")
    with pytest.raises(ValueError, match=r"no checkpoint in .* can be read: checkpoint_128_steps\.zip"):
        make_model(env=random_envs()).learn(100, TrainingCheckpoint(tmp_path))


OTHERS = {
    "gamma": (lambda: make_model(env=random_envs(), gamma=0.5), "gamma was 0.99, and is 0.5 now"),
    "seed": (lambda: make_model(env=random_envs(), seed=1), "seed was 0, and is 1 now"),
    "n_envs": (lambda: make_model(env=random_envs(3)), "n_envs was 2, and is 3 now"),
    "network": (lambda: make_model(env=random_envs(), policy_kwargs={"net_arch": [9]}), "policy_kwargs was"),
    "actions": (lambda: make_model(env=random_envs(action_space=CONTINUOUS)), "action_space was"),
}


@pytest.mark.parametrize(("build", "message"), OTHERS.values(), ids=OTHERS.keys())
def test_a_checkpoint_of_another_run_is_refused(build, message, tmp_path):
    make_model(env=random_envs()).learn(64, TrainingCheckpoint(tmp_path))
    with pytest.raises(ValueError, match=message):
        build().learn(64, TrainingCheckpoint(tmp_path))


def test_another_total_is_refused(tmp_path):
    """Schedules depend on ``total_timesteps``: calling ``learn(N)`` twice is not ``learn(2N)``."""
    make_model(env=random_envs()).learn(64, TrainingCheckpoint(tmp_path))
    with pytest.raises(ValueError, match=r"run of 64 steps, but total_timesteps is 128"):
        make_model(env=random_envs()).learn(128, TrainingCheckpoint(tmp_path))


def test_other_versions_cause_a_warning(tmp_path, monkeypatch):
    make_model(env=random_envs()).learn(64, TrainingCheckpoint(tmp_path))
    monkeypatch.setattr("sb3_vpg.checkpoints.callback.versions", lambda: {"torch": "99.0"})
    with pytest.warns(UserWarning, match=r"torch \S+ is 99.0 now"):
        make_model(env=random_envs()).learn(64, TrainingCheckpoint(tmp_path))


def test_a_folder_that_cannot_be_written_does_not_end_training(tmp_path):
    """There is a warning, and the result is the same."""
    (tmp_path / "file").write_text("in the way")
    with pytest.warns(UserWarning, match=r"no checkpoint could be written after 64 steps .*training goes on"):
        model = make_model(env=random_envs()).learn(64, TrainingCheckpoint(tmp_path / "file"))
    assert_same(make_model(env=random_envs()).learn(64), model)


@pytest.mark.skipif(sys.platform == "win32", reason="limits of a process are Unix's")
def test_a_full_disk_leaves_the_checkpoint_before(tmp_path):
    """A write that fails leaves no partial file, and training can resume from the checkpoint before."""
    import resource

    class Fill(BaseCallback):
        def _on_step(self):
            if self.num_timesteps == 70:
                resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
            return True

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.warns(UserWarning, match="File too large.*resume from .*checkpoint_64_steps"):
            make_model(env=random_envs()).learn(200, [TrainingCheckpoint(tmp_path, save_freq=60), Fill(), StopAt(140)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint_64_steps.zip"]
    assert_same(
        make_model(env=random_envs()).learn(200), make_model(env=random_envs()).learn(200, TrainingCheckpoint(tmp_path))
    )


class HiddenEnv(RandomEnv):
    """Its state is not plain."""

    def __init__(self) -> None:
        super().__init__()
        self.engine = object()

    def reset(self, *, seed=None, options=None):
        if seed is not None:
            self.engine_seeds = [*getattr(self, "engine_seeds", []), seed]
        return super().reset(seed=seed, options=options)


@pytest.mark.parametrize("verbose", [0, 1])
def test_an_environment_without_a_state_begins_new_episodes(verbose, tmp_path):
    """Weights, optimisers, streams and statistics are exact. The new episodes differ from those at the start of the run."""

    def build():
        env = VecNormalize(DummyVecEnv([HiddenEnv] * 2))
        env.seed(5)
        return make_model(env=env)

    model = build().learn(64, TrainingCheckpoint(tmp_path, save_freq=32))
    statistics = model.get_vec_normalize_env().obs_rms.mean.copy()
    latest(tmp_path).unlink()
    with zipfile.ZipFile(latest(tmp_path)) as archive:
        assert json.loads(archive.read("training.json"))["env"]["base"] is None

    restored = []

    class Look(BaseCallback):
        def _on_training_start(self):
            restored.append((self.model.num_timesteps, weights(self.model), self.training_env.obs_rms.count))
            raise Crash

        def _on_step(self):
            return True

    resumed = build()
    message = r"perhaps not to the last bit: new episodes begin, because environment 0: the attribute 'engine' of HiddenEnv"
    with pytest.warns(UserWarning, match=message) as warned, pytest.raises(Crash):
        resumed.learn(64, [TrainingCheckpoint(tmp_path, save_freq=32, verbose=verbose), Look()])
    assert len(warned) == 1
    steps, state_dict, count = restored[0]
    assert steps == 32
    assert not differing(weights(VPG.load(latest(tmp_path))), state_dict)
    # 32 steps, the first observations, and those of the new episodes
    assert count == pytest.approx(32 + 2 + 2, abs=0.01)
    seeds = [env.unwrapped.engine_seeds for env in resumed.get_env().venv.envs]
    assert all(len(pair) == 2 and pair[0] != pair[1] for pair in seeds)
    assert statistics.shape == (3,)


def test_arguments_are_checked(tmp_path):
    with pytest.raises(ValueError, match="save_freq must be at least 1, but is 0"):
        TrainingCheckpoint(tmp_path, save_freq=0)
    with pytest.raises(ValueError, match="keep must be at least 1, but is 0"):
        TrainingCheckpoint(tmp_path, keep=0)


def test_other_algorithms_are_refused(tmp_path):
    with pytest.raises(TypeError, match="TrainingCheckpoint supports VPG, but not A2C"):
        A2C("MlpPolicy", make_vec_env("CartPole-v1")).learn(10, TrainingCheckpoint(tmp_path))


def test_monitor_files_that_were_emptied_cause_a_warning(tmp_path):
    """``Monitor`` empties its files by default. Training is exact all the same."""

    def learn():
        env = make_vec_env("CartPole-v1", n_envs=1, seed=0, monitor_dir=str(tmp_path))
        model = make_model(env=env)
        try:
            return model.learn(300, TrainingCheckpoint(tmp_path / "c", monitor_dir=tmp_path, verbose=0))
        finally:
            env.close()

    model = learn()
    with pytest.warns(UserWarning, match="rows of episodes are lost"):
        again = learn()
    assert_same(model, again)
