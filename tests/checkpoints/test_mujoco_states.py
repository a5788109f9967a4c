"""gymnasium's MuJoCo environments continue from a restored state to the last bit."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from env_continuation import assert_continues, bits, play
from gymnasium.vector import SyncVectorEnv
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize
from vector_envs import SAME_STEP

from sb3_vpg.checkpoints.env_state import get_state, set_state
from sb3_vpg.vec_env.gym_vec_env import GymVecEnv

mujoco = pytest.importorskip("mujoco")
pytestmark = pytest.mark.filterwarnings("ignore:.*out of date")
NAMES = sorted(
    name
    for name, spec in gym.registry.items()
    if str(spec.entry_point).startswith("gymnasium.envs.mujoco") and not name.endswith(("-v2", "-v3"))
)
"""Versions 2 and 3 need mujoco-py, and gymnasium 1 cannot make them."""


def make(name: str, steps: int = 23, **kwargs: Any) -> gym.Env:
    try:
        return gym.make(name, max_episode_steps=steps, **kwargs)
    except ImportError as error:  # Pusher-v4 needs an old MuJoCo
        pytest.skip(str(error))


@pytest.mark.parametrize("used", [0, 11], ids=["new", "used"])
@pytest.mark.parametrize("name", NAMES)
def test_gymnasiums_environments_continue(name: str, used: int) -> None:
    def build() -> VecEnv:
        return DummyVecEnv([lambda: Monitor(make(name))] * 2)

    assert assert_continues(build, used=used) >= 6


class Heavier(gym.Wrapper):
    """Edits the model at each reset: masses, friction, gravity, and what MuJoCo derives from them."""

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        super().reset(**kwargs)
        env: Any = self.unwrapped
        if not hasattr(self, "masses"):
            self.masses = env.model.body_mass.copy()
        env.model.body_mass[:] = self.masses * env.np_random.uniform(0.5, 1.5)
        env.model.geom_friction[:, 0] = env.np_random.uniform(0.3, 1.0)
        env.model.opt.gravity[2] = -env.np_random.uniform(8.0, 11.0)
        env.model.opt.viscosity = env.np_random.uniform(0.0, 0.1)
        mujoco.mj_setConst(env.model, env.data)
        return super().reset(**kwargs)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = super().step(action)
        model: Any = self.unwrapped.model  # type: ignore[attr-defined]
        return observation, reward, terminated, truncated, info | {"inertia": model.stat.meaninertia}


class Holding(gym.Wrapper):
    """Holds MuJoCo's objects, and reads positions from before each step."""

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        result = super().reset(**kwargs)
        self.simulation = {"objects": [self.unwrapped.model, self.unwrapped.data]}  # type: ignore[attr-defined]
        self.data = self.unwrapped.data  # type: ignore[attr-defined]
        return result

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        model, data = self.simulation["objects"]
        before = data.geom_xpos.sum() + self.data.qacc.sum() + self.data.time + model.body_mass.sum()
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward + before, terminated, truncated, info


def rescaled(env: gym.Env) -> gym.Env:
    return gym.wrappers.RescaleAction(gym.wrappers.NormalizeObservation(env), np.float32(-0.5), np.float32(0.5))


def cheetahs(wrap: Any, **kwargs: Any) -> VecEnv:
    return DummyVecEnv([lambda: Monitor(wrap(make("HalfCheetah-v5", **kwargs)))] * 2)


def in_gymnasiums_vector() -> VecEnv:
    return GymVecEnv(SyncVectorEnv([lambda: Heavier(make("Ant-v5"))] * 2, autoreset_mode=SAME_STEP))


BUILDERS: dict[str, Any] = {
    "an edited model": lambda: cheetahs(Heavier),
    "an edited model that is held": lambda: cheetahs(lambda env: Holding(Heavier(env))),
    "gymnasium's wrappers": lambda: cheetahs(rescaled),
    "a wrapper that holds the objects": lambda: cheetahs(Holding),
    "a wrapper below others": lambda: cheetahs(lambda env: rescaled(Holding(env))),
    "with a renderer": lambda: cheetahs(rescaled, render_mode="rgb_array"),
    "VecNormalize": lambda: VecNormalize(make_vec_env("Hopper-v5", 2, env_kwargs={"max_episode_steps": 23})),
    "a vector environment": in_gymnasiums_vector,
}


@pytest.mark.parametrize("used", [0, 11], ids=["new", "used"])
@pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS)
def test_edited_models_and_wrappers_continue(build: Any, used: int) -> None:
    assert assert_continues(build, used=used) > 0


def test_old_checkpoints_begin_new_episodes() -> None:
    """They say that the model is not plain, and have no entry for MuJoCo."""
    first, second = cheetahs(rescaled), cheetahs(rescaled)
    first.reset()
    state = get_state(first) | {"base": None, "missing": "environment 0: the attribute 'model' holds a MjModel"}
    del state["mujoco"]
    assert set_state(second, state) == state["missing"]


def colliding(env: gym.Env) -> gym.Env:
    env.unwrapped.model.geom_contype[1] = 7  # type: ignore[attr-defined]
    return env


def test_another_model_begins_new_episodes_and_changes_nothing() -> None:
    """Whole numbers are not restored, because a file must not change places in memory."""
    first, second = cheetahs(colliding), cheetahs(lambda env: env)
    first.reset()
    play(first, 5, 0)
    second.seed(0)
    second.reset()
    before = bits(get_state(second))
    reason = set_state(second, get_state(first))
    assert reason is not None
    assert reason.startswith(
        "the attribute 'model' of HalfCheetahEnv has other whole numbers in 'geom_contype' than the state"
    )
    assert bits(get_state(second)) == before


