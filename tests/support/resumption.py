"""Helpers of the tests of checkpoints: a crash, and the state that must be equal after resuming."""

import random
from typing import Any

import numpy as np
import torch as th
from helpers import vector_env, weights
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_vpg import VPG


class Crash(Exception):
    """Ends training in the middle of a rollout, as a kill does; the model is not used again."""


class CrashAt(BaseCallback):
    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    def _on_step(self) -> bool:
        if self.num_timesteps >= self.step:
            raise Crash
        return True


def disturb() -> None:
    """Change the global random streams, which differ in another process."""
    random.seed(99)
    np.random.seed(99)
    th.manual_seed(99)


def everything(model: VPG) -> list[Any]:
    """:return: all state that must be equal to the last bit"""
    optimizers = [each.state_dict()["state"] for each in (model.policy.optimizer, model.critic_optimizer) if each is not None]
    streams = [model._rng.bit_generator.state, model._predict_rng.bit_generator.state, th.get_rng_state().tolist()]
    counters = [model.num_timesteps, model._n_updates, model._iteration, model._average_return]
    episodes = [(info["r"], info["l"]) for info in model.ep_info_buffer or ()]
    return [weights(model), optimizers, streams, counters, episodes]


def assert_same(first: VPG, second: VPG) -> None:
    state, expected = everything(first), everything(second)
    th.testing.assert_close(state[:2], expected[:2], rtol=0, atol=0)
    assert state[2:] == expected[2:]


def random_envs(n_envs: int = 2, **kwargs: Any) -> DummyVecEnv:
    env = vector_env(n_envs, **kwargs)
    env.seed(5)
    return env
