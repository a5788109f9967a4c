"""State outside of an object's ``__dict__``: in slots, functions, base classes and class attributes."""

import collections
from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
from env_continuation import assert_continues, play
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv
from helpers import RandomEnv
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnvWrapper
from vector_envs import SAME_STEP

from sb3_vpg.checkpoints.env_state import get_state, set_state
from sb3_vpg.vec_env.gym_vec_env import GymVecEnv


class Walk(RandomEnv):
    """Its reward is its position."""

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        observation, info = super().reset(**kwargs)
        self.begin()
        return observation, info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, _, terminated, truncated, info = super().step(action)
        return observation, float(self.walk(self.np_random.normal())), terminated, truncated, info

    def begin(self) -> None: ...

    def walk(self, way: float) -> float:
        raise NotImplementedError


class Slots(Walk):
    __slots__ = ("__hidden", "action_space", "never", "x")

    def begin(self) -> None:
        self.x = self.__hidden = np.zeros(2)

    def walk(self, way: float) -> float:
        self.x += way  # in place: both slots hold one array
        return self.__hidden.sum()


class SlotsOfParents(Slots):
    """It has a slot ``x`` of its own; the parent's slot ``x`` is reached through the parent class only."""

    __slots__ = "x"

    def begin(self) -> None:
        super().begin()
        Slots.x.__set__(self, 3.0)  # type: ignore[attr-defined]  # a descriptor
        self.x = 1.0

    def walk(self, way: float) -> float:
        Slots.x.__set__(self, Slots.x.__get__(self) + way)  # type: ignore[attr-defined]
        self.x *= 1.1
        return Slots.x.__get__(self) + self.x  # type: ignore[attr-defined, no-any-return]


class BehindProperty(Slots):
    """Its property ``x`` hides the parent's slot ``x``."""

    @property
    def x(self) -> Any:
        return Slots.x.__get__(self) + 0.0  # type: ignore[attr-defined]

    @x.setter
    def x(self, value: Any) -> None:
        Slots.x.__set__(self, value)  # type: ignore[attr-defined]

    def walk(self, way: float) -> float:
        self.x = self.x + way
        return float(self.x.sum())


def counter() -> Callable[[float], float]:
    total, steps = 0.0, []

    def add(way: float) -> float:
        nonlocal total
        total += way
        steps.append(way)
        return total + len(steps)

    return add


class Closure(Walk):
    def __init__(self) -> None:
        super().__init__()
        self.walk = counter()  # type: ignore[method-assign]


class Stream(Walk):
    """Its function draws from a random stream in the closure."""

    def __init__(self) -> None:
        super().__init__()
        stream = np.random.default_rng(7)
        self.walk = lambda way: way + stream.random()  # type: ignore[method-assign]


class Default(Walk):
    """Its function has a list as a default, which all calls share."""

    def __init__(self) -> None:
        super().__init__()

        def walk(way: float, steps: list[float] = []) -> float:  # noqa: B006  # what a user writes
            steps.append(way)
            walk.calls = getattr(walk, "calls", 0) + 1  # type: ignore[attr-defined]
            return sum(steps) + walk.calls  # type: ignore[attr-defined]

        self.walk = walk  # type: ignore[method-assign]


def append(steps: list[float], way: float) -> float:
    steps.append(way)
    return sum(steps)


class Partial(Walk):
    def __init__(self) -> None:
        super().__init__()
        self.walk = partial(append, [])  # type: ignore[method-assign]


ENVIRONMENTS = (Slots, SlotsOfParents, BehindProperty, Closure, Stream, Default, Partial)


@pytest.mark.parametrize("used", [0, 8], ids=["new", "used"])
@pytest.mark.parametrize("kind", ENVIRONMENTS)
def test_hidden_state_is_restored(kind: type[Walk], used: int) -> None:
    assert assert_continues(lambda: DummyVecEnv([lambda: Monitor(kind())] * 2), used=used) > 0


@pytest.mark.parametrize("kind", ENVIRONMENTS)
def test_hidden_state_is_restored_in_a_vector_environment(kind: type[Walk]) -> None:
    assert assert_continues(lambda: GymVecEnv(SyncVectorEnv([kind] * 2, autoreset_mode=SAME_STEP))) > 0


class SlotsOfWrapper(gym.Wrapper):
    __slots__ = ("steps",)

    def step(self, action: Any) -> Any:
        self.steps = getattr(self, "steps", 0) + 1
        observation, reward, *rest = self.env.step(action)
        return observation, reward + self.steps, *rest


class SlotsOfVecEnvWrapper(VecEnvWrapper):
    __slots__ = ("steps",)

    def reset(self) -> Any:
        self.steps = 0
        return self.venv.reset()

    def step_wait(self) -> Any:
        self.steps += 1
        observations, rewards, dones, infos = self.venv.step_wait()
        return observations, rewards + self.steps, dones, infos


