"""VPG's loop collects the same as SB3's loop, which is given the actions that VPG's loop played."""

from typing import Any

import numpy as np
import pytest
import torch as th
from helpers import CONTINUOUS, OddlyNamedPolicy, RandomEnv, UsersBuffer, make_model, vector_env
from sb3_loop import (
    ACTIONS,
    OBSERVATIONS,
    POLICIES,
    RolloutRecorder,
    assert_same,
    assert_same_buffers,
    environments,
    model_for,
    play,
    replay,
)
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import SubprocVecEnv, VecNormalize

from sb3_vpg import VPG, on_policy_algorithm


def assert_collects_as_sb3(make: Any, **kwargs: Any) -> VPG:
    """Check that both loops give the same buffer, statistics and counters, and show callbacks the same."""
    ours, recorder, theirs, sb3_recorder = replay(make, **kwargs)
    assert_same_buffers(ours, theirs)
    assert recorder.calls == sb3_recorder.calls
    assert_same(recorder.rows, sb3_recorder.rows)
    assert [*map(dtypes, recorder.rows)] == [*map(dtypes, sb3_recorder.rows)]
    assert recorder.last_n_steps == sb3_recorder.last_n_steps == ours.n_steps
    assert ours.num_timesteps == theirs.num_timesteps > 0
    assert_same(list(ours.ep_info_buffer), list(theirs.ep_info_buffer))
    assert_same(ours._last_obs, theirs._last_obs)
    assert_same(ours._last_episode_starts, theirs._last_episode_starts)
    return ours


def dtypes(row: dict[str, Any]) -> dict[str, Any]:
    return {name: (x.dtype, x.shape) for name, x in row.items() if isinstance(x, np.ndarray)}


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("observation", OBSERVATIONS)
def test_collects_the_same_on_every_combination_of_spaces(observation, action):
    """Both loops collect the same in two rollouts with terminations and time-outs; the first ends within an episode."""
    model = assert_collects_as_sb3(lambda: model_for(observation, action))
    assert len(model.ep_info_buffer) == 10
    assert len(np.unique(model.rollout_buffer.actions.reshape(30, -1), axis=0)) > 1


@pytest.mark.parametrize("n_envs", [1, 3], ids=["one_env", "three_envs"])
@pytest.mark.parametrize("action", ["discrete", "box_2d"])
@pytest.mark.parametrize("policy", POLICIES)
def test_collects_the_same_with_every_policy(policy, action, n_envs):
    """Both loops collect the same, whether NumPy or torch computes the network, with shared and separate extractors."""
    if (policy, action) == ("float64", "box_2d"):
        action = "box_float64"  # the actions of this policy are float64 in both loops
    assert_collects_as_sb3(lambda: model_for("box", action, policy, n_envs))


@pytest.mark.parametrize("n_steps", [1, 600], ids=["one_step", "more_than_one_chunk"])
@pytest.mark.parametrize("policy", ["tanh", "extractor"])
def test_collects_the_same_in_short_and_in_long_rollouts(policy, n_steps):
    """A rollout may be shorter or longer than the chunks in which values are computed and noise is drawn."""
    assert_collects_as_sb3(lambda: model_for("box", "box", policy, n_steps=n_steps))


@pytest.mark.parametrize("action", ["discrete", "box"])
@pytest.mark.parametrize("observation", ["box", "dict"])
def test_collects_the_same_behind_vec_normalize(observation, action):
    """Both loops store normalised numbers, and bootstrap a time-out from the normalised terminal observation."""

    def make():
        env = environments(2, observation_space=OBSERVATIONS[observation], action_space=ACTIONS[action])
        keys = ["vector"] if observation == "dict" else None
        name = "MultiInputPolicy" if observation == "dict" else "MlpPolicy"
        return make_model(name, VecNormalize(env, gamma=0.9, norm_obs_keys=keys), n_steps=15, gamma=0.9)

    model = assert_collects_as_sb3(make)
    assert model.get_vec_normalize_env().obs_rms is not None


def test_collects_the_same_from_subproc_vec_env():
    """Both loops collect the same from ``SubprocVecEnv``, which returns infos as a tuple and new arrays at each step."""
    envs = []

    def make():
        envs.append(SubprocVecEnv([RandomEnv, RandomEnv], start_method="fork"))
        return make_model(env=envs[-1])

    try:
        assert_collects_as_sb3(make)
    finally:
        for env in envs:
            env.close()


class SuccessEnv(RandomEnv):
    """Returns ``is_success`` at every step, as goal environments do."""

    def step(self, action):
        *rest, info = super().step(action)
        return *rest, {**info, "is_success": self.steps % 4 == 0}


def test_success_rates_are_those_of_sb3():
    """Both loops store ``is_success`` of the last step of each episode, and of no other step."""

    def make():
        env = vector_env(2)
        env.envs = [SuccessEnv(), SuccessEnv()]
        return make_model(env=env)

    ours, _, theirs, _ = replay(make)
    assert list(ours.ep_success_buffer) == list(theirs.ep_success_buffer)
    assert len(ours.ep_success_buffer) == 10


