"""Collection with ``n_episodes``: the counted steps, what callbacks see, and the size of the buffer."""

from pathlib import Path
from typing import Any
from unittest import mock

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from gymnasium.wrappers import TransformAction, TransformObservation
from hypothesis import given, settings
from hypothesis import strategies as st
from mdps import Recorder, ScriptedEnv, play
from stable_baselines3 import A2C
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_vpg import VPG
from sb3_vpg.collection.buffers import EpisodeDictRolloutBuffer, EpisodeRolloutBuffer

LOCALS = ("self", "env", "callback", "rollout_buffer", "n_rollout_steps", "n_steps")
LOCALS += ("actions", "clipped_actions", "new_obs", "rewards", "dones", "infos")
BOX = spaces.Box(-0.1, 0.1, (2,), np.float32)


def script(*lengths: int) -> list[tuple[list[float], bool]]:
    """:return: episodes of these lengths with rewards 1, 2, …; every second one ends by time-out"""
    return [(list(np.arange(1.0, length + 1.0)), number % 2 == 1) for number, length in enumerate(lengths)]


def vector_env(*scripts: Any, **kwargs: Any) -> DummyVecEnv:
    return DummyVecEnv([lambda episodes=episodes: Monitor(ScriptedEnv(episodes, **kwargs)) for episodes in scripts])


def make(env: Any, **options: Any) -> VPG:
    arguments: dict[str, Any] = {"n_episodes": 2, "n_critic_updates": 1, "learning_rate": 0.01, "seed": 0, "device": "cpu"}
    policy = options.pop("policy", "MlpPolicy")
    model = VPG(policy, env, policy_kwargs={"net_arch": [8]}, **{**arguments, **options})
    model.set_logger(Logger(folder=None, output_formats=[]))
    return model


lengths = st.lists(st.integers(1, 6), min_size=1, max_size=4)


@settings(derandomize=True, deadline=None, max_examples=30)
@given(
    all_lengths=st.lists(lengths, min_size=1, max_size=3), quota=st.integers(1, 3), baseline=st.sampled_from(["value", "none"])
)
def test_each_environment_contributes_n_complete_episodes(all_lengths: Any, quota: int, baseline: Any) -> None:
    """In three updates, each environment contributes n_episodes complete episodes from a reset, and no other steps."""
    model = make(vector_env(*(script(*episodes) for episodes in all_lengths)), n_episodes=quota, baseline=baseline)
    first, n_steps = [0] * len(all_lengths), 0
    for _ in range(3):
        play(model)
        buffer = model.rollout_buffer
        rows = [0] * len(all_lengths)
        for env, episodes in enumerate(all_lengths):
            numbers = range(first[env], first[env] + quota)
            expected = [(n, t) for n in numbers for t in range(episodes[n % len(episodes)])]
            rows[env] = len(expected)
            assert buffer.counted[:, env].tolist() == [row < rows[env] for row in range(buffer.buffer_size)]
            np.testing.assert_array_equal(buffer.observations[: rows[env], env], expected)
            if baseline == "none":
                np.testing.assert_array_equal(buffer.rewards[: rows[env], env], [t + 1.0 for _, t in expected])
            assert buffer.episode_starts[: rows[env], env].tolist() == [float(t == 0) for _, t in expected]
        assert buffer.buffer_size == max(rows), "the buffer has a row without a counted step"
        n_steps += max(rows) * len(all_lengths)
        assert model.num_timesteps == n_steps
        batches = list(buffer.get(3))
        assert [len(batch.actions) for batch in batches[:-1]] == [3] * (len(batches) - 1)
        assert sum(len(batch.actions) for batch in batches) == sum(rows)
        # An episode that started while others finished ends with the reset
        first = [env.unwrapped.number + (env.unwrapped.age > 0) for env in model.get_env().envs]