def test_slots_of_wrappers_are_restored() -> None:
    assert assert_continues(lambda: SlotsOfVecEnvWrapper(DummyVecEnv([lambda: SlotsOfWrapper(RandomEnv())] * 2))) > 0


class Items(RandomEnv, list):  # type: ignore[type-arg]
    """Its state is in its items."""

    __hash__ = object.__hash__


class Counted(RandomEnv, collections.Counter):  # type: ignore[type-arg]
    __hash__ = object.__hash__


class ItemsWithStateDict(Items):
    def state_dict(self) -> dict[str, Any]:
        return {"items": list(self)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self[:] = state["items"]


@pytest.mark.parametrize(("kind", "base"), [(Items, "list"), (Counted, "dict")])
def test_a_base_class_with_state_is_named(kind: type, base: str) -> None:
    env = DummyVecEnv([kind])
    assert get_state(env)["missing"] == (
        f"environment 0: {kind.__name__} inherits from {base}, whose content cannot be saved; "
        f"give {kind.__name__} the methods state_dict() and load_state_dict(state)"
    )


def test_state_dict_saves_the_state_of_a_base_class() -> None:
    first, second = (DummyVecEnv([ItemsWithStateDict]) for _ in range(2))
    first.reset()
    first.envs[0].append(5)
    assert set_state(second, get_state(first)) is None
    assert list(second.envs[0]) == [5]


class OfTheClass(Walk):
    """Counts in a class attribute, which all objects share."""

    total = 0.0
    visits: ClassVar[dict[str, int]] = {}
    untouched = (1, 2)
    space = spaces.Discrete(2)

    def walk(self, way: float) -> float:
        type(self).total += way
        return self.total


class InADict(OfTheClass):
    def walk(self, way: float) -> float:
        self.visits["steps"] = self.visits.get("steps", 0) + 1
        return self.visits["steps"]


class InASpace(OfTheClass):
    def walk(self, way: float) -> float:
        return float(self.space.sample())


class InADefault(OfTheClass):
    def walk(self, way: float, steps: list[float] = []) -> float:  # noqa: B006  # what a user writes
        return append(steps, way)


def made_anew(kind: type) -> type:
    """:return: the class as in another process, where its body was executed again"""
    import copy
    import types

    def again(value: Any) -> Any:
        if not isinstance(value, types.FunctionType):
            return copy.deepcopy(value)
        parts = value.__code__, value.__globals__, value.__name__, copy.deepcopy(value.__defaults__), value.__closure__
        return types.FunctionType(*parts)

    own = {name: again(value) for name, value in vars(kind).items() if name not in ("__dict__", "__weakref__")}
    bases = kind.__bases__ if kind.__bases__ == (Walk,) else (made_anew(OfTheClass),)
    return type(kind.__name__, bases, own)


@pytest.mark.parametrize(
    ("kind", "name", "owner"),
    [
        (OfTheClass, "total", "OfTheClass"),
        (InADict, "visits", "OfTheClass"),
        (InASpace, "space", "OfTheClass"),
        (InADefault, "walk", "InADefault"),
    ],
)
def test_an_attribute_of_a_class_that_has_changed_is_named(kind: type, name: str, owner: str) -> None:
    """It cannot be restored in another process, so new episodes have to begin."""
    before, used = made_anew(kind), made_anew(kind)
    env = DummyVecEnv([used])
    env.reset()
    assert set_state(DummyVecEnv([before]), get_state(env)) is None
    play(env, 5, 0)
    reason = set_state(DummyVecEnv([before]), get_state(env))
    assert reason is not None
    assert reason.startswith(
        f"the attribute {name!r} of the class {owner} had another value in the process that wrote the state"
    )
    assert set_state(env, get_state(env)) is None


def test_an_older_state_without_digests_of_classes_is_restored() -> None:
    with closing(DummyVecEnv([OfTheClass])) as env:
        env.reset()
        state = get_state(env)
        del state["classes"]
        assert set_state(env, state) is None


class LateNone(Walk):
    """Its first reset sets an attribute to None."""

    def begin(self) -> None:
        self.before: float | None = None

    def walk(self, way: float) -> float:
        self.before = way if self.before is None else self.before + way
        return self.before


def test_an_attribute_that_a_reset_sets_may_be_none() -> None:
    assert assert_continues(lambda: DummyVecEnv([LateNone]), before=0) > 0


@pytest.mark.parametrize(("kind", "name"), [(Closure, "counter.<locals>.add"), (Partial, "append")])
def test_an_older_state_without_contents_of_functions_is_restored(kind: type[Walk], name: str) -> None:
    """It has only the names of functions."""
    env = DummyVecEnv([kind])
    env.reset()
    state = get_state(env)
    state["base"][1][0]["attributes"]["walk"] = {"@constant": name}
    assert set_state(DummyVecEnv([kind]), state) is None
