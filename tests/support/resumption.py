"""What the tests of checkpoints share: a crash, and what must be equal after it."""

import random
from typing import Any

import numpy as np
import torch as th
from helpers import vector_env, weights
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_vpg import VPG


class Crash(Exception):
    """Stands for a kill: training ends in the middle of a rollout, and its model is never used again."""


class CrashAt(BaseCallback):
    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    def _on_step(self) -> bool:
        if self.num_timesteps >= self.step:
            raise Crash
        return True


def disturb() -> None:
    """Another process begins with other global streams."""
    random.seed(99)
    np.random.seed(99)
    th.manual_seed(99)


def everything(model: VPG) -> list[Any]:
    """:return: what must be equal to the last bit"""
    optimizers = [one.state_dict()["state"] for one in (model.policy.optimizer, model.critic_optimizer) if one is not None]
    streams = [model._rng.bit_generator.state, model._predict_rng.bit_generator.state, th.get_rng_state().tolist()]
    counters = [model.num_timesteps, model._n_updates, model._iteration, model._average_return]
    episodes = [(info["r"], info["l"]) for info in model.ep_info_buffer or ()]
    return [weights(model), optimizers, streams, counters, episodes]


def assert_same(first: VPG, second: VPG) -> None:
    one, other = everything(first), everything(second)
    th.testing.assert_close(one[:2], other[:2], rtol=0, atol=0)
    assert one[2:] == other[2:]


def random_envs(n_envs: int = 2, **kwargs: Any) -> DummyVecEnv:
    env = vector_env(n_envs, **kwargs)
    env.seed(5)
    return env
