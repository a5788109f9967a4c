"""The T-maze: signal, corridor and rewards are those of Bakker 2001, and its position cannot be seen."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import sb3_vpg.envs  # noqa: F401  # registers TMaze-v0

NORTH, EAST, SOUTH, WEST = range(4)
SIGNALS = {(0, 1, 1): NORTH, (1, 1, 0): SOUTH}


def play(env, actions, seed=0):
    """:return: observations, rewards, and whether the last step ended the episode"""
    observation, _ = env.reset(seed=seed)
    observations, rewards, over = [tuple(observation)], [], (False, False)
    for action in actions:
        observation, reward, *over, _ = env.step(action)
        observations.append(tuple(observation))
        rewards.append(reward)
    return observations, rewards, tuple(over)


def test_gymnasium_accepts_it():
    check_env(gym.make("TMaze-v0", render_mode="rgb_array").unwrapped)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("turn", [NORTH, SOUTH])
def test_the_signal_tells_which_turn_is_right(seed, turn):
    observations, rewards, over = play(gym.make("TMaze-v0"), [EAST] * 10 + [turn], seed)
    assert observations[1:11] == [(1, 0, 1)] * 9 + [(0, 1, 0)]
    assert rewards == [0.0] * 10 + [4.0 if SIGNALS[observations[0]] == turn else -0.1]
    assert over == (True, False)


def test_both_signals_occur():
    env = gym.make("TMaze-v0")
    env.reset(seed=0)
    signals = [tuple(env.reset()[0]) for _ in range(200)]
    assert set(signals) == set(SIGNALS)
    assert 70 < signals.count((0, 1, 1)) < 130


def test_walls_cost_and_do_not_move():
    observations, rewards, over = play(gym.make("TMaze-v0"), [WEST, NORTH, EAST, SOUTH, WEST])
    assert rewards == [-0.1, -0.1, 0.0, -0.1, 0.0]
    assert observations[3:5] == [(1, 0, 1)] * 2
    assert observations[5] == observations[0]
    assert over == (False, False)


def test_east_of_the_junction_is_a_wall():
    observations, rewards, _ = play(gym.make("TMaze-v0", corridor_length=1), [EAST, EAST, WEST])
    assert observations[1:3] == [(0, 1, 0)] * 2
    assert rewards == [0.0, -0.1, 0.0]


def test_an_episode_has_at_most_100_steps():
    assert play(gym.make("TMaze-v0"), [WEST] * 100)[2] == (False, True)


def test_a_corridor_without_length_is_refused():
    with pytest.raises(ValueError, match="corridor_length must be at least 1, but is 0"):
        gym.make("TMaze-v0", corridor_length=0)


def test_observations_are_members_of_the_space():
    env = gym.make("TMaze-v0")
    assert env.observation_space.contains(env.reset(seed=0)[0])
    assert env.reset(seed=0)[0].dtype == np.float32


def test_the_picture_shows_the_agent_and_the_goal():
    env = gym.make("TMaze-v0", render_mode="rgb_array")
    env.reset(seed=0)
    pictures = [env.render()]
    env.step(EAST)
    pictures.append(env.render())
    assert pictures[0].shape == (72, 264, 3)
    assert not np.array_equal(*pictures)
    assert (pictures[0][36, 12] == pictures[1][36, 36]).all()
    goal_row = 12 if env.unwrapped.goal == NORTH else 60
    assert not (pictures[0][goal_row, -12] == pictures[0][72 - goal_row, -12]).all()
