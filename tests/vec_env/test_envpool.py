"""EnvPool's environments in ``GymVecEnv``: gymnasium's transitions, episodes and time-outs, and errors that say what to do."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from env_parity import (
    PUT_STATE,
    episodes,
    largest_differences,
    linear_policy,
    p_values,
    random_policy,
    spin,
    state_kwargs,
)
from resumption import Crash, CrashAt
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.env_util import make_vec_env as sb3_make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor, load_results
from stable_baselines3.common.vec_env import VecNormalize

from sb3_vpg import VPG
from sb3_vpg.checkpoints.callback import TrainingCheckpoint
from sb3_vpg.checkpoints.env_state import get_state
from sb3_vpg.vec_env.envpool_vector_env import DIFFERING_IDS, SUPPORTED_IDS, EnvPoolVectorEnv
from sb3_vpg.vec_env.gym_vec_env import GymVecEnv, make_vec_env

pytest.importorskip("envpool", reason="EnvPool is not installed; it has no release for Python 3.10")
# Old versions of environments warn, and so does Box2D, whose import crashes Python if warnings are errors
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

BOX2D = [env_id for env_id in SUPPORTED_IDS if env_id not in PUT_STATE]


def envpool(env_id: str = "CartPole-v1", n_envs: int = 1, **kwargs: Any) -> GymVecEnv:
    return make_vec_env(env_id, n_envs, vectorization_mode="envpool", **kwargs)


@pytest.mark.parametrize("env_id", [env_id for env_id in SUPPORTED_IDS if env_id in PUT_STATE])
def test_each_step_is_gymnasiums(env_id: str) -> None:
    env = EnvPoolVectorEnv(env_id, 4, **state_kwargs(env_id))
    differences = largest_differences(env_id, env, random_policy(env.single_action_space, seed=0), 100)
    assert differences["terminated"] == 0
    # EnvPool's rewards, and some observations, have 32 bits
    assert differences["observation"] < 1e-5
    assert differences["reward"] < 1e-5


@pytest.mark.parametrize("env_id", BOX2D)
@pytest.mark.parametrize("matrix", [False, True], ids=["random", "matrix"])
def test_episodes_have_gymnasiums_distribution(env_id: str, matrix: bool) -> None:
    """
    Kolmogorov-Smirnov tests with 60 episodes of at most 150 steps; the seeds are fixed. ``benchmarks/envpool_parity.py`` plays
    more and longer ones.
    """
    played, short = [], {"max_episode_steps": 150}
    ours, theirs = envpool(env_id, 30, seed=1_000, env_kwargs=short), sb3_make_vec_env(env_id, 30, 2_000, env_kwargs=short)
    for seed, env in enumerate([ours, theirs]):
        n_observed = env.observation_space.shape[0]  # type: ignore[index]  # a Box
        policy = linear_policy(env.action_space, n_observed, 0) if matrix else random_policy(env.action_space, seed)
        played.append(episodes(env, policy, 2))
    values = p_values(*played)
    assert min(values.values()) * len(values) > 0.001, values


def test_the_refused_pendulum_still_turns_too_far_at_its_speed_limit() -> None:
    """If this fails, a new release of EnvPool may have corrected the environment, which could then be offered."""
    assert DIFFERING_IDS == ("Pendulum-v1",)
    assert largest_differences("Pendulum-v1", EnvPoolVectorEnv("Pendulum-v1", 4), spin, 100)["observation"] > 0.01
    with pytest.raises(ValueError, match=r"EnvPool is offered for CartPole-v1, .* but not for Pendulum-v1; use another"):
        envpool("Pendulum-v1")


@pytest.mark.parametrize("env_id", SUPPORTED_IDS)
def test_spaces_and_time_limits_are_gymnasiums(env_id: str) -> None:
    env = envpool(env_id, 2)
    assert env.reset().dtype == env.observation_space.dtype
    with gym.make(env_id) as single:
        assert env.observation_space == single.observation_space
        assert env.action_space == single.action_space
        assert env.spec == single.spec
    env.close()


def test_each_step_is_a_transition_of_the_task_until_time_limits() -> None:
    """
    gymnasium's CartPole repeats each step from the observation before it. The limit of 9 steps ends some episodes in whose
    last step the pole falls as well; these are no time-outs.
    """
    n_envs, limit, ended = 16, 9, {True: 0, False: 0, "both": 0}
    env = envpool(n_envs=n_envs, env_kwargs={"max_episode_steps": limit}, seed=0)
    single: Any = gym.make("CartPole-v1").unwrapped
    single.reset()
    observations: Any = env.reset()
    returns, lengths = np.zeros(n_envs), np.zeros(n_envs, dtype=int)
    for _ in range(200):
        before = observations
        observations, rewards, dones, infos = env.step(np.ones(n_envs, dtype=np.int64))
        returns += rewards
        lengths += 1
        for index in range(n_envs):
            PUT_STATE["CartPole-v1"](single, before[index])
            after, reward, falls, _, _ = single.step(1)
            assert rewards[index] == reward
            assert dones[index] == (falls or lengths[index] == limit)
            reached = infos[index]["terminal_observation"] if dones[index] else observations[index]
            np.testing.assert_allclose(reached, after, atol=1e-6)
            if dones[index]:
                assert infos[index]["TimeLimit.truncated"] is (not falls)
                assert (infos[index]["episode"]["r"], infos[index]["episode"]["l"]) == (returns[index], lengths[index])
                assert np.abs(observations[index]).max() <= 0.05, "the first observation of the next episode"
                ended[not falls] += 1
                ended["both"] += falls and lengths[index] == limit
                returns[index] = lengths[index] = 0
    assert min(ended.values()) > 10, ended
    env.close()


def rollout(env: GymVecEnv, n_steps: int = 60) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    results: list[np.ndarray] = [np.asarray(env.reset())]
    for _ in range(n_steps):
        # The same action for all, so that environments can be compared
        actions = np.full(env.num_envs, rng.integers(2))
        observations, rewards, dones, _ = env.step(actions)
        results += [np.asarray(observations), rewards, dones]
    return results


def assert_equal(first: list[np.ndarray], second: list[np.ndarray]) -> None:
    for mine, theirs in zip(first, second, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_the_seed_repeats_a_run_with_any_number_of_threads() -> None:
    first = rollout(envpool(n_envs=6, seed=4, env_kwargs={"num_threads": 1}))
    env = envpool(n_envs=6, seed=4, env_kwargs={"num_threads": 3})
    assert_equal(rollout(env), first)
    # Without a new seed, other episodes follow
    assert not np.array_equal(rollout(env)[0], first[0])
    env.seed(4)
    assert_equal(rollout(env), first)
    # As in DummyVecEnv, the i-th environment has the seed plus i
    env.seed(5)
    assert_equal([each[:-1] for each in rollout(env)], [each[1:] for each in first])
    env.close()
    assert not np.array_equal(envpool(n_envs=2).reset(), envpool(n_envs=2).reset())


@pytest.mark.parametrize("seed", [0, 2**31 - 1, 2**32 - 1, 2**63])
def test_all_seeds_of_gymnasium_are_taken(seed: int) -> None:
    assert_equal(rollout(envpool(n_envs=3, seed=seed), 3), rollout(envpool(n_envs=3, seed=seed), 3))


KWARGS = {
    "ctrl_cost_weight": 0.5,
    "forward_reward_weight": 3.0,
    "healthy_reward": 2.0,
    "terminate_when_unhealthy": False,
    "reset_noise_scale": 0.1,
    "max_episode_steps": 7,
}


def test_arguments_mean_the_same_as_in_gymnasium() -> None:
    env = EnvPoolVectorEnv("Hopper-v5", 4, **state_kwargs("Hopper-v5"), **KWARGS)
    policy = random_policy(env.single_action_space, seed=0)
    differences = largest_differences("Hopper-v5", env, policy, 100, KWARGS)
    assert max(differences.values()) < 1e-5, differences
    still = EnvPoolVectorEnv("HalfCheetah-v5", 2, reset_noise_scale=0)
    first, _ = still.reset(seed=0)
    assert np.ptp(first, axis=0).max() == 0


def test_statistics_are_those_of_monitor(tmp_path: Path) -> None:
    env = envpool("MountainCarContinuous-v0", 3, seed=0, monitor_dir=str(tmp_path), env_kwargs={"max_episode_steps": 5})
    assert env.env_is_wrapped(Monitor) == [True] * 3
    model = A2C("MlpPolicy", env, n_steps=5, device="cpu", seed=0).learn(30)
    assert list(load_results(str(tmp_path))["l"]) == [5] * 6
    # Without Monitor, this would warn
    evaluate_policy(model, env, n_eval_episodes=3)
    env.close()


@pytest.mark.parametrize("algorithm", [A2C, PPO, VPG])
@pytest.mark.parametrize("normalize", [False, True], ids=["plain", "normalised"])
def test_algorithms_train(algorithm: Any, normalize: bool) -> None:
    def trained() -> list[np.ndarray]:
        env = envpool("HalfCheetah-v5", 2, env_kwargs={"max_episode_steps": 20})
        model = algorithm("MlpPolicy", VecNormalize(env) if normalize else env, n_steps=64, seed=0, device="cpu")
        model.learn(256)
        assert len(model.ep_info_buffer) == 12
        env.close()
        return [parameter.detach().numpy() for parameter in model.policy.parameters()]

    first = trained()
    assert all(np.isfinite(parameter).all() for parameter in first)
    assert_equal(trained(), first)


def test_attributes() -> None:
    env = envpool(n_envs=2)
    assert [spec.id for spec in env.get_attr("spec")] == ["CartPole-v1"] * 2
    with pytest.raises(AttributeError, match="no Python objects, so 'gravity' cannot be set; pass env_kwargs instead"):
        env.set_attr("gravity", 1.0)


def test_the_state_cannot_be_saved() -> None:
    env = envpool(n_envs=2)
    env.reset()
    state = get_state(env)
    assert state["base"] is None
    assert state["missing"] == "EnvPoolVectorEnv cannot save the state of EnvPool's environments; use DummyVecEnv"


def test_a_resumed_run_begins_new_episodes_and_says_so(tmp_path: Path) -> None:
    def model() -> VPG:
        return VPG("MlpPolicy", envpool(n_envs=4, seed=0), n_steps=16, seed=0, device="cpu")

    with pytest.raises(Crash):
        model().learn(256, callback=[TrainingCheckpoint(tmp_path, save_freq=64), CrashAt(140)])
    resumed = model()
    with pytest.warns(
        UserWarning, match=r"new episodes begin, because EnvPoolVectorEnv cannot save the state of EnvPool's environments"
    ):
        resumed.learn(256, callback=TrainingCheckpoint(tmp_path, save_freq=64))
    assert resumed.num_timesteps == 256


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "env_kwargs": ({"env_kwargs": {"gravity": 1}}, r"CartPole-v1 of EnvPool does not take .*'gravity'.*max_episode_steps"),
    "value": ({"env_kwargs": {"max_episode_steps": "two"}}, "cannot be built|max_episode_steps"),
    "threads": ({"env_kwargs": {"num_threads": 0}}, "num_threads must be at least 1, but is 0"),
    "render_mode": ({"env_kwargs": {"render_mode": "rgb_array"}}, "EnvPool does not render CartPole-v1; use another"),
    "unknown": ({"env_id": "CartPole-v7"}, "there is no environment 'CartPole-v7'"),
    "not compared": ({"env_id": "MountainCar-v0"}, "but not for MountainCar-v0; use another vectorization_mode"),
    "function": ({"env_id": lambda: gym.make("CartPole-v1")}, "but not for <function"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_name_the_cause_and_the_remedy(name: str) -> None:
    arguments, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        envpool(**arguments)


def test_environments_that_are_not_offered_can_be_made_by_their_class() -> None:
    env = GymVecEnv(EnvPoolVectorEnv("MountainCar-v0", 2))
    env.reset()
    assert env.step(np.zeros(2, dtype=int))[1].tolist() == [-1, -1]
    with pytest.raises(ValueError, match="EnvPool has no environment 'Taxi-v77'"):
        EnvPoolVectorEnv("Taxi-v77")


def test_what_a_step_and_a_reset_refuse() -> None:
    env = EnvPoolVectorEnv("CartPole-v1", 2)
    with pytest.raises(gym.error.ResetNeeded):
        env.step(np.zeros(2, dtype=int))
    env.reset(seed=0)
    for n_actions in (1, 3):
        with pytest.raises(ValueError, match=rf"actions must have the shape \(2,\), but have \({n_actions},\)"):
            env.step(np.zeros(n_actions, dtype=int))
    with pytest.raises(ValueError, match=r"reset_mask must have the shape \(2,\), but has \(3,\)"):
        env.reset(options={"reset_mask": np.ones(3, dtype=bool)})
    for actions in (np.array([0, 2]), np.array([-1, 0]), np.array([0.0, 1.0])):
        with pytest.raises(ValueError, match=r"actions must be in Discrete\(2\), but are"):
            env.step(actions)
    with pytest.raises(ValueError, match=r"no options for a reset, but got \{'low': 0\}"):
        env.reset(options={"low": 0})
    with pytest.raises(ValueError, match="seed must be a whole number"):
        env.reset(seed=[1, 2])
    before, _ = env.reset()
    kept = before.copy()
    after, _ = env.reset(options={"reset_mask": np.array([True, False])})
    np.testing.assert_array_equal(after[1], kept[1])
    np.testing.assert_array_equal(before, kept)
    assert (after[0] != kept[0]).any()