def test_batch_holds_the_counted_steps_in_the_order_of_environments() -> None:
    """The minibatches hold the counted steps of the first environment in time order, then those of the second."""
    model = make(vector_env(script(2, 1), script(4, 3)))
    play(model)
    observations = th.cat([batch.observations for batch in model.rollout_buffer.get(4)]).tolist()
    first = [[0, 0], [0, 1], [1, 0]]
    second = [[0, 0], [0, 1], [0, 2], [0, 3], [1, 0], [1, 1], [1, 2]]
    assert observations == first + second


def test_weights_change_only_between_episodes() -> None:
    """Every step of an episode is played with the same weights, although every update changes them."""
    weights_of: dict[tuple[int, int], set[bytes]] = {}

    def keep_weights(variables: dict[str, Any], _: Any) -> bool:
        algorithm = variables["self"]
        weights = algorithm.policy.action_net.weight.detach().numpy().tobytes()
        for env, (number, _) in enumerate(algorithm._last_obs):
            weights_of.setdefault((env, int(number)), set()).add(weights)
        return True

    make(vector_env(script(3, 5), script(1, 2, 7)), n_episodes=1).learn(100, keep_weights)
    assert all(len(weights) == 1 for weights in weights_of.values())
    assert len(set.union(*weights_of.values())) > 3


def test_masked_steps_are_counted_as_steps_but_not_as_episodes() -> None:
    """The nine masked steps of the first environment count as timesteps; its three masked episodes are in no statistics."""
    model, recorder = make(vector_env(script(3), script(12)), n_episodes=1), Recorder()
    model.set_logger(Logger(folder=None, output_formats=[recorder]))
    model.learn(48, log_interval=1)
    assert model.num_timesteps == 48
    assert [dump["rollout/ep_len_mean"] for dump in recorder.dumps] == [7.5, 7.5]
    assert [dump["time/total_timesteps"] for dump in recorder.dumps] == [24, 48]
    assert sorted(entry["l"] for entry in model.ep_info_buffer) == [3, 3, 12, 12]


@pytest.mark.parametrize("action_space", [None, BOX], ids=["discrete", "box"])
@pytest.mark.parametrize("options", [{"baseline": "none"}, {"baseline": "value"}], ids=["none", "value"])
@pytest.mark.parametrize("n_episodes", [None, 1], ids=["steps", "episodes"])
def test_callbacks_see_the_same_as_in_a2c(n_episodes: int | None, options: dict[str, Any], action_space: Any) -> None:
    """Callbacks are called at the same moments as in A2C, and their ``locals`` have the same types and shapes."""

    def record(algorithm: Any) -> tuple[list[dict[str, Any]], list[str]]:
        types: list[dict[str, Any]] = []
        moments: list[str] = []

        class Record(BaseCallback):
            def _on_rollout_start(self) -> None:
                moments.append("start")

            def _on_step(self) -> bool:
                moments.append("step")
                types.append({name: describe(self.locals[name]) for name in LOCALS if name not in ("self", "callback")})
                assert self.locals["self"] is algorithm
                assert self.locals["n_steps"] == moments[::-1].index("start") - 1
                return True

            def _on_rollout_end(self) -> None:
                moments.append("end")
                assert algorithm.rollout_buffer.full
                assert algorithm.rollout_buffer.advantages.any()

        algorithm.learn(12, CallbackList([Record()]))
        return types, moments

    def describe(value: Any) -> Any:
        return (type(value), value.shape, value.dtype) if isinstance(value, np.ndarray) else type(value)

    # Episodes of three steps, so that rollouts of three steps and of one episode are the same
    env = vector_env(script(3), script(3), action_space=action_space)
    reference, moments = record(A2C("MlpPolicy", env, n_steps=3, device="cpu"))
    env = vector_env(script(3), script(3), action_space=action_space)
    ours, our_moments = record(make(env, n_steps=3, n_episodes=n_episodes, **options))
    for entry in (*reference, *ours):
        entry.pop("rollout_buffer")  # with n_episodes, its class is not SB3's
    assert ours == reference
    assert our_moments == moments


