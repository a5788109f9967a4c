"""``GymVecEnv`` returns what ``DummyVecEnv`` and ``Monitor`` return."""

import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from helpers import CONTINUOUS, DICT, DISCRETE, VECTOR, RandomEnv
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.env_util import make_vec_env as sb3_make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor, load_results
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecFrameStack, VecNormalize
from vector_envs import DISABLED, SAME_STEP, TalkativeEnv, talkative

from sb3_vpg import VPG
from sb3_vpg.vec_env.gym_vec_env import GymVecEnv, make_vec_env
from sb3_vpg.vec_env.infos import split_infos


def equal(first: Any, second: Any) -> bool:
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(equal(first[key], second[key]) for key in first)
    return bool(np.array_equal(first, second))


def without_time(info: dict[str, Any]) -> dict[str, Any]:
    """Remove what may differ: the time, and the flag that ``DummyVecEnv`` also sets where no episode ended."""
    info = dict(info)
    if "terminal_observation" not in info:
        info.pop("TimeLimit.truncated", None)
    if "episode" in info:
        info["episode"] = {key: value for key, value in info["episode"].items() if key != "t"}
    return info


def assert_same_steps(ours: VecEnv, oracle: VecEnv, steps: int = 40) -> int:
    """Play the same actions in both and compare all that a learner gets. :return: the number of ended episodes"""
    for env in (ours, oracle):
        env.seed(3)
        env.action_space.seed(4)
    assert ours.observation_space == oracle.observation_space
    assert equal(ours.reset(), oracle.reset())
    assert ours.reset_infos == oracle.reset_infos
    ended = 0
    for _ in range(steps):
        actions = np.stack([oracle.action_space.sample() for _ in range(oracle.num_envs)])
        (observations, rewards, dones, infos), expected = ours.step(actions), oracle.step(actions)
        assert equal(observations, expected[0])
        for got, wanted in ((rewards, expected[1]), (dones, expected[2])):
            assert got.dtype == wanted.dtype
            np.testing.assert_array_equal(got, wanted)
        for got, wanted in zip(infos, expected[3], strict=True):
            assert equal(without_time(got), without_time(wanted)), (got, wanted)
        assert equal(dict(enumerate(ours.reset_infos)), dict(enumerate(oracle.reset_infos)))
        ended += int(dones.sum())
    return ended


@pytest.mark.parametrize("copy", [True, False], ids=["copy", "shared"])
@pytest.mark.parametrize("mode", [SAME_STEP, DISABLED], ids=lambda mode: mode.value)
@pytest.mark.parametrize(
    "observations", [VECTOR, DICT, spaces.Discrete(9), spaces.MultiDiscrete([3, 4])], ids=lambda s: type(s).__name__
)
@pytest.mark.parametrize("actions", [DISCRETE, CONTINUOUS], ids=["discrete", "continuous"])
def test_a_sync_env_equals_dummy_vec_env_with_monitor(
    observations: Any, actions: Any, mode: AutoresetMode, copy: bool
) -> None:
    """Equal are observations, rewards, dones, last observations, time-outs, statistics, nested infos and infos of resets."""
    makers = talkative(observation_space=observations, action_space=actions)
    ours = GymVecEnv(SyncVectorEnv(makers, autoreset_mode=mode, copy=copy))
    oracle = DummyVecEnv([lambda make=make: Monitor(make()) for make in makers])
    assert assert_same_steps(ours, oracle) > 15


@pytest.mark.parametrize("mode", [SAME_STEP, DISABLED], ids=lambda mode: mode.value)
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "piped"])
def test_an_async_env_equals_dummy_vec_env_with_monitor(mode: AutoresetMode, shared: bool) -> None:
    makers = talkative(2)
    with closing(GymVecEnv(AsyncVectorEnv(makers, autoreset_mode=mode, shared_memory=shared))) as ours:
        assert assert_same_steps(ours, DummyVecEnv([lambda make=make: Monitor(make()) for make in makers]), steps=20) > 5