def test_another_version_of_mujoco_begins_new_episodes(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = cheetahs(rescaled), cheetahs(rescaled)
    first.reset()
    state = get_state(first)
    monkeypatch.setattr(mujoco, "__version__", "9.9")
    assert "is of MuJoCo 9.9, but the state is of MuJoCo" in (set_state(second, state) or "")


def test_a_file_cannot_change_whole_numbers() -> None:
    """They may be places in memory."""
    first, second = cheetahs(rescaled), cheetahs(rescaled)
    first.reset()
    state = get_state(first)
    places = first.get_attr("model")[0].jnt_qposadr
    content = next(content for *_, content in state["mujoco"])
    content["sizes"] = [["jnt_qposadr", places.size], *content["sizes"]]
    with pytest.raises(ValueError, match="the state of 'jnt_qposadr' is damaged"):
        set_state(second, state)
    np.testing.assert_array_equal(second.get_attr("model")[0].jnt_qposadr, places)


class Views(gym.Wrapper):
    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        result = super().reset(**kwargs)
        self.positions = self.unwrapped.data.qpos[1:]  # type: ignore[attr-defined]
        return result


class Bare(gym.Env):
    """Has no base class of gymnasium's MuJoCo environments."""

    observation_space = action_space = gym.spaces.Box(-1, 1, (1,))

    def __init__(self, xml: str, keep: bool = True) -> None:
        model = mujoco.MjModel.from_xml_string(f"<mujoco>{xml}</mujoco>")
        self.data = mujoco.MjData(model)
        self.model = model if keep else None

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        return np.zeros(1, np.float32), {}


class Hanging(Bare):
    """A body hangs on a constraint, which is switched off after four steps."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (7,))

    def __init__(self) -> None:
        body = "<body name='hanging' pos='1 0 1'><freejoint/><geom size='0.1'/></body>"
        super().__init__(f"<worldbody>{body}</worldbody><equality><weld body1='hanging'/></equality>")

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        gym.Env.reset(self, **kwargs)
        mujoco.mj_resetData(self.model, self.data)
        return self.data.qpos.astype(np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if self.data.time > 0.039:
            self.data.eq_active[0] = 0
        self.data.xfrc_applied[1, :1] = action
        mujoco.mj_step(self.model, self.data, nstep=5)
        return self.data.qpos.astype(np.float32), self.data.qpos[2], self.data.time > 0.115, False, {}


@pytest.mark.parametrize("used", [0, 5], ids=["new", "used"])
def test_a_constraint_that_was_switched_off_stays_off(used: int) -> None:
    assert assert_continues(lambda: DummyVecEnv([Hanging] * 2), before=30, after=3, used=used) == 0


BODY = "<body><joint name='a'/><geom size='1'/></body>"
ONE, TWO = f"<worldbody>{BODY}</worldbody>", f"<worldbody>{BODY}<body/></worldbody>"
DELAY = ONE + "<actuator><motor joint='a' delay='0.1' nsample='3'/></actuator>"
needs_delays = pytest.mark.skipif(not hasattr(mujoco.MjModel, "nhistory"), reason="this MuJoCo has no delays")
SLEEP = ONE + "<option><flag sleep='enable'/></option>"


@pytest.mark.parametrize(
    ("build", "why"),
    [
        (
            lambda: Views(make("Swimmer-v5")),
            "the attribute 'positions' of Views holds an array that is a part of MuJoCo's memory",
        ),
        (lambda: Bare(ONE, keep=False), "the attribute 'data' of Bare holds a MjData whose MjModel is in no attribute"),
        pytest.param(lambda: Bare(DELAY), "the attribute 'model' of Bare holds a MjModel with delays", marks=needs_delays),
        pytest.param(
            lambda: Bare(SLEEP), "the attribute 'model' of Bare holds a MjModel with bodies that sleep", marks=needs_delays
        ),
    ],
)
def test_state_that_cannot_be_saved_is_named(build: Any, why: str) -> None:
    env = DummyVecEnv([build])
    env.reset()
    assert why in get_state(env)["missing"]


@pytest.mark.parametrize(
    ("anew", "why"),
    [
        (lambda: Bare(TWO), "the attribute 'data' of Bare has another size of"),
        (lambda: Bare(ONE.replace("'1'", "'1' user='2'")), "the attribute 'model' of Bare has another size of 'geom_user'"),
        pytest.param(
            lambda: Bare(DELAY),
            "the attribute 'data' of Bare is of a model with delays, whose state cannot be restored",
            marks=needs_delays,
        ),
        (lambda: Bare(ONE, keep=False), "the attribute 'model' of Bare is None, but the state is of a MjModel"),
    ],
)
def test_an_object_that_cannot_get_the_state_is_named(anew: Any, why: str) -> None:
    first, second = DummyVecEnv([lambda: Bare(ONE)]), DummyVecEnv([anew])
    first.reset()
    assert (set_state(second, get_state(first)) or "").startswith(why)


def test_an_old_mujoco_begins_new_episodes(monkeypatch: pytest.MonkeyPatch) -> None:
    env = DummyVecEnv([lambda: Bare(ONE)])
    env.reset()
    monkeypatch.delattr(mujoco.MjData, "model")
    assert "'data' of Bare holds a MjData of MuJoCo" in get_state(env)["missing"]