def raise_rewards(callback):
    """Change rewards and observations in place, as callbacks do that shape rewards."""
    callback.locals["rewards"] += 10.0
    callback.locals["new_obs"] *= 0.5


def test_buffer_keeps_rewards_and_observations_that_a_callback_changes():
    """Both loops store the rewards and next observations that a callback changed in place."""
    model = assert_collects_as_sb3(model_for, step_hook=raise_rewards)
    assert model.rollout_buffer.rewards.min() > 4


@pytest.mark.parametrize("policy", ["tanh", "extractor"])
@pytest.mark.parametrize("stop_at", [1, 7, 15, 17])
def test_callback_that_returns_false_stops_at_that_step(stop_at, policy):
    """At any step, also the last of a rollout, False stops both loops without another step or ``_on_rollout_end``."""

    def go_on(callback):
        return callback.n_calls < stop_at

    recorder, sb3_recorder = RolloutRecorder(go_on), RolloutRecorder(go_on)
    ours = play(model_for(policy=policy), CallbackList([recorder]), rollouts=3)
    sb3 = play(model_for(policy=policy), sb3_recorder, 3, OnPolicyAlgorithm.collect_rollouts)
    assert recorder.calls == sb3_recorder.calls
    assert recorder.calls[-1] == "step"
    assert recorder.calls.count("step") == stop_at
    assert ours.num_timesteps == sb3.num_timesteps == 2 * stop_at
    assert ours.rollout_buffer.pos == sb3.rollout_buffer.pos == (stop_at - 1) % 15
    assert not ours.rollout_buffer.full
    assert len(ours.ep_info_buffer) == len(sb3.ep_info_buffer)


class ForwardPolicy(ActorCriticPolicy):
    """Counts the calls of its own ``forward``."""

    n_calls = 0

    def forward(self, obs, deterministic=False):
        self.n_calls += 1
        return super().forward(obs, deterministic)


def compile_policy(model):
    model.policy = th.compile(model.policy, backend="eager")
    th.compiler.reset()
    return model


def set_instance_forward(model):
    forward = model.policy.forward
    model.policy.forward = lambda *args, **kwargs: forward(*args, **kwargs)
    return model


BOX = {"action_space": CONTINUOUS}
PLAYED_BY_SB3S_LOOP = {
    "gsde": lambda: make_model(env=RandomEnv(**BOX), use_sde=True),
    "gsde_squashed": lambda: make_model(env=RandomEnv(**BOX), use_sde=True, policy_kwargs={"squash_output": True}),
    "class_forward": lambda: make_model(ForwardPolicy),
    "instance_forward": lambda: set_instance_forward(make_model()),
    "own_body": lambda: make_model(OddlyNamedPolicy),
    "users_buffer": lambda: make_model(rollout_buffer_class=UsersBuffer),
    "compiled": lambda: compile_policy(make_model()),
}


@pytest.mark.parametrize("make", PLAYED_BY_SB3S_LOOP.values(), ids=PLAYED_BY_SB3S_LOOP.keys())
def test_sb3s_loop_plays_what_overrides_sb3(make, monkeypatch):
    """SB3's loop plays gSDE, policies with another ``forward`` or body, the user's buffer class and compiled policies."""
    loops = record_loops(monkeypatch)
    model = make()
    play(model, RolloutRecorder(), rollouts=2)
    assert loops == ["sb3", "sb3"]
    assert model.rollout_buffer.full
    if isinstance(model.policy, ForwardPolicy):
        assert model.policy.n_calls == 32


@pytest.mark.parametrize("policy", POLICIES)
def test_vpgs_loop_plays_all_other_policies(policy, monkeypatch):
    """VPG's loop plays the policies of the comparisons above, so that these compare two different loops."""
    loops = record_loops(monkeypatch)
    play(model_for(policy=policy), RolloutRecorder())
    assert loops == ["ours"]


def record_loops(monkeypatch):
    """:return: a list to which each loop appends its name when it starts"""
    loops = []

    def record(owner, name, label):
        original = getattr(owner, name)

        def recorded(*args, **kwargs):
            loops.append(label)
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, recorded)

    record(OnPolicyAlgorithm, "collect_rollouts", "sb3")
    record(on_policy_algorithm, "collect", "ours")
    return loops


def test_loop_is_chosen_at_the_start_of_each_rollout(monkeypatch):
    """A policy whose ``forward`` is replaced between two rollouts is played by SB3's loop until it is restored."""
    loops = record_loops(monkeypatch)
    model = make_model()
    callback: BaseCallback = RolloutRecorder()
    play(model, callback)
    play(set_instance_forward(model), callback)
    del model.policy.forward
    play(model, callback)
    assert loops == ["ours", "sb3", "ours"]


def test_sb3s_loop_collects_part_of_a_rollout(monkeypatch):
    """SB3's loop runs if ``collect_rollouts`` is called for fewer steps than the buffer holds."""
    loops = record_loops(monkeypatch)
    model = make_model()
    _, callback = model._setup_learn(16)
    assert model.collect_rollouts(model.get_env(), callback, model.rollout_buffer, n_rollout_steps=5)
    assert loops == ["sb3"]
    assert (model.rollout_buffer.pos, model.rollout_buffer.full) == (5, False)