def test_make_vec_env_equals_that_of_sb3_for_a_registered_id() -> None:
    """Both get the same seed."""
    ours = make_vec_env("CartPole-v1", 4, seed=5, vectorization_mode="sync")
    assert assert_same_steps(ours, sb3_make_vec_env("CartPole-v1", 4, seed=5), steps=60) > 5


def test_returned_observations_do_not_change_later() -> None:
    env = GymVecEnv(SyncVectorEnv(talkative(), autoreset_mode=SAME_STEP, copy=False))
    returned = [env.reset()]
    copies = [returned[0].copy()]
    for _ in range(30):
        observations, _, _, infos = env.step(np.zeros(3, dtype=int))
        for array in [observations, *(info["terminal_observation"] for info in infos if "terminal_observation" in info)]:
            returned.append(array)
            copies.append(array.copy())
    for array, copied in zip(returned, copies, strict=True):
        np.testing.assert_array_equal(array, copied)


def test_environments_without_infos_share_one_dict_that_is_new_in_each_step() -> None:
    env = make_vec_env("CartPole-v1", 3, seed=0)
    env.reset()
    first, second = (env.step(np.zeros(3, dtype=int))[3] for _ in range(2))
    assert first[0] is first[1] is first[2]
    assert first[0] == {}
    assert second[0] is not first[0]


def test_the_monitor_file_holds_every_episode(tmp_path: Path) -> None:
    ours = make_vec_env("CartPole-v1", 8, seed=0, monitor_dir=str(tmp_path))
    ours.reset()
    episodes = [info["episode"] for _ in range(60) for info in ours.step(np.ones(8, dtype=int))[3] if "episode" in info]
    ours.close()
    assert [file.name for file in tmp_path.iterdir()] == ["0.monitor.csv"]
    assert '"env_id": "CartPole-v1"' in (tmp_path / "0.monitor.csv").read_text().splitlines()[0]
    logged = load_results(str(tmp_path))
    assert len(logged) == len(episodes) > 30
    assert sorted(zip(logged["r"], logged["l"], strict=True)) == sorted((episode["r"], episode["l"]) for episode in episodes)


def test_info_keywords_are_logged_as_by_monitor(tmp_path: Path) -> None:
    keywords = ("is_success",)
    env = GymVecEnv(SyncVectorEnv([TalkativeEnv], autoreset_mode=SAME_STEP), str(tmp_path / "ours"), keywords)
    oracle = DummyVecEnv([lambda: Monitor(TalkativeEnv(), str(tmp_path / "oracle"), info_keywords=keywords)])
    assert_same_steps(env, oracle)
    for each in (env, oracle):
        each.close()
    files = [(tmp_path / f"{name}.monitor.csv").read_text().splitlines() for name in ("ours", "oracle")]
    # The times differ
    logged, expected = ([row.split(",")[:2] + row.split(",")[3:] for row in file[1:]] for file in files)
    assert logged == expected
    assert logged[0] == ["r", "l", "is_success"]
    silent = GymVecEnv(SyncVectorEnv([TalkativeEnv], autoreset_mode=SAME_STEP), info_keywords=("lives",))
    silent.reset()
    for _ in range(5):
        silent.step(np.zeros(1, dtype=int))
    with pytest.raises(ValueError, match=r"info_keywords names \['lives'\].*'is_success'"):
        silent.step(np.zeros(1, dtype=int))


def test_infos_without_masks_are_split() -> None:
    """gymnasium's RecordEpisodeStatistics has no masks inside of its dict, and other libraries have none at all."""
    info = {"speed": np.array([1, 2]), "map": "flat", "_own": np.array([0.5, 0.0]), "__own": np.array([True, False])}
    assert split_infos(info, range(2)) == {0: {"speed": 1, "map": "flat", "_own": 0.5}, 1: {"speed": 2, "map": "flat"}}
    statistics = {"stats": {"r": np.array([0.0, 3.5]), "l": np.array([0, 7])}, "_stats": np.array([False, True])}
    assert split_infos(statistics, range(2)) == {1: {"stats": {"r": 3.5, "l": 7}}}
    assert split_infos({}, range(2)) == {}


