"""The sparse reward of survival, and whether the agent, the logs or both see it."""

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor, load_results

from sb3_vpg import VPG, RandomSearch
from sb3_vpg.wrappers import SurvivalReward
from sb3_vpg.zoo.cli import main

LIMIT = 9


class Fall(gym.Env):
    """Rewards each step with 5, and terminates with action 1."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (1,))
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), 5.0, bool(action), False, {}


def play(actions: list[int]) -> list[float]:
    """:return: the rewards of one episode that ends with the last action"""
    env = SurvivalReward(gym.wrappers.TimeLimit(Fall(), LIMIT))
    env.reset()
    steps = [env.step(action) for action in actions]
    assert [terminated or truncated for _, _, terminated, truncated, _ in steps] == [False] * (len(steps) - 1) + [True]
    return [float(reward) for _, reward, *_ in steps]


@pytest.mark.parametrize(
    ("actions", "rewards"),
    [
        ([0] * LIMIT, [0.0] * (LIMIT - 1) + [1.0]),
        ([0, 0, 1], [0.0, 0.0, 0.0]),
        ([0] * (LIMIT - 1) + [1], [0.0] * LIMIT),
    ],
    ids=["survives", "falls", "falls_on_the_last_step"],
)
def test_only_survival_is_rewarded(actions: list[int], rewards: list[float]) -> None:
    assert play(actions) == rewards


def test_its_spec_rebuilds_the_wrapper() -> None:
    spec = SurvivalReward(gym.make("CartPole-v1", max_episode_steps=20)).spec
    assert spec is not None
    assert isinstance(spec.make(), SurvivalReward)


def test_outside_of_monitor_only_the_agent_sees_the_sparse_reward(tmp_path: Path) -> None:
    env = make_vec_env("CartPole-v1", monitor_dir=str(tmp_path), wrapper_class=SurvivalReward)
    model = VPG("MlpPolicy", env, n_steps=100, seed=0).learn(200)
    assert not model.rollout_buffer.rewards.any(), "no untrained agent survives 500 steps"
    assert all(episode["r"] == episode["l"] > 1 for episode in model.ep_info_buffer)
    assert evaluate_policy(model, env, 2)[0] > 1
    env.close()
    monitored = load_results(str(tmp_path))
    assert (monitored["r"] == monitored["l"]).all()


def test_inside_of_monitor_the_logs_show_the_sparse_return() -> None:
    env = SurvivalReward(gym.make("CartPole-v1"))
    model = VPG("MlpPolicy", env, n_steps=100, seed=0).learn(200)
    assert {episode["r"] for episode in model.ep_info_buffer} == {0.0}
    assert evaluate_policy(model, Monitor(env), 2)[0] == 0.0


def test_the_zoo_accepts_it_as_env_wrapper(tmp_path: Path) -> None:
    """Seed 15's first draw lasts 500 steps: the agent's return is 1, and the zoo's monitor file has 500."""
    conf = tmp_path / "sparse.yml"
    wrapper = "env_wrapper: sb3_vpg.wrappers.SurvivalReward"
    conf.write_text(f"CartPole-v1: {{policy: LinearPolicy, n_timesteps: 5000, stop_at_full_length: True, {wrapper}}}")
    arguments = ["train", "--algo", "random_search", "-conf", str(conf), "--eval-freq", "-1", "--verbose", "0"]
    assert main([*arguments, "--seed", "15", "-f", str(tmp_path)]) == 0
    run = tmp_path / "random_search/CartPole-v1_1"
    assert RandomSearch.load(run / "CartPole-v1.zip").best_return == 1.0
    assert load_results(str(run))["r"].max() == 500.0
