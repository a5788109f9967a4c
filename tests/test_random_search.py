"""Random search equals a slow, simple search, and works like any algorithm of SB3."""

from collections.abc import Callable
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv

import sb3_vpg
from sb3_vpg import RandomSearch
from sb3_vpg.policies import LinearDecisionPolicy

FOREVER = {"reward_threshold": float("inf")}


class Scripted(gym.Env):
    """Random observations of any space, random rewards, episodes of 5 steps that terminate; checks every action."""

    def __init__(self, observation_space: spaces.Space, action_space: spaces.Space, reward: float | None = None) -> None:
        self.observation_space, self.action_space, self.reward = observation_space, action_space, reward

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.n_steps = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        self.n_steps += 1
        reward = self.np_random.normal() if self.reward is None else self.reward
        return self.observation_space.sample(), reward, self.n_steps == 5, False, {}


def slow_draw(seed: int, number: int, shape: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(number,))).uniform(-1, 1, shape)


def slow_search(env_id: str, seed: int, n_envs: int, total_steps: int, stop_at: float) -> tuple[np.ndarray, float, int, int]:
    """
    The search with plain gymnasium environments and NumPy.

    :return: the kept weights, shape (A, F), their return, the number of finished episodes and of steps
    """
    envs = [gym.make(env_id) for _ in range(n_envs)]
    observations = [env.reset(seed=seed + index)[0] for index, env in enumerate(envs)]
    actions = envs[0].action_space
    shape = (actions.n if isinstance(actions, spaces.Discrete) else actions.shape[0], observations[0].shape[0])
    weights = [slow_draw(seed, index, shape) for index in range(n_envs)]
    n_draws, best, best_return, returns = n_envs, weights[0], -np.inf, [0.0] * n_envs
    n_episodes = n_steps = 0
    while n_steps < total_steps and best_return < stop_at:
        n_steps += n_envs
        for index, env in enumerate(envs):
            action = weights[index] @ observations[index]
            action = np.clip(action, actions.low, actions.high) if isinstance(actions, spaces.Box) else np.argmax(action)
            observations[index], reward, terminated, truncated, _ = env.step(action)
            returns[index] += reward
            if terminated or truncated:
                n_episodes += 1
                if returns[index] > best_return:
                    best, best_return = weights[index], returns[index]
                weights[index] = slow_draw(seed, n_draws, shape)
                n_draws += 1
                returns[index] = 0.0
                observations[index], _ = env.reset()
    return best, best_return, n_episodes, n_steps


@pytest.mark.parametrize("n_envs", [1, 3], ids=lambda n: f"{n}_envs")
@pytest.mark.parametrize(
    ("env_id", "total_steps", "stop_at"),
    [("CartPole-v1", 600, np.inf), ("CartPole-v1", 50_000, 475.0), ("Pendulum-v1", 1300, np.inf)],
    ids=["cartpole", "cartpole_until_solved", "pendulum"],
)
@pytest.mark.parametrize("seed", [1, 2])
def test_equals_a_slow_search(env_id: str, total_steps: int, stop_at: float, n_envs: int, seed: int) -> None:
    weights, best_return, n_episodes, n_steps = slow_search(env_id, seed, n_envs, total_steps, stop_at)
    model = RandomSearch("LinearPolicy", make_vec_env(env_id, n_envs, seed=seed), reward_threshold=stop_at, seed=seed)
    model.learn(total_steps)
    assert (model._episode_num, model.num_timesteps) == (n_episodes, n_steps)
    assert model.best_return == pytest.approx(best_return, rel=1e-5)
    np.testing.assert_allclose(model.policy.weights, weights, rtol=1e-6)
    assert model.solved == (best_return >= stop_at)


def test_two_rows_act_by_the_sign_of_their_difference() -> None:
    """For two actions the policy equals the textbook agent, which has one vector and acts by a sign."""
    model = RandomSearch("LinearPolicy", "CartPole-v1", seed=0)
    observations = np.random.default_rng(0).normal(size=(1000, 4)).astype(np.float32)
    w = (model.policy.weights[1] - model.policy.weights[0]).numpy()
    np.testing.assert_array_equal(model.predict(observations)[0], observations @ w > 0)


