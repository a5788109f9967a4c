"""VPG's own collection leaves behind what SB3's loop leaves behind: SB3's loop, given the same actions, is the oracle."""

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

from sb3_vpg import VPG
from sb3_vpg import on_policy_algorithm as on_policy


def assert_collects_as_sb3(make: Any, **kwargs: Any) -> VPG:
    """Everything that SB3's loop leaves behind: buffer, statistics, counters, and what callbacks were shown."""
    ours, seen, theirs, seen_by_sb3 = replay(make, **kwargs)
    assert_same_buffers(ours, theirs)
    assert seen.calls == seen_by_sb3.calls
    assert_same(seen.rows, seen_by_sb3.rows)
    assert [*map(dtypes, seen.rows)] == [*map(dtypes, seen_by_sb3.rows)]
    assert seen.last_n_steps == seen_by_sb3.last_n_steps == ours.n_steps
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
    """Two rollouts of two environments with terminations, time-outs and cuts in the middle of episodes."""
    model = assert_collects_as_sb3(lambda: model_for(observation, action))
    assert len(model.ep_info_buffer) == 10
    assert len(np.unique(model.rollout_buffer.actions.reshape(30, -1), axis=0)) > 1


@pytest.mark.parametrize("n_envs", [1, 3], ids=["one_env", "three_envs"])
@pytest.mark.parametrize("action", ["discrete", "box_2d"])
@pytest.mark.parametrize("policy", POLICIES)
def test_collects_the_same_with_every_policy(policy, action, n_envs):
    """Whether NumPy computes the network or torch, and whatever the extractor shares."""
    if (policy, action) == ("float64", "box_2d"):
        action = "box_float64"  # its actions are float64, as they are with SB3's loop
    assert_collects_as_sb3(lambda: model_for("box", action, policy, n_envs))


@pytest.mark.parametrize("n_steps", [1, 600], ids=["one_step", "more_than_one_chunk"])
@pytest.mark.parametrize("policy", ["tanh", "extractor"])
def test_collects_the_same_in_short_and_in_long_rollouts(policy, n_steps):
    """Values are computed a limited number of rows at a time, and noise is drawn for many steps in advance."""
    assert_collects_as_sb3(lambda: model_for("box", "box", policy, n_steps=n_steps))


@pytest.mark.parametrize("action", ["discrete", "box"])
@pytest.mark.parametrize("observation", ["box", "dict"])
def test_collects_the_same_behind_vec_normalize(observation, action):
    """The normalised numbers are stored, and those of a time-out are bootstrapped from the normalised last observation."""

    def make():
        env = environments(2, observation_space=OBSERVATIONS[observation], action_space=ACTIONS[action])
        keys = ["vector"] if observation == "dict" else None
        name = "MultiInputPolicy" if observation == "dict" else "MlpPolicy"
        return make_model(name, VecNormalize(env, gamma=0.9, norm_obs_keys=keys), n_steps=15, gamma=0.9)

    model = assert_collects_as_sb3(make)
    assert model.get_vec_normalize_env().obs_rms is not None


def test_collects_the_same_from_environments_in_processes_of_their_own():
    """SubprocVecEnv hands out infos in a tuple and arrays of its own."""
    made = []

    def make():
        made.append(SubprocVecEnv([RandomEnv, RandomEnv], start_method="fork"))
        return make_model(env=made[-1])

    try:
        assert_collects_as_sb3(make)
    finally:
        for env in made:
            env.close()


class Successes(RandomEnv):
    """Tells at every step whether it is a success, as goal environments do."""

    def step(self, action):
        *rest, info = super().step(action)
        return *rest, {**info, "is_success": self.steps % 4 == 0}


def test_success_rates_are_those_of_sb3():
    """``is_success`` counts where an episode ends, and nowhere else."""
    ours, _, theirs, _ = replay(lambda: make_model(env=environments_of(Successes)))
    assert list(ours.ep_success_buffer) == list(theirs.ep_success_buffer)
    assert len(ours.ep_success_buffer) == 10


def environments_of(kind):
    env = vector_env(2)
    env.envs = [kind(), kind()]
    return env


def raise_rewards(callback):
    """What reward shaping in a callback does."""
    callback.locals["rewards"] += 10.0
    callback.locals["new_obs"] *= 0.5


def test_what_a_callback_writes_into_the_arrays_is_what_is_stored():
    """Rewards and next observations, as in SB3's loop; some people shape rewards so."""
    model = assert_collects_as_sb3(model_for, on_step=raise_rewards)
    assert model.rollout_buffer.rewards.min() > 4


