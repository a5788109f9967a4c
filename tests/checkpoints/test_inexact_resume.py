"""One warning lists all reasons why training may not resume exactly; without a reason there is none."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from env_continuation import HidingEnv
from gymnasium import spaces
from helpers import RandomEnv, UsersBuffer, make_model
from resumption import Crash, CrashAt, assert_same, disturb, random_envs
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CheckpointCallback,
    EvalCallback,
    EveryNTimesteps,
    StopTrainingOnMaxEpisodes,
    StopTrainingOnNoModelImprovement,
)
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_vpg import VPG
from sb3_vpg.checkpoints.callback import TrainingCheckpoint


def learn(folder: Path, *callbacks: BaseCallback, model: VPG | None = None) -> VPG:
    model = model or make_model(env=random_envs())
    return model.learn(200, [TrainingCheckpoint(folder, save_freq=60, verbose=0), *callbacks])


def crash(folder: Path, *callbacks: BaseCallback, model: VPG | None = None) -> None:
    with pytest.raises(Crash):
        learn(folder, *callbacks, CrashAt(150), model=model)
    disturb()


class Silent(BaseCallback):
    def _on_step(self) -> bool:
        return True


class Thing:
    """A value that is not plain."""


class HoldsThing(Silent):
    def __init__(self) -> None:
        super().__init__()
        self.thing = Thing()


class SlotWithThing(Silent):
    __slots__ = ("thing",)

    def _on_training_start(self) -> None:
        self.thing = [Thing()]


class ListToo(Silent, list):  # type: ignore[type-arg]
    __hash__ = object.__hash__


class DictToo(Silent, dict):  # type: ignore[type-arg]
    __hash__ = object.__hash__


class Patient(BaseCallback):
    """Changes its own argument."""

    def __init__(self, patience: int) -> None:
        super().__init__()
        self.patience = patience

    def _on_step(self) -> bool:
        self.patience -= 1
        return True


class Limited(Silent):
    def __init__(self, limit: float) -> None:
        super().__init__()
        self.limit = limit


class Counter(BaseCallback):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def _on_step(self) -> bool:
        self.count += 1
        return True


class Records(BaseCallback):
    """Records a value that is not plain."""

    def _on_step(self) -> bool:
        self.logger.record("thing", Thing(), exclude="stdout")
        return True


METHODS = r"; give {0} the methods state_dict\(\) and load_state_dict\(state\)"
REASONS: dict[str, tuple[list[Callable[[], BaseCallback]], list[Callable[[], BaseCallback]], str]] = {
    "an object": (
        [HoldsThing],
        [HoldsThing],
        "the attribute 'thing' of the callback HoldsThing holds a Thing, which is not plain" + METHODS.format("HoldsThing"),
    ),
    "in a slot": (
        [SlotWithThing],
        [SlotWithThing],
        "'thing' of the callback SlotWithThing holds a Thing, which is not plain" + METHODS.format("SlotWithThing"),
    ),
    "a base class": (
        [ListToo],
        [ListToo],
        "the callback ListToo inherits from list, whose content cannot be saved" + METHODS.format("ListToo"),
    ),
    "a base class of unknown parameters": ([DictToo], [DictToo], "DictToo inherits from dict, .*" + METHODS.format("DictToo")),
    "a changed argument": (
        [lambda: Patient(100)],
        [lambda: Patient(100)],
        "the callback Patient had patience=36, and has patience=100 now",
    ),
    "a missing callback": ([Counter], [], "the callback Counter is not there now, so its state is lost"),
    "a new callback": ([], [Counter], "the callback Counter was not there before"),
    "the log": ([Records], [Records], r"the next log entry lacks \['thing'\], whose values are not plain"),
}


@pytest.mark.parametrize(("before", "after", "message"), REASONS.values(), ids=REASONS)
def test_the_warning_names_the_reason(
    before: Any, after: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, resumed = (make_model(env=random_envs()) for _ in range(2))
    if "log" in message:
        # No line is written, so that the value is still recorded when the checkpoint is written
        monkeypatch.setattr(VPG, "dump_logs", lambda self, iteration: None)
    crash(tmp_path, *(make() for make in before), model=model)
    with pytest.warns(UserWarning, match=f"^training goes on, but perhaps not to the last bit: .*{message}$") as warned:
        learn(tmp_path, *(make() for make in after), model=resumed)
    assert len(warned) == 1


def test_all_reasons_are_in_one_warning(tmp_path: Path) -> None:
    crash(tmp_path, HoldsThing(), Counter())
    with pytest.warns(UserWarning, match=r"HoldsThing.*; the callback Counter is not there now") as warned:
        learn(tmp_path, HoldsThing())
    assert len(warned) == 1


def test_evaluations_in_new_episodes_cause_a_warning(tmp_path: Path) -> None:
    def evaluation() -> EvalCallback:
        return EvalCallback(DummyVecEnv([HidingEnv]), eval_freq=999, verbose=0, warn=False)

    crash(tmp_path, evaluation())
    message = "the callback EvalCallback evaluates in new episodes, because environment 0: the attribute 'world' of HidingEnv"
    with pytest.warns(UserWarning, match=message):
        learn(tmp_path, evaluation())


def test_another_number_of_threads_causes_a_warning(tmp_path: Path) -> None:
    """The rounding of sums depends on the number of threads."""
    crash(tmp_path)
    threads = th.get_num_threads()
    th.set_num_threads(threads + 1)
    try:
        with pytest.warns(UserWarning, match=f"number of threads {threads} is {threads + 1} now"):
            learn(tmp_path)
    finally:
        th.set_num_threads(threads)


@pytest.mark.filterwarnings(r"ignore:load\(path\) alone will not read")
def test_an_attribute_of_the_model_that_is_not_plain_causes_a_warning(tmp_path: Path) -> None:
    model = make_model(env=random_envs())
    model.mine = Thing()  # type: ignore[attr-defined]
    crash(tmp_path, model=model)
    with pytest.warns(UserWarning, match="the model's attribute 'mine' is not plain"):
        learn(tmp_path)


class Counting(FlattenExtractor):
    def __init__(self, observation_space: spaces.Space[Any]) -> None:
        super().__init__(observation_space)
        self.calls, self.scale = 0, 0.5

    def forward(self, observations: th.Tensor) -> th.Tensor:
        self.calls += 1
        return self.scale * super().forward(observations)


class CountingBuffer(UsersBuffer):
    resets = 0

    def reset(self) -> None:
        super().reset()
        self.resets += 1


@pytest.mark.parametrize(
    ("kwargs", "name"),
    [
        ({"policy_kwargs": {"features_extractor_class": Counting}}, r"policy\.features_extractor\.calls"),
        ({"rollout_buffer_class": CountingBuffer}, r"rollout_buffer\.resets"),
    ],
    ids=["layer", "buffer"],
)
def test_changed_numbers_of_layers_and_buffers_cause_a_warning(kwargs: Any, name: str, tmp_path: Path) -> None:
    """State dicts do not hold plain numbers."""
    crash(tmp_path, model=make_model(env=random_envs(), **kwargs))
    with pytest.warns(UserWarning, match=rf"{name} was \d+, and is \d+ now \(register_buffer would save it") as warned:
        learn(tmp_path, model=make_model(env=random_envs(), **kwargs))
    assert "scale" not in str(warned[0].message)


class Draws(BaseCallback):
    """Draws from its own generators, which are not the global streams, and from its argument."""

    __slots__ = ("drawn",)

    def __init__(self, given: np.random.Generator) -> None:
        super().__init__()
        self.given = given
        self.numpy, self.legacy, self.pure = np.random.default_rng(1), np.random.RandomState(2), random.Random(3)
        self.drawn, self.phase = 0.0, "early"

    def _on_step(self) -> bool:
        if self.num_timesteps > 60:
            self.phase = "late"
        step = self.numpy.normal() + self.legacy.normal() + self.pure.gauss(0, 1) + self.given.normal()
        self.drawn += step if self.phase == "early" else 2 * step
        return True


def test_a_callback_draws_the_same_random_numbers(tmp_path: Path) -> None:
    uninterrupted, resumed = Draws(np.random.default_rng(4)), Draws(np.random.default_rng(4))
    learn(tmp_path / "uninterrupted", uninterrupted)
    crash(tmp_path / "killed", Draws(np.random.default_rng(4)))
    learn(tmp_path / "killed", resumed)
    assert resumed.drawn == uninterrupted.drawn


def test_callbacks_of_sb3_resume_without_a_warning(tmp_path: Path) -> None:
    """Their paths and ``verbose`` may differ. Warnings are errors in these tests."""

    def callbacks(name: str) -> list[BaseCallback]:
        patience = StopTrainingOnNoModelImprovement(1000, verbose=name == "again")
        return [
            CheckpointCallback(100, str(tmp_path / name)),
            EveryNTimesteps(64, Counter()),
            StopTrainingOnMaxEpisodes(1000),
            Limited(float("nan")),
            EvalCallback(random_envs(1), patience, eval_freq=20, log_path=str(tmp_path / name), verbose=0, warn=False),
        ]

    crash(tmp_path / "checkpoints", *callbacks("first"))
    learn(tmp_path / "checkpoints", *callbacks("again"))


class Walk(gym.Env[Any, Any]):
    """Its position is in a slot."""

    __slots__ = ("x",)
    observation_space, action_space = spaces.Box(-99, 99, (1,)), spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.t, self.x = 0, self.np_random.normal()
        return np.array([self.x], np.float32), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        self.x += int(action) - 0.5
        return np.array([self.x], np.float32), float(self.x), self.t == 13, False, {}


class Steps(Walk):
    """Its class counts the steps of all objects."""

    total = 0

    def step(self, action: Any) -> Any:
        Steps.total += 1
        return super().step(action)


class Own(RandomEnv, list):  # type: ignore[type-arg]
    __hash__ = object.__hash__


def test_training_in_an_environment_with_slots_is_exact(tmp_path: Path) -> None:
    def build() -> VPG:
        return make_model(env=make_vec_env(Walk, 1, seed=0), n_steps=17)

    uninterrupted = learn(tmp_path / "uninterrupted", model=build())
    crash(tmp_path / "killed", model=build())
    assert_same(uninterrupted, learn(tmp_path / "killed", model=build()))


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (Own, "environment 0: Own inherits from list, whose content cannot be saved"),
        (Steps, "the attribute 'total' of the class Steps had another value"),
    ],
)
def test_an_environment_whose_state_is_not_saved_begins_new_episodes(kind: Any, why: str, tmp_path: Path) -> None:
    crash(tmp_path, model=make_model(env=DummyVecEnv([kind]), n_steps=17))
    # As in a new process
    Steps.total = 0
    with pytest.warns(UserWarning, match=f"new episodes begin, because {why}") as warned:
        learn(tmp_path, model=make_model(env=DummyVecEnv([kind]), n_steps=17))
    assert len(warned) == 1
