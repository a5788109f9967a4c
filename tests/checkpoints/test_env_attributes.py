"""Attributes that share objects share them again after the state is restored; a value that is not plain is named."""

import ctypes
import enum
import itertools
import logging
import random
import sys
import threading
import weakref
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import pytest
from env_continuation import World, assert_continues, assert_plain, bits, holding, play
from gymnasium import spaces
from helpers import RandomEnv
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_vpg.checkpoints.env_state import get_state, set_state


class Phase(enum.Enum):
    EARLY = 1
    LATE = 2


class OddEnv(RandomEnv):
    """Its attributes share objects, which copies of single attributes would not."""

    action_space = spaces.Discrete(3)
    observation_space = spaces.Box(-1.0, 1.0, (2, 3), np.float64)

    def __init__(self) -> None:
        self.steps = self.episodes = 0
        self.rewards = None
        self.constants = [len, np, float, np.dtype("f4"), np.add, logging.getLogger("odd"), gym.spec("CartPole-v1")]
        self.functions = {"half": partial(max, 0.5), "method": OddEnv.made, "lambda": lambda: self.age}
        self.twins = [random.Random(1)] * 2
        self.legacies = [np.random.RandomState(1)] * 2
        self.dealer = self.np_random
        self.legacy, self.pure = np.random.RandomState(7), random.Random(8)
        self.philox = np.random.Generator(np.random.Philox(key=9))

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        super().reset(**kwargs)
        self.grid = np.asfortranarray(self.np_random.normal(size=(2, 3)))
        self.row, self.backwards = self.grid[1], np.arange(3.0)[::-1]
        self.bytes = self.grid.T.view(np.uint8)
        self.phase, self.choose = Phase.EARLY, self.early
        # These were one object each before the reset
        self.twins = [random.Random(int(seed)) for seed in self.np_random.integers(99, size=2)]
        self.legacies = [np.random.RandomState(int(seed)) for seed in self.np_random.integers(99, size=2)]
        self.trace: deque[Any] = deque([self.row], maxlen=3)
        self.again = self.trace
        self.visits = {(0, np.int64(1)): [self.trace, None], "@seen": 3}
        self.ordered = OrderedDict(a=1, b=2)
        # Random streams of a child
        self.child = self.np_random.spawn(1)[0]
        return self.grid.copy(), {"phase": Phase.EARLY}

    @classmethod
    def made(cls) -> str:
        return cls.__name__

    def early(self) -> float:
        return self.legacy.normal() + self.pure.gauss(0, 1)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        sample, reward, terminated, truncated, _ = super().step(action)
        reward += float(sample.sum()) + sum(stream.random() for stream in self.twins + self.legacies)
        self.row += self.dealer.random() + self.philox.normal() + self.choose()
        self.backwards[1:] *= 0.5
        self.grid[0] += self.child.random(3) + self.backwards
        self.again.append(self.grid.sum(axis=1))
        self.visits[(0, 1)][0].append(self.visits["@seen"])
        self.visits["@seen"] += int(self.bytes.reshape(-1)[0])
        self.ordered.move_to_end("a")
        if self.age > 2:
            self.phase = Phase.LATE
        info = {"trace": list(self.trace), "sum": self.grid.sum(), "phase": self.phase, "order": list(self.ordered)}
        return self.grid.copy(), reward, terminated, truncated, info


class Onlooker(gym.Wrapper):
    """Holds objects of the environment's state."""

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        self.observation_space = spaces.Box(-np.inf, np.inf, (2, 3), np.float64)
        self.base = env.unwrapped
        self.stream = env.unwrapped.philox  # type: ignore[attr-defined]

    def step(self, action: Any) -> Any:
        observation, reward, terminated, truncated, info = self.env.step(action)
        self.grid = self.base.grid  # type: ignore[attr-defined]
        return observation + self.stream.random() + self.grid[0, 0], reward, terminated, truncated, info


@pytest.mark.parametrize(("before", "used"), [(0, 0), (1, 0), (6, 0), (37, 0), (1, 8), (6, 8), (37, 8)])
def test_attributes_share_objects_again(before: int, used: int) -> None:
    assert assert_continues(lambda: DummyVecEnv([lambda: Onlooker(OddEnv())] * 2), before, used=used) > 0


