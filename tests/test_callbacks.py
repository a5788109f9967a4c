"""Callbacks and loggers of SB3 work with VPG as with A2C and PPO."""

import json

import numpy as np
import pytest
from helpers import CONTINUOUS, DISCRETE, RandomEnv, make_model, vector_env
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CheckpointCallback,
    EvalCallback,
    ProgressBarCallback,
    StopTrainingOnMaxEpisodes,
    StopTrainingOnRewardThreshold,
)
from stable_baselines3.common.logger import configure
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_vpg import VPG

KEYS = {
    "train/policy_gradient_loss",
    "train/value_loss",
    "train/entropy_loss",
    "train/grad_norm",
    "train/explained_variance",
    "train/learning_rate",
    "train/vf_learning_rate",
    "train/n_updates",
}
DIAGNOSTICS = {"train/gradient_snr", "train/approx_kl", "train/explained_variance_after"}
# tqdm warns that its rich bar is experimental; SB3 filters this warning, but pytest resets the filter
quiet_bar = pytest.mark.filterwarnings("ignore::tqdm.TqdmExperimentalWarning")


class Recorder(BaseCallback):
    """Records the calls, and stops training at the given step."""

    def __init__(self, stop_at=None, result=False):
        super().__init__()
        self.stop_at, self.result, self.calls = stop_at, result, []

    def _on_training_start(self):
        self.calls.append("training_start")

    def _on_rollout_start(self):
        self.calls.append("rollout_start")

    def _on_step(self):
        self.calls.append("step")
        return self.result if self.n_calls == self.stop_at else True

    def _on_rollout_end(self):
        self.calls.append("rollout_end")

    def _on_training_end(self):
        self.calls.append("training_end")


def test_callback_is_called_as_sb3_documents_it():
    """The calls are training start, then rollout start, steps and rollout end of each iteration, then training end."""
    recorder = Recorder()
    make_model(n_steps=3).learn(6, callback=recorder)
    iteration = ["rollout_start", *["step"] * 3, "rollout_end"]
    assert recorder.calls == ["training_start", *iteration, *iteration, "training_end"]


@pytest.mark.parametrize("result", [False, np.bool_(False)], ids=["bool", "numpy_bool"])
@pytest.mark.parametrize("n_steps", [1, 16])
def test_callback_that_returns_false_stops_at_that_step(n_steps, result):
    """No further step is taken, and VPG does not learn from the unfinished rollout."""
    recorder = Recorder(stop_at=21, result=result)
    model = make_model(n_steps=n_steps).learn(100, callback=recorder)
    assert model.num_timesteps == recorder.calls.count("step") == 21
    assert model._n_updates == 20 // n_steps


@pytest.mark.parametrize("kind", ["list", "function"])
def test_callback_may_be_a_list_or_a_function(kind):
    """A list of callbacks and a function are accepted, as by every algorithm of SB3."""
    counter = []
    callback = [Recorder(), Recorder(stop_at=5)] if kind == "list" else lambda *_: counter.append(1) or len(counter) < 5
    assert make_model().learn(100, callback=callback).num_timesteps == 5


def double_sum_gae(rewards, values, dones, gamma, gae_lambda):
    """Equation 16 of Schulman et al. 2015, as a double sum; each episode ends within the rollout."""
    advantages = []
    for start in range(len(rewards)):
        total, weight = 0.0, 1.0
        for step in range(start, len(rewards)):
            following = 0.0 if dones[step] else values[step + 1]
            total += weight * (rewards[step] + gamma * following - values[step])
            weight *= gamma * gae_lambda
            if dones[step]:
                break
        advantages.append(total)
    return advantages