@pytest.mark.parametrize(("length", "share"), [(200, 0.07), (500, 0.03)])
def test_the_share_of_draws_that_balance_cartpole(length: int, share: float) -> None:
    """The shares in the class's docstring hold for two rows and for one uniform vector, in gymnasium's vector CartPole."""
    n = 4000
    model = RandomSearch("LinearPolicy", "CartPole-v1", seed=0)
    two_rows = th.stack([model.draw(number) for number in range(n)])
    vectors = th.as_tensor(np.random.default_rng(1).uniform(-1, 1, (n, 1, 4)), dtype=th.float32)
    one_vector = th.cat([th.zeros_like(vectors), vectors], dim=1)
    for weights in (two_rows, one_vector):
        env = gym.make_vec("CartPole-v1", num_envs=n, vectorization_mode="vector_entry_point")
        observations, _ = env.reset(seed=7)
        standing = np.ones(n, dtype=bool)
        for _ in range(length):
            actions = model.policy.act(th.as_tensor(observations), weights).numpy()
            observations, _, terminated, _, _ = env.step(actions)
            standing &= ~terminated
        assert standing.mean() == pytest.approx(share, abs=4 * (share / n) ** 0.5)


def test_weights_are_uniform_and_each_number_gives_another_draw() -> None:
    model = RandomSearch("LinearPolicy", "CartPole-v1", seed=3)
    draws = th.stack([model.draw(number) for number in range(5000)])
    assert len(draws.unique(dim=0)) == 5000
    assert (draws.abs() <= 1).all()
    # Mean 0, variance 1/3, within four standard errors
    assert draws.mean().abs() < 4 * (1 / 3 / draws.numel()) ** 0.5
    assert (draws.square().mean() - 1 / 3).abs() < 4 * (4 / 45 / draws.numel()) ** 0.5


def test_draws_do_not_repeat_the_numbers_of_the_environments() -> None:
    """With NumPy's default generator of the seed, the weights would be 20 times the first state of CartPole."""
    for seed in range(5):
        model = RandomSearch("LinearPolicy", "CartPole-v1", seed=seed)
        states = np.stack([gym.make("CartPole-v1").reset(seed=seed + index)[0] for index in range(5)])
        for number in range(5):
            for row in model.draw(number).numpy():
                assert not np.isclose(row, 20 * states, atol=1e-4).all(axis=1).any()


@pytest.mark.parametrize(
    ("env_id", "options", "stops"),
    [
        ("CartPole-v1", {}, True),
        ("CartPole-v1", FOREVER, False),
        ("CartPole-v1", {**FOREVER, "stop_at_full_length": True}, True),
        ("Pendulum-v1", {}, False),
        ("Pendulum-v1", {"reward_threshold": -1800.0}, True),
        ("MountainCar-v0", {}, False),
    ],
    ids=["spec", "no_threshold", "full_length", "pendulum", "own_threshold", "length_is_failure"],
)
def test_when_search_stops(env_id: str, options: dict, stops: bool) -> None:
    """Search stops at the threshold or, on request, at full length. Seed 15's first draw balances CartPole for 500 steps."""
    model = RandomSearch("LinearPolicy", env_id, seed=15, **options).learn(1000)
    assert model.solved is stops
    assert (model.num_timesteps < 1000) is stops


def test_terminating_on_the_last_step_is_not_full_length() -> None:
    class Env(Scripted):
        def step(self, action):
            return self.observation_space.sample(), 0.0, self.n_steps == 0, self.n_steps == 0, {}

    env = Env(spaces.Box(-1, 1, (2,)), spaces.Discrete(2))
    assert not RandomSearch("LinearPolicy", env, stop_at_full_length=True).learn(10).solved


def test_learning_again_continues_the_search() -> None:
    model = RandomSearch("LinearPolicy", "CartPole-v1", seed=1, **FOREVER).learn(500)
    first, n_draws = model.best_return, model.n_draws
    model.learn(500, reset_num_timesteps=False)
    assert model.num_timesteps == 1000
    assert model.n_draws > n_draws
    assert model.best_return >= first
    once = RandomSearch("LinearPolicy", "CartPole-v1", seed=1, **FOREVER).learn(1000)
    np.testing.assert_array_equal(model.policy.weights, once.policy.weights)
    assert model._episode_num == once._episode_num, "the second call continues the episode of the first"


def test_same_seed_same_search() -> None:
    models = [RandomSearch("LinearPolicy", make_vec_env("CartPole-v1", 4), seed=5).learn(2000) for _ in range(2)]
    again = RandomSearch("LinearPolicy", make_vec_env("CartPole-v1", 4))
    again.set_random_seed(5)
    models.append(again.learn(2000))
    for model in models[1:]:
        np.testing.assert_array_equal(models[0].policy.weights, model.policy.weights)
        assert models[0].num_timesteps == model.num_timesteps


def test_without_a_seed_searches_differ() -> None:
    first, second = (RandomSearch("LinearPolicy", "CartPole-v1") for _ in range(2))
    assert (first.policy.weights != second.policy.weights).all()


