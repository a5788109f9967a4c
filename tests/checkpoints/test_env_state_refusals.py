"""If episodes cannot continue, the reason is named and statistics are restored; the state of other environments is refused."""

from contextlib import closing
from copy import deepcopy
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from env_continuation import Builder, HidingEnv, World, bits, cart_poles, holding, play, registered
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv
from helpers import VECTOR, RandomEnv
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    SubprocVecEnv,
    VecEnv,
    VecEnvWrapper,
    VecFrameStack,
    VecNormalize,
)
from vector_envs import SAME_STEP, talkative

from sb3_vpg.checkpoints.env_state import get_state, set_state
from sb3_vpg.vec_env.gym_vec_env import GymVecEnv, make_vec_env


class HidingStateDict(HidingEnv):
    def state_dict(self) -> dict[str, Any]:
        return {"world": self.world}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.world = state["world"]


def subproc() -> VecEnv:
    return SubprocVecEnv([RandomEnv])


def asynchronous() -> VecEnv:
    return GymVecEnv(AsyncVectorEnv(talkative(1), autoreset_mode=SAME_STEP))


HIDDEN: dict[str, tuple[Builder, str]] = {
    "an attribute": (lambda: DummyVecEnv([HidingEnv]), "environment 0: the attribute 'world' of HidingEnv holds a World"),
    "state_dict": (lambda: DummyVecEnv([HidingStateDict]), "environment 0: state_dict() of HidingStateDict returned a World"),
    "a vector environment": (
        lambda: GymVecEnv(SyncVectorEnv([HidingEnv] * 2, autoreset_mode=SAME_STEP)),
        "environment 0: the attribute 'world' of HidingEnv holds a World",
    ),
    "a VecEnvWrapper": (lambda: HidingWrapper(cart_poles()), "the attribute 'world' of HidingWrapper holds a World"),
    "SubprocVecEnv": (subproc, "SubprocVecEnv keeps its environments in other processes"),
    "AsyncVectorEnv": (asynchronous, "AsyncVectorEnv keeps its environments in other processes"),
}


@pytest.mark.parametrize(("build", "why"), HIDDEN.values(), ids=HIDDEN)
def test_statistics_are_restored_without_the_environments(build: Builder, why: str) -> None:
    with closing(VecNormalize(build())) as first, closing(VecNormalize(build())) as second:
        first.reset()
        play(first, 20, 0)
        first.training = False
        state = deepcopy(get_state(first))
        assert state["missing"].startswith(why)
        assert set_state(second, state) == state["missing"]
        for name in ("mean", "var", "count"):
            assert bits(getattr(second.obs_rms, name)) == bits(getattr(first.obs_rms, name))
            assert bits(getattr(second.ret_rms, name)) == bits(getattr(first.ret_rms, name))
        assert bits(second.returns) == bits(first.returns)
        assert second.training is False
        second.reset()
        play(second, 20, 0)


def test_the_plain_attributes_of_a_wrapper_are_restored() -> None:
    first, second = HidingWrapper(cart_poles()), HidingWrapper(cart_poles())
    first.reset()
    play(first, 5, 0)
    assert "'world'" in (set_state(second, get_state(first)) or "")
    assert second.count == 5
    assert second.trace == [1, 2, 3, 4, 5]
    assert second.alias is second.trace


class HidingWrapper(VecEnvWrapper):
    def __init__(self, venv: VecEnv) -> None:
        super().__init__(venv)
        trace: list[int] = []
        self.world = [trace, World()]
        self.trace, self.count, self.alias = trace, 0, trace

    def reset(self) -> Any:
        return self.venv.reset()

    def step_wait(self) -> Any:
        self.count += 1
        self.trace.append(self.count)
        return self.venv.step_wait()


class ForeignVecEnv(VecEnv):
    """A user's VecEnv, with one environment."""

    def __init__(self) -> None:
        self.inside = DummyVecEnv([RandomEnv])
        super().__init__(1, VECTOR, self.inside.action_space)

    def reset(self) -> Any:
        return self.inside.reset()

    def step_async(self, actions: np.ndarray) -> None:
        self.inside.step_async(actions)

    def step_wait(self) -> Any:
        return self.inside.step_wait()

    def close(self) -> None: ...

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [None]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None: ...

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        return [None]

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False]


def test_an_unknown_kind_of_vec_env_is_named() -> None:
    expected = "ForeignVecEnv is an unknown kind of VecEnv; give it state_dict() and load_state_dict(state)"
    assert get_state(ForeignVecEnv())["missing"] == expected


class NewerEnv(RandomEnv):
    def __init__(self) -> None:
        super().__init__()
        self.wind = 0.0


NewerEnv.__qualname__ = "RandomEnv"


def native() -> VecEnv:
    return make_vec_env("CartPole-v1", 5)


MISMATCHES: dict[str, tuple[Builder, Builder, str]] = {
    "number": (cart_poles, lambda: cart_poles(2), "the state is of 3 environments, but there are 2"),
    "wrappers": (
        cart_poles,
        lambda: VecNormalize(cart_poles()),
        r"of the layers \[\], but the environment has \['VecNormalize'\]",
    ),
    "order": (
        lambda: VecNormalize(VecFrameStack(cart_poles(), 3)),
        lambda: VecFrameStack(VecNormalize(cart_poles()), 3),
        "of the layers .'VecNormalize', 'VecFrameStack'",
    ),
    "environment": (cart_poles, lambda: registered("Acrobot-v1", 3), "environment 0: .*'CartPoleEnv'.*'AcrobotEnv'"),
    "kind of VecEnv": (native, lambda: cart_poles(5), r"\['GymVecEnv', 'CartPoleVectorEnv'\].*\['DummyVecEnv'\]"),
    "processes": (lambda: cart_poles(1), subproc, "of a DummyVecEnv and its environments, but SubprocVecEnv keeps"),
    "attributes": (
        lambda: DummyVecEnv([RandomEnv]),
        lambda: DummyVecEnv([NewerEnv]),
        r"RandomEnv has \['wind'\], but the state has not",
    ),
    "space": (
        lambda: DummyVecEnv([RandomEnv]),
        lambda: DummyVecEnv([lambda: RandomEnv(spaces.Box(-1, 1, (5,)))]),
        r"DummyVecEnv.observation_space is Box\(.*, but the state is of a Box\(3\)",
    ),
    "function": (holding(len), holding(max), "environment 1: RandomEnv.thing is .*max.*, but the state is of len"),
    "statistics": (
        lambda: VecNormalize(cart_poles()),
        lambda: VecNormalize(cart_poles(), norm_obs=False),
        "VecNormalize.obs_rms is None, but the state is of a RunningMeanStd",
    ),
}


@pytest.mark.parametrize(("build", "other", "message"), MISMATCHES.values(), ids=MISMATCHES)
def test_the_state_of_another_environment_is_refused(build: Builder, other: Builder, message: str) -> None:
    first = build()
    first.reset()
    with closing(other()) as second, pytest.raises(ValueError, match=message):
        set_state(second, get_state(first))


def test_box2d_begins_new_episodes() -> None:
    pytest.importorskip("Box2D")
    first, second = (DummyVecEnv([lambda: gym.make("LunarLander-v3")]) for _ in range(2))
    first.reset()
    reason = set_state(second, get_state(first)) or ""
    assert reason.startswith("environment 0: the attribute 'world' of LunarLander holds a b2World, which is not plain")