def test_rollout_end_sees_a_full_buffer_with_advantages_as_defined():
    """At the rollout end the advantages are GAE(gamma, lambda), not normalised; the returns are advantages plus values."""

    class Check(BaseCallback):
        checked = 0

        def _on_rollout_end(self):
            buffer = self.model.rollout_buffer
            assert buffer.full
            dones = [step % 6 == 5 for step in range(24)]
            plain = double_sum_gae(buffer.rewards[:, 0], buffer.values[:, 0], dones, 0.9, 0.8)
            np.testing.assert_allclose(buffer.advantages[:, 0], plain, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(buffer.returns, buffer.advantages + buffer.values, rtol=1e-6)
            self.checked += 1

        def _on_step(self):
            return True

    check = Check()
    make_model(n_steps=24, gamma=0.9, gae_lambda=0.8, normalize_advantage=True).learn(72, callback=check)
    assert check.checked == 3


def eval_env():
    return DummyVecEnv([lambda: Monitor(RandomEnv(rewards=lambda _: 1.0))])


def test_eval_callback_evaluates_and_keeps_the_best_model(tmp_path):
    """``EvalCallback`` writes its evaluations and the best model, which can be loaded."""
    callback = EvalCallback(
        eval_env(), eval_freq=16, n_eval_episodes=2, best_model_save_path=str(tmp_path), log_path=str(tmp_path), verbose=0
    )
    make_model().learn(48, callback=callback)
    assert callback.best_mean_reward == 6.0
    with np.load(tmp_path / "evaluations.npz") as evaluations:
        assert evaluations["timesteps"].tolist() == [16, 32, 48]
    assert VPG.load(tmp_path / "best_model.zip", device="cpu").num_timesteps == 16


def test_training_stops_at_a_reward_threshold():
    """Training stops at the first evaluation, after 8 steps, since its return of 6 reaches the threshold."""
    stop = StopTrainingOnRewardThreshold(reward_threshold=6.0)
    model = make_model().learn(160, callback=EvalCallback(eval_env(), callback_on_new_best=stop, eval_freq=8, verbose=0))
    assert model.num_timesteps == 8


def test_training_stops_after_a_number_of_episodes():
    """With a limit of four episodes of six steps, training stops after 24 steps."""
    assert make_model().learn(160, callback=StopTrainingOnMaxEpisodes(max_episodes=4)).num_timesteps == 24


def test_checkpoints_load(tmp_path):
    """Each file of ``CheckpointCallback`` can be loaded and is at the step in its name."""
    make_model(env=vector_env(2)).learn(
        64, callback=CheckpointCallback(save_freq=8, save_path=str(tmp_path), name_prefix="vpg")
    )
    steps = {16, 32, 48, 64}
    assert {path.name for path in tmp_path.iterdir()} == {f"vpg_{step}_steps.zip" for step in steps}
    for step in steps:
        assert VPG.load(tmp_path / f"vpg_{step}_steps.zip", device="cpu").num_timesteps == step


@quiet_bar
@pytest.mark.parametrize("how", ["argument", "callback"])
def test_progress_bar_is_shown(how, capsys):
    """``progress_bar=True`` and the callback show a bar that ends at 100 %."""
    arguments = {"progress_bar": True} if how == "argument" else {"callback": ProgressBarCallback()}
    make_model().learn(32, **arguments)
    printed = capsys.readouterr()
    assert "32/32" in printed.out + printed.err


def test_reset_num_timesteps_false_continues_the_count():
    """``reset_num_timesteps=False`` adds to the steps so far; by default the count starts at 0."""
    model = make_model().learn(32)
    assert model.learn(32, reset_num_timesteps=False).num_timesteps == 64
    assert model._n_updates == 4
    assert model.learn(16).num_timesteps == 16


@pytest.fixture
def open_logger(tmp_path):
    """A function that makes a logger of a format; its file is closed after the test."""
    loggers = []

    def build(kind):
        loggers.append(configure(str(tmp_path), [kind]))
        return loggers[-1]

    yield build
    for logger in loggers:
        logger.close()


def rows_of(folder, kind):
    if kind == "json":
        return [json.loads(line) for line in (folder / "progress.json").read_text().splitlines()]
    header, *lines = (folder / "progress.csv").read_text().splitlines()
    return [dict(zip(header.split(","), line.split(","), strict=True)) for line in lines]


@pytest.mark.parametrize("action_space", [DISCRETE, CONTINUOUS], ids=["discrete", "box"])
@pytest.mark.parametrize("kind", ["csv", "json"])
def test_log_files_hold_the_documented_keys(kind, action_space, open_logger, tmp_path):
    """The log has losses, step sizes and counters, and for ``Box`` actions their standard deviation."""
    model = make_model(env=RandomEnv(action_space=action_space), vf_learning_rate=0.125)
    model.set_logger(open_logger(kind))
    model.learn(64, log_interval=3)
    model.logger.dump(64)
    last = rows_of(tmp_path, kind)[-1]
    expected = KEYS | {"train/std"} if action_space is CONTINUOUS else KEYS
    assert {key for key in last if key.startswith("train/")} - DIAGNOSTICS == expected
    assert any(rows.keys() >= DIAGNOSTICS for rows in rows_of(tmp_path, kind))
    assert (float(last["train/learning_rate"]), float(last["train/vf_learning_rate"])) == (0.01, 0.125)
    assert int(last["train/n_updates"]) == 4
    assert all(np.isfinite(float(last[key])) for key in expected)


def test_logger_set_by_the_user_is_kept(open_logger):
    """The user's logger is used in several calls of learn()."""
    model, logger = make_model(), open_logger("csv")
    model.set_logger(logger)
    assert model.learn(16).logger is logger
    assert model.learn(16).logger is logger


@pytest.mark.parametrize(("log_interval", "dumps"), [(1, 30), (None, 3)], ids=["every_iteration", "default"])
def test_log_interval_is_counted_in_iterations(log_interval, dumps, open_logger, tmp_path):
    """The default logs every tenth iteration; A2C logs every hundredth, but its iterations are shorter."""
    model = make_model(n_steps=2)
    model.set_logger(open_logger("json"))
    model.learn(60, **({} if log_interval is None else {"log_interval": log_interval}))
    assert len(rows_of(tmp_path, "json")) == dumps


def test_tensorboard_run_is_called_vpg(tmp_path):
    """The run's folder is ``VPG_1``, also with ``reset_num_timesteps=False``; ``tb_log_name`` renames it."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    model = make_model(tensorboard_log=str(tmp_path))
    model.learn(48, log_interval=1).logger.close()
    model.learn(48, log_interval=1, reset_num_timesteps=False).logger.close()
    assert {path.name for path in tmp_path.iterdir()} == {"VPG_1"}
    model.learn(16, tb_log_name="mine").logger.close()
    assert {path.name for path in tmp_path.iterdir()} == {"VPG_1", "mine_1"}
    events = EventAccumulator(str(tmp_path / "VPG_1")).Reload()
    assert set(events.Tags()["scalars"]) >= KEYS - {"train/n_updates"}
    # SB3 writes the log before it trains, so the first iteration of a call has no losses in it
    assert [event.step for event in events.Scalars("train/value_loss")] == [32, 48, 80, 96]