@pytest.mark.parametrize("policy", ["tanh", "extractor"])
@pytest.mark.parametrize("stop_at", [1, 7, 15, 17])
def test_a_callback_that_returns_false_stops_on_that_very_step(stop_at, policy):
    """Also on the last step of a rollout and in the second one: neither a further step nor an end of the rollout."""
    seen, theirs = (
        RolloutRecorder(lambda callback: callback.n_calls < stop_at),
        RolloutRecorder(lambda callback: callback.n_calls < stop_at),
    )
    ours = play(model_for(policy=policy), CallbackList([seen]), rollouts=3)
    sb3 = play(model_for(policy=policy), theirs, 3, OnPolicyAlgorithm.collect_rollouts)
    assert seen.calls == theirs.calls
    assert seen.calls[-1] == "step"
    assert seen.calls.count("step") == stop_at
    assert ours.num_timesteps == sb3.num_timesteps == 2 * stop_at
    assert ours.rollout_buffer.pos == sb3.rollout_buffer.pos == (stop_at - 1) % 15
    assert not ours.rollout_buffer.full
    assert len(ours.ep_info_buffer) == len(sb3.ep_info_buffer)


class ForwardPolicy(ActorCriticPolicy):
    """Plays its own way while it learns."""

    n_calls = 0

    def forward(self, obs, deterministic=False):
        self.n_calls += 1
        return super().forward(obs, deterministic)


def compiled(model):
    model.policy = th.compile(model.policy, backend="eager")
    th.compiler.reset()
    return model


def patched(model):
    forward = model.policy.forward
    model.policy.forward = lambda *args, **kwargs: forward(*args, **kwargs)
    return model


BOX = {"action_space": CONTINUOUS}
LEFT_TO_SB3 = {
    "gsde": lambda: make_model(env=RandomEnv(**BOX), use_sde=True),
    "gsde_squashed": lambda: make_model(env=RandomEnv(**BOX), use_sde=True, policy_kwargs={"squash_output": True}),
    "forward_of_its_class": lambda: make_model(ForwardPolicy),
    "forward_of_the_object": lambda: patched(make_model()),
    "body_as_a_whole": lambda: make_model(OddlyNamedPolicy),
    "users_buffer": lambda: make_model(rollout_buffer_class=UsersBuffer),
    "compiled": lambda: compiled(make_model()),
}


@pytest.mark.parametrize("make", LEFT_TO_SB3.values(), ids=LEFT_TO_SB3.keys())
def test_what_has_a_way_of_its_own_is_left_to_sb3s_loop(make, monkeypatch):
    """gSDE, a policy with another ``forward``, a buffer of the user's: SB3's loop and no other plays them."""
    loops = spied(monkeypatch)
    model = make()
    play(model, RolloutRecorder(), rollouts=2)
    assert loops == ["sb3", "sb3"]
    assert model.rollout_buffer.full
    if isinstance(model.policy, ForwardPolicy):
        assert model.policy.n_calls == 32


@pytest.mark.parametrize("policy", POLICIES)
def test_everything_else_is_played_by_the_loop_of_our_own(policy, monkeypatch):
    """So that the comparisons above compare two loops."""
    loops = spied(monkeypatch)
    play(model_for(policy=policy), RolloutRecorder())
    assert loops == ["ours"]


def spied(monkeypatch):
    """:return: a list that names each loop that runs"""
    loops = []
    for module, name, label in [(OnPolicyAlgorithm, "collect_rollouts", "sb3"), (on_policy, "collect", "ours")]:
        real = getattr(module, name)
        monkeypatch.setattr(
            module, name, lambda *args, real=real, label=label, **kwargs: (loops.append(label), real(*args, **kwargs))[1]
        )
    return loops


def test_the_loop_of_a_rollout_is_chosen_anew_each_time(monkeypatch):
    """A policy that is given a ``forward`` between two rollouts is heard from then on."""
    loops = spied(monkeypatch)
    model = make_model()
    callback: BaseCallback = RolloutRecorder()
    play(model, callback)
    play(patched(model), callback)
    del model.policy.forward
    play(model, callback)
    assert loops == ["ours", "sb3", "ours"]


def test_part_of_a_rollout_is_left_to_sb3s_loop(monkeypatch):
    """Whoever calls ``collect_rollouts`` for fewer steps than the buffer holds gets what SB3 makes of it."""
    loops = spied(monkeypatch)
    model = make_model()
    _, callback = model._setup_learn(16)
    assert model.collect_rollouts(model.get_env(), callback, model.rollout_buffer, n_rollout_steps=5)
    assert loops == ["sb3"]
    assert (model.rollout_buffer.pos, model.rollout_buffer.full) == (5, False)