@pytest.mark.parametrize("stop_after", [1, 4, 5, 7])
@pytest.mark.parametrize("options", [{}, {"baseline": "none"}, {"baseline": "none", "n_episodes": None}], ids=str)
def test_callback_stops_training_at_any_step(options: dict[str, Any], stop_after: int) -> None:
    """Training stops at the step at which a callback returns False, and the next ``learn()`` starts a new rollout."""
    calls: list[int] = []

    def stop(variables: dict[str, Any], _: Any) -> bool:
        calls.append(variables["self"].num_timesteps)
        return len(calls) < stop_after

    model = make(vector_env(script(2, 3), script(1, 2)), n_steps=5, **options).learn(1000, stop)
    assert calls == [2 * (number + 1) for number in range(stop_after)]
    assert model.num_timesteps == 2 * stop_after
    # A rollout has five steps, with n_steps as with n_episodes
    assert model._n_updates == (stop_after - 1) // 5
    model.learn(20, reset_num_timesteps=False)
    assert model.num_timesteps >= 2 * stop_after + 10


def with_dict_observations(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    space = spaces.Dict({"where": env.observation_space, "flag": spaces.Discrete(2)})
    return TransformObservation(env, lambda where: {"where": where, "flag": int(where[1]) % 2}, space)


@pytest.mark.parametrize("baseline", ["value", "none", "average", "leave_one_out", "optimal"])
def test_dict_observations(baseline: Any) -> None:
    """Dict observations are stored by key, with one row per counted step, and VPG learns from them."""
    scripts = script(3, 2), script(1, 4)
    env = DummyVecEnv([lambda episodes=episodes: with_dict_observations(ScriptedEnv(episodes)) for episodes in scripts])
    model = make(env, policy="MultiInputPolicy", baseline=baseline)
    play(model)
    buffer = model.rollout_buffer
    assert type(buffer) is EpisodeDictRolloutBuffer
    np.testing.assert_array_equal(buffer.observations["flag"][..., 0], buffer.observations["where"][..., 1] % 2)
    assert len(next(iter(buffer.get())).observations["where"]) == 10
    weights = model.policy.action_net.weight.clone()
    model.learn(20)
    assert th.isfinite(model.policy.action_net.weight).all()
    assert not th.equal(model.policy.action_net.weight, weights)


@pytest.mark.parametrize("space", [BOX, spaces.MultiDiscrete([2, 3]), spaces.MultiBinary(3)], ids=["box", "multi", "binary"])
@pytest.mark.parametrize("baseline", ["value", "none", "optimal"])
def test_other_action_spaces(baseline: Any, space: spaces.Space[Any]) -> None:
    """The environment receives actions clipped to the space; the buffer keeps them as they were drawn."""
    received: list[Any] = []

    def record(action: Any) -> Any:
        received.append(action)
        return action

    scripts = script(3, 2), script(2, 3)
    envs = [TransformAction(ScriptedEnv(episodes, space), record, space) for episodes in scripts]
    model = make(DummyVecEnv([lambda env=env: env for env in envs]), baseline=baseline)
    play(model)
    drawn = model.rollout_buffer.actions.reshape(len(received), -1)
    assert all(space.contains(action) for action in received)
    expected = np.clip(drawn, space.low, space.high) if isinstance(space, spaces.Box) else drawn
    np.testing.assert_array_equal(received, expected)
    assert isinstance(space, spaces.Box) == (drawn.tolist() != np.array(received).tolist())
    model.learn(20)
    assert th.isfinite(model.policy.action_net.weight).all()


@pytest.mark.parametrize("baseline", ["value", "none", "average"])
@pytest.mark.parametrize(("freq", "draws"), [(-1, 1), (2, 3)])
def test_gsde_draws_noise_every_sde_sample_freq_steps(baseline: Any, freq: int, draws: int, monkeypatch: Any) -> None:
    """gSDE draws noise at the start of a rollout of five steps, and with a frequency of 2 also after steps 2 and 4."""
    env = vector_env(script(3, 2), script(2, 3), action_space=BOX)
    model = make(env, baseline=baseline, use_sde=True, sde_sample_freq=freq)
    reset_noise = mock.Mock(wraps=model.policy.reset_noise)
    monkeypatch.setattr(model.policy, "reset_noise", reset_noise)
    play(model)
    assert reset_noise.call_args_list == [mock.call(2)] * draws
    model.train()
    assert th.isfinite(model.policy.log_std).all()


@pytest.mark.parametrize("baseline", ["value", "none", "optimal"])
def test_vec_normalize(baseline: Any) -> None:
    """The buffer holds normalised observations and rewards; the statistics of episodes hold the unnormalised rewards."""
    env = VecNormalize(vector_env(script(6), script(9)), clip_reward=0.5)
    model = make(env, baseline=baseline).learn(60)
    # Unnormalised observations are integers from 0, rewards integers from 1
    assert model.rollout_buffer.rewards.max() <= 0.5
    assert model.rollout_buffer.observations.min() < 0.0
    assert {entry["r"] for entry in model.ep_info_buffer} == {21.0, 45.0}
    assert th.isfinite(model.policy.action_net.weight).all()


@pytest.mark.parametrize("baseline", ["value", "leave_one_out"])
def test_save_and_load_with_another_number_of_environments(baseline: Any, tmp_path: Path) -> None:
    """A model that was trained in two environments has the same weights, and collects n_episodes from each, in three."""
    model = make(vector_env(script(3, 2), script(1, 4)), baseline=baseline).learn(30)
    model.save(tmp_path / "model.zip")
    loaded = VPG.load(tmp_path / "model.zip", env=vector_env(script(2, 1), script(4), script(1)), device="cpu")
    for old, new in zip(model.policy.parameters(), loaded.policy.parameters(), strict=True):
        assert th.equal(old, new)
    loaded.set_logger(Logger(folder=None, output_formats=[]))
    play(loaded)
    assert type(loaded.rollout_buffer) is EpisodeRolloutBuffer
    assert loaded.rollout_buffer.counted.sum(axis=0).tolist() == [3, 8, 2]
    loaded.learn(30)


def test_error_names_the_environment_whose_episode_never_ends() -> None:
    """If an episode is longer than ``max_steps``, the error names its environment; an episode of that length is allowed."""
    # The buffer grows from 16 rows to 32 and to 50
    options = {"rollout_buffer_kwargs": {"max_steps": 50}, "n_episodes": 1, "n_steps": 16}
    model = make(vector_env(script(3), script(51), script(4)), **options)
    with pytest.raises(ValueError, match=r"Environments \[1\] .* 50 steps.*max_steps"):
        model.learn(1000)
    assert model.num_timesteps == 3 * 50
    assert len(model.rollout_buffer.rewards) == 50
    assert make(vector_env(script(3), script(50)), **options).learn(1)._n_updates == 1


def test_buffer_is_as_long_as_its_rollout() -> None:
    """All arrays of the buffer have as many rows as the longest episode has steps, in each rollout."""
    sizes = []
    model = make(vector_env(script(3, 40, 1, 7)), n_episodes=1, n_steps=4)
    for _ in range(5):
        play(model)
        buffer = model.rollout_buffer
        names = ("observations", "actions", "rewards", "returns", "episode_starts", "values", "log_probs", "advantages")
        assert {len(getattr(buffer, name)) for name in (*names, "counted")} == {buffer.buffer_size}
        sizes.append(buffer.buffer_size)
        model.train()
    assert sizes == [3, 40, 1, 7, 3]


@pytest.mark.parametrize("baseline", ["value", "optimal"])
def test_same_seed_gives_the_same_result(baseline: Any) -> None:
    """With ``n_episodes``, training with the same seed gives the same weights; another seed gives other weights."""

    def train(seed: int) -> th.Tensor:
        return make(vector_env(script(3, 2), script(1, 4)), baseline=baseline, seed=seed).learn(60).policy.action_net.weight

    assert th.equal(train(1), train(1))
    assert not th.equal(train(1), train(2))