def test_save_and_load_keep_the_weights_their_return_and_the_place_in_the_search(tmp_path: Path) -> None:
    model = RandomSearch("LinearPolicy", "CartPole-v1", seed=1, **FOREVER).learn(400)
    model.save(tmp_path / "model")
    loaded = RandomSearch.load(tmp_path / "model", env=make_vec_env("CartPole-v1", 2))
    np.testing.assert_array_equal(loaded.policy.weights, model.policy.weights)
    assert (loaded.best_return, loaded.n_draws, loaded.num_timesteps) == (model.best_return, model.n_draws, 400)
    loaded.learn(400, reset_num_timesteps=False)
    assert (loaded.num_timesteps, loaded.n_envs) == (800, 2)
    assert loaded.best_return >= model.best_return
    without_env = RandomSearch.load(tmp_path / "model")
    observation = np.ones(4, np.float32)
    assert without_env.predict(observation)[0] == model.predict(observation)[0]


def test_parameters_and_policy_without_the_model(tmp_path: Path) -> None:
    model = RandomSearch("LinearPolicy", "CartPole-v1", seed=1).learn(400)
    other = RandomSearch("LinearPolicy", "CartPole-v1", seed=2)
    other.set_parameters(model.get_parameters())
    model.policy.save(str(tmp_path / "policy.pt"))
    policy = LinearDecisionPolicy.load(str(tmp_path / "policy.pt"))
    for weights in (other.policy.weights, policy.weights):
        np.testing.assert_array_equal(weights, model.policy.weights)
    assert other.best_return == float(policy.best_return) == model.best_return


SPACES = {
    "box": spaces.Box(-1, 1, (2, 3)),
    "double_box": spaces.Box(-1, 1, (3,), np.float64),
    "discrete": spaces.Discrete(4),
    "multi_discrete": spaces.MultiDiscrete([3, 2]),
    "multi_binary": spaces.MultiBinary(5),
    "image": spaces.Box(0, 255, (36, 37, 3), np.uint8),
    "dict": spaces.Dict(b=spaces.Box(-1, 1, (2,)), a=spaces.Discrete(3), image=spaces.Box(0, 255, (36, 37, 3), np.uint8)),
}


@pytest.mark.parametrize("n_envs", [1, 2], ids=lambda n: f"{n}_envs")
@pytest.mark.parametrize(
    "action_space",
    [spaces.Discrete(3), spaces.Discrete(3, start=1), spaces.Box(-0.5, 0.5, (2,)), spaces.Box(-0.5, 0.5, (2, 1))],
    ids=["discrete", "discrete_from_1", "box", "matrix"],
)
@pytest.mark.parametrize("observation_space", SPACES.values(), ids=SPACES)
def test_any_observation_and_both_kinds_of_action(
    observation_space: spaces.Space, action_space: spaces.Space, n_envs: int
) -> None:
    env = DummyVecEnv([lambda: Scripted(observation_space, action_space)] * n_envs)
    model = RandomSearch("LinearPolicy", env, seed=0).learn(30)
    assert model.policy.weights.shape[1] == spaces.flatdim(observation_space)
    observation = observation_space.sample()
    assert action_space.contains(model.predict(observation)[0])
    if isinstance(observation, dict):
        backwards = dict(reversed(observation.items()))
        np.testing.assert_array_equal(model.predict(observation)[0], model.predict(backwards)[0])


@pytest.mark.parametrize("action_space", [spaces.MultiBinary(3), spaces.MultiDiscrete([2, 2])], ids=str)
def test_other_actions_are_refused(action_space: spaces.Space) -> None:
    with pytest.raises(ValueError, match="needs a Discrete or Box action space, but it is Multi"):
        RandomSearch("LinearPolicy", Scripted(spaces.Discrete(2), action_space))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: RandomSearch("MlpPolicy", "CartPole-v1"), ValueError, "needs 'LinearPolicy'.*'MlpPolicy'"),
        (lambda: RandomSearch(sb3_vpg.LinearPolicy, "CartPole-v1"), ValueError, "subclass of LinearDecisionPolicy"),
        (lambda: RandomSearch("LinearPolicy", "CartPole-v1", reward_threshold="high"), ValueError, "must be a number"),
        (lambda: RandomSearch("LinearPolicy", "CartPole-v1", reward_threshold=np.nan), ValueError, "reward_threshold"),
        (lambda: RandomSearch("LinearPolicy", "CartPole-v1", sed=1), TypeError, "did you mean 'seed'"),
    ],
    ids=["policy_name", "policy_class", "threshold", "nan", "keyword"],
)
def test_refusals(make: Callable[[], RandomSearch], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("reward", [np.nan, -np.inf], ids=str)
def test_a_return_that_is_not_finite_is_refused(reward: float) -> None:
    env = Scripted(spaces.Discrete(2), spaces.Discrete(2), reward)
    with pytest.raises(ValueError, match="the return of an episode is"):
        RandomSearch("LinearPolicy", env).learn(100)