ALGORITHMS = {
    "VPG": (VPG, {"n_steps": 8}),
    "VPG with episodes": (VPG, {"n_episodes": 1, "baseline": "average"}),
    "A2C": (A2C, {"n_steps": 8}),
    "PPO": (PPO, {"n_steps": 8, "batch_size": 32}),
}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_algorithms_learn_in_it(name: str) -> None:
    """They learn and evaluate inside of SB3's wrappers, without the warning of ``evaluate_policy`` about a missing Monitor."""
    algorithm, settings = ALGORITHMS[name]
    env = VecFrameStack(VecNormalize(make_vec_env("CartPole-v1", 16, seed=0)), 2)
    model = algorithm("MlpPolicy", env, seed=0, device="cpu", **settings).learn(2000)
    assert model.ep_info_buffer
    returns, lengths = evaluate_policy(model, env, 16, return_episode_rewards=True)
    assert returns == lengths, "the returns are not normalised"


def test_an_algorithm_trains_the_same_as_in_dummy_vec_env() -> None:
    """With a sync env, every weight is equal to the last bit, also after time-outs and their bootstrap."""
    kwargs = {"max_episode_steps": 12}
    ours = make_vec_env("CartPole-v1", 4, vectorization_mode="sync", env_kwargs=kwargs)
    oracle = sb3_make_vec_env("CartPole-v1", 4, env_kwargs=kwargs)
    models = [A2C("MlpPolicy", env, seed=0, device="cpu").learn(400) for env in (ours, oracle)]
    first, second = (model.policy.state_dict() for model in models)
    assert all((first[name] == second[name]).all() for name in first)


@pytest.mark.parametrize(
    "action_space", [spaces.MultiBinary(3), spaces.Box(-3, 3, (2,), np.int32), spaces.MultiDiscrete([2, 3])], ids=str
)
@pytest.mark.parametrize("algorithm", [A2C, VPG])
def test_actions_of_every_kind_reach_the_environments(algorithm, action_space):
    """They are passed on as by ``DummyVecEnv``: for binary and integer actions, as floats."""

    class Takes(RandomEnv):
        def step(self, action):
            assert np.shape(action) == action_space.shape
            self.steps += 1
            return self.observation_space.sample(), 0.0, self.steps % 5 == 0, False, {}

    makers = [lambda: Takes(action_space=action_space)] * 2
    env = GymVecEnv(SyncVectorEnv(makers, autoreset_mode=SAME_STEP))
    algorithm("MlpPolicy", env, n_steps=8, device="cpu").learn(16)


class Limited(RandomEnv):
    """An environment with an argument of its own."""

    def __init__(self, size: int = 2) -> None:
        super().__init__(spaces.Box(-1, 1, (size,), np.float32))


@pytest.mark.parametrize("mode", ["sync", "async", None])
@pytest.mark.parametrize("make", [Limited, lambda size: Limited(size=size)], ids=["class", "function"])
def test_make_vec_env_equals_that_of_sb3_for_classes_and_functions(make: Any, mode: str | None) -> None:
    """Both get the same seed and the same arguments."""
    with closing(make_vec_env(make, 2, seed=5, env_kwargs={"size": 4}, vectorization_mode=mode)) as ours:
        assert assert_same_steps(ours, sb3_make_vec_env(make, 2, seed=5, env_kwargs={"size": 4}), steps=20) > 2


def test_seeds_of_classes_equal_those_of_sb3() -> None:
    ours, theirs = make_vec_env(Limited, 3, seed=5), sb3_make_vec_env(Limited, 3, seed=5)
    assert equal(ours.reset(), theirs.reset())
    assert ours.action_space.sample() == theirs.action_space.sample()


def test_a_missing_envpool_is_named_with_the_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "envpool", None)
    with pytest.raises(ImportError, match=r"EnvPool is not installed: pip install 'sb3-vpg\[envpool\]'"):
        make_vec_env("CartPole-v1", 2, vectorization_mode="envpool")