def test_shared_statistics_and_streams_stay_the_same_objects() -> None:
    """An evaluation environment may hold the same statistics, and other code a random stream."""
    first, second = (VecNormalize(DummyVecEnv([RandomEnv])) for _ in range(2))
    for env in (first, second):
        env.seed(3)
        env.reset()
    play(first, 10, 0)
    statistics, stream = second.obs_rms, second.venv.envs[0].np_random
    set_state(second, get_state(first))
    assert second.obs_rms is statistics
    assert bits(statistics.mean) == bits(first.obs_rms.mean)
    assert second.venv.envs[0].np_random is stream
    assert stream.random() == first.venv.envs[0].np_random.random()


class Pair(NamedTuple):
    x: float


rng = np.random.default_rng(0)


class OtherBits(np.random.PCG64):
    """A user's bit generator, which may have more state."""


def drawing(world: World) -> Callable[[], float]:
    return lambda: world.position


class Stack(list):  # type: ignore[type-arg]
    """A user's subclass of a container."""


class Metres(float):
    """A user's subclass of a number."""


@dataclass(slots=True)
class Point:
    x: float


HIDDEN: dict[str, tuple[Any, str]] = {
    "an object": (World, "a World"),
    "in a list": ([1, [World()]], "a World"),
    "in a dict": ({"world": World()}, "a World"),
    "in a tuple": ((1, World()), "a World"),
    "a key": ({frozenset(): 1}, "a dict with a frozenset as a key"),
    "an array of objects": (np.array([World()]), "an array of object"),
    "a record": (np.zeros(2, dtype=[("x", float)]), "an array of [('x', '<f8')]"),
    "a subclass": (Pair(1.0), "a Pair"),
    "a set": ({1, 2}, "a set"),
    "a method of a stream": (rng.random, f"a {type(rng.random).__name__}"),
    "a function that holds an object": (drawing(World()), "a function that holds a World"),
    "a default that is an object": (lambda world=World(): world, "a function that holds a World"),  # noqa: B008
    "a partial of an object": (partial(max, World()), "a partial that holds a World"),
    "a partial of a method": (partial(rng.random, 3), f"a partial that holds a {type(rng.random).__name__}"),
    "a generator": ((number for number in range(3)), "a generator"),
    "a counter": (itertools.count(), "a count"),
    "a cycle": (itertools.cycle([1, 2]), "a cycle"),
    "an iterator": (iter([1, 2]), "a list_iterator"),
    "the next of an iterator": (partial(next, iter([1])), "a partial that holds a list_iterator"),
    "a file": (sys.__stdin__, "a TextIOWrapper"),
    "a thread": (threading.current_thread(), "a _MainThread"),
    "a lock": (threading.Lock(), "a lock"),
    "a cache": (lru_cache(max), "a _lru_cache_wrapper"),
    "a list of another class": (Stack([1]), "a Stack"),
    "a dict of another class": (Counter("ab"), "a Counter"),
    "an array of another class": (np.zeros(2).view(np.recarray), "a recarray"),
    "a number of another class": (Metres(1), "a Metres"),
    "a dataclass": (Point(1.0), "a Point"),
    "a structure of C": (ctypes.c_int(3), "a c_int"),
    "a dict whose keys go": (weakref.WeakKeyDictionary(), "a WeakKeyDictionary"),
    "a stream of another kind": (np.random.Generator(OtherBits(0)), "a random generator on a OtherBits"),
    "a bound method": (World().__init__, "a method"),
}


@pytest.mark.parametrize(("value", "what"), HIDDEN.values(), ids=HIDDEN)
def test_a_value_that_is_not_plain_is_named(value: Any, what: str) -> None:
    env = VecNormalize(holding(value)())
    env.reset()
    state = get_state(env)
    assert state["missing"] == (
        f"environment 1: the attribute 'thing' of RandomEnv holds {what}, which is not plain; "
        "give RandomEnv the methods state_dict() and load_state_dict(state)"
    )
    assert_plain(state)


def test_a_member_of_an_enumeration_that_no_longer_exists_is_refused() -> None:
    state = get_state(holding(Phase.LATE)())
    state["base"][2][1]["attributes"]["thing"]["@enum"][2] = "NOON"
    with pytest.raises(ValueError, match=r"was Phase\.NOON, but the module .* has no such member"):
        set_state(holding(Phase.LATE)(), state)


def test_a_method_that_no_longer_exists_is_refused() -> None:
    env = DummyVecEnv([OddEnv])
    env.reset()
    state = get_state(env)
    state["base"][1][0]["attributes"]["choose"]["@method"][1] = "late"
    with pytest.raises(ValueError, match=r"environment 0: OddEnv\.choose was the method late of OddEnv, which does not exist"):
        set_state(env, state)
