"""What ``GymVecEnv`` refuses, reset hooks of users, and the attributes of the environments inside."""

from collections.abc import Callable
from contextlib import closing
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
from gymnasium.vector import AsyncVectorEnv, VectorEnv, VectorRewardWrapper
from helpers import VECTOR
from stable_baselines3.common.monitor import Monitor
from vector_envs import NEXT_STEP, SAME_STEP, sync, talkative

from sb3_vpg.vec_env.autoreset import reset_cart_poles
from sb3_vpg.vec_env.gym_vec_env import GymVecEnv, make_vec_env


def cart_poles(**kwargs: Any) -> VectorEnv:
    return gym.make_vec("CartPole-v1", 2, vectorization_mode="vector_entry_point", **kwargs)


class OtherNative(CartPoleVectorEnv):
    """A native environment without a built-in hook."""


class Undeclared(CartPoleVectorEnv):
    metadata = {"render_modes": []}  # noqa: RUF012  # as gymnasium declares it


class Tripled(VectorRewardWrapper):
    def rewards(self, rewards: Any) -> Any:
        return 3 * rewards


TUPLE, NESTED = spaces.Tuple([VECTOR, VECTOR]), spaces.Dict({"a": spaces.Dict({"b": VECTOR})})
REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "sync in the next step": (lambda: GymVecEnv(sync(NEXT_STEP)), r"SyncVectorEnv.*autoreset_mode=AutoresetMode.SAME_STEP"),
    "native without a hook": (lambda: GymVecEnv(OtherNative(2)), "OtherNative.*pass a reset_hook"),
    "native in wrappers": (lambda: GymVecEnv(Tripled(cart_poles())), "Tripled.*bypass its wrappers; put GymVecEnv around"),
    "undeclared": (lambda: GymVecEnv(Undeclared(2)), "Undeclared.*autoreset_mode.*has None"),
    "a hook with nothing to do": (lambda: GymVecEnv(sync(), reset_hook=reset_cart_poles), "SameStep.*no reset_hook"),
    "tuple": (lambda: GymVecEnv(sync(observation_space=TUPLE)), "observation space Tuple"),
    "dict in dict": (lambda: GymVecEnv(sync(observation_space=NESTED)), "one Dict of them"),
    "tuple of actions": (lambda: GymVecEnv(sync(action_space=TUPLE)), "action space Tuple"),
    "no environments": (lambda: make_vec_env("CartPole-v1", 0), "n_envs must be at least 1, but is 0"),
    "unknown id": (lambda: make_vec_env("CartPoel-v1"), "there is no environment 'CartPoel-v1'.*"),
    "unknown mode": (lambda: make_vec_env("CartPole-v1", vectorization_mode="gpu"), "but is 'gpu'"),
    "no native one": (lambda: make_vec_env("Pendulum-v1", vectorization_mode="native"), "Pendulum-v1 has no native"),
    "native for a function": (lambda: make_vec_env(lambda: None, vectorization_mode="native"), "has no native"),
    "neither id nor function": (lambda: make_vec_env(7), "env_id must be an id, or a class or function .* but is 7"),
    "a function of nothing": (lambda: make_vec_env(lambda: None), "returned a NoneType, which is no gymnasium.Env: return"),
    "a vector class": (
        lambda: make_vec_env(CartPoleVectorEnv),
        "CartPoleVectorEnv.*is no gymnasium.Env: wrap it in GymVecEnv",
    ),
    "arguments of a function": (lambda: make_vec_env(lambda: None, env_kwargs={"g": 1}), "env_kwargs {'g': 1}.*'g'"),
    "text of actions": (lambda: GymVecEnv(sync(action_space=spaces.Text(3))), "action space Text"),
    "env_kwargs": (lambda: make_vec_env("CartPole-v1", env_kwargs={"gravity": 1}), "env_kwargs {'gravity': 1}.*gravity"),
    "render_mode": (lambda: make_vec_env("CartPole-v1", env_kwargs={"render_mode": "human"}), "no render_mode 'human'"),
    "monitor_kwargs": (
        lambda: make_vec_env("CartPole-v1", monitor_kwargs={"reset_keywords": ()}),
        "only 'override_existing'.*'reset_keywords'",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_name_the_cause_and_the_remedy(name: str) -> None:
    make, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        make()


def test_a_module_is_imported_for_its_environments() -> None:
    assert make_vec_env("gymnasium.envs:CartPole-v1", 2, seed=0).reset().shape == (2, 4)
    for nowhere in ("gymnasium.envs:CartPole-v77", "no_such_module:CartPole-v1"):
        with pytest.raises(ValueError, match=f"there is no environment '{nowhere}'"):
            make_vec_env(nowhere)


class Forgetful(CartPoleVectorEnv):
    """Declares the mode SAME_STEP, but does not return the last observation."""

    metadata = {**CartPoleVectorEnv.metadata, "autoreset_mode": SAME_STEP}  # noqa: RUF012  # as gymnasium declares it


def test_an_env_without_the_last_observation_is_refused_at_an_episodes_end() -> None:
    env = GymVecEnv(Forgetful(2))
    env.reset()
    with pytest.raises(ValueError, match=r"Forgetful.*an episode ended without 'final_obs'"):
        play_until_an_end(env)


def play_until_an_end(env: GymVecEnv) -> None:
    while not env.step(np.ones(2, dtype=int))[2].any():
        pass


@pytest.mark.parametrize("env", [OtherNative(8), Tripled(CartPoleVectorEnv(8))], ids=["subclass", "wrapped"])
def test_a_reset_hook_of_the_users_resets_at_once(env: VectorEnv) -> None:
    ours = GymVecEnv(env, reset_hook=lambda env, mask: reset_cart_poles(env.unwrapped, mask))
    ours.seed(0)
    ours.reset()
    reward, ended = 3.0 if isinstance(env, Tripled) else 1.0, 0
    for _ in range(40):
        _, rewards, dones, infos = ours.step(np.ones(8, dtype=int))
        assert (rewards == reward).all()
        for index in np.flatnonzero(dones):
            episode = infos[index]["episode"]
            assert episode["r"] == reward * episode["l"]
            ended += 1
    assert ended >= 24


def test_attributes_of_sync_envs_are_reached_one_by_one() -> None:
    env = GymVecEnv(sync())
    env.set_attr("mood", "bad", indices=1)
    assert env.get_attr("mood") == ["good", "bad"]
    assert env.get_attr("mood", indices=[1]) == ["bad"]
    assert env.env_method("mood_of", "he", indices=[1], loud=True) == ["he is bad!"]
    assert env.env_is_wrapped(gym.wrappers.TimeLimit) == [True, True]
    assert env.env_is_wrapped(gym.wrappers.ClipAction) == [False, False]
    assert env.env_is_wrapped(Monitor, indices=0) == [True]
    with pytest.raises(AttributeError, match="colour"):
        env.get_attr("colour")
    assert not env.has_attr("colour")


def test_attributes_of_async_envs_are_reached_together() -> None:
    """Asking for a missing attribute does not end the worker, as it does in gymnasium."""
    with closing(GymVecEnv(AsyncVectorEnv(talkative(2), autoreset_mode=SAME_STEP))) as env:
        assert not env.has_attr("colour")
        env.set_attr("mood", ["a", "list"])
        assert env.get_attr("mood", indices=1) == [["a", "list"]]
        assert env.env_method("mood_of", "he") == ["he is ['a', 'list']"] * 2
        assert callable(env.get_attr("mood_of")[0])
        for partly in (lambda: env.set_attr("mood", "", indices=0), lambda: env.env_method("mood_of", "he", indices=[1])):
            with pytest.raises(ValueError, match="would reach all of its 2 environments"):
                partly()
        with pytest.raises(ValueError, match="so their wrappers are not known"):
            env.env_is_wrapped(gym.wrappers.TimeLimit)
        assert env.env_is_wrapped(Monitor) == [True, True]
        env.reset()
        env.step(np.zeros(2, dtype=int))


def test_attributes_of_a_native_env_are_the_same_for_each_index() -> None:
    env = make_vec_env("CartPole-v1", 3, seed=0)
    assert env.get_attr("gravity") == [9.8] * 3
    env.set_attr("gravity", 1.6)
    env.set_attr("colour", "red")
    assert env.get_attr("gravity", indices=[0, 1]) == [1.6, 1.6]
    assert env.get_attr("colour") == ["red"] * 3
    assert env.env_method("__repr__") == [repr(env.env)] * 3
    with pytest.raises(ValueError, match=r"setting 'gravity'.*not only \[1\]"):
        env.set_attr("gravity", 1.0, indices=1)
    with pytest.raises(AttributeError, match="shape"):
        env.env_method("shape")
    wrapped = GymVecEnv(Tripled(OtherNative(3)), reset_hook=lambda env, mask: reset_cart_poles(env.unwrapped, mask))
    assert wrapped.get_attr("gravity") == [9.8] * 3


@pytest.mark.parametrize("mode", ["native", "sync"])
def test_each_environment_has_an_image(mode: str) -> None:
    kwargs = {"render_mode": "rgb_array"}
    with closing(make_vec_env("CartPole-v1", 2, env_kwargs=kwargs, vectorization_mode=mode)) as env:
        env.reset()
        assert [image.shape for image in env.get_images()] == [(400, 600, 3)] * 2
        assert env.render().shape == (800, 600, 3), "SB3 tiles them"
    with pytest.warns(UserWarning, match="render mode is None"):
        assert make_vec_env("CartPole-v1", 2).get_images() == [None, None]
