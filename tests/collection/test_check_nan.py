"""A number that nothing can be learned from is named: environment, step and quantity, wherever and whenever it comes."""

import math
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from helpers import CONTINUOUS, VECTOR, RandomEnv, UsersBuffer, differing, make_model, vector_env, weights
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecNormalize

from sb3_vpg.collection.check_nan import LARGEST, first_invalid
from sb3_vpg.vec_env.gym_vec_env import make_vec_env

BAD = {"nan": math.nan, "inf": math.inf, "minus_inf": -math.inf, "huge": -3e25}
PAIR = spaces.Dict({"vector": VECTOR, "wide": spaces.Box(-1.0, 1.0, (2, 2), np.float64), "flag": spaces.Discrete(3)})


class Breaks(RandomEnv):
    """At its n-th step, counted from 1, one number is another. Episodes of six steps; each second one ends by time-out."""

    def __init__(self, step: int, quantity: str, number: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.fault = (step, quantity, number)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, reward, *rest = super().step(action)
        step, quantity, number = self.fault
        if self.steps == step:
            if quantity == "reward":
                reward = number
            elif isinstance(observation, dict):
                observation[quantity].flat[1] = number
            else:
                observation[1] = number
        return observation, reward, *rest


def broken(index: int, n_envs: int, step: int, quantity: str, number: float, **kwargs: Any) -> DummyVecEnv:
    """:return: environments of which one breaks"""
    return DummyVecEnv(
        [lambda one=one: Monitor(Breaks(step if one == index else -1, quantity, number, **kwargs)) for one in range(n_envs)]
    )


def assert_stops(model: Any, told: str, statistics: VecNormalize | None = None) -> None:
    """With this text, and before anything has moved: two rollouts are sound, the third is not."""
    steps = 2 * model.n_steps * model.n_envs
    model.learn(steps)
    before, moments = (
        weights(model),
        [str(one.state_dict()) for one in (model.policy.optimizer, model.critic_optimizer) if one],
    )
    seen = None if statistics is None else (statistics.obs_rms.mean.copy(), statistics.ret_rms.var)
    with pytest.raises(ValueError, match=r"Training stopped in iteration 3 ") as caught:
        model.learn(steps, reset_num_timesteps=False)
    assert told in str(caught.value)
    assert not differing(before, weights(model))
    assert moments == [str(one.state_dict()) for one in (model.policy.optimizer, model.critic_optimizer) if one]
    if seen is not None:
        np.testing.assert_array_equal(statistics.obs_rms.mean, seen[0])
        assert statistics.ret_rms.var == seen[1]


def shown(number: float) -> str:
    return f"{number:g}"


@pytest.mark.parametrize("number", BAD.values(), ids=BAD.keys())
@pytest.mark.parametrize("step", [31, 40, 45], ids=["first", "middle", "last"])
@pytest.mark.parametrize("quantity", ["reward", "observation"])
@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning", "ignore:invalid value:RuntimeWarning")
def test_environment_step_and_quantity_are_named(quantity, step, number):
    """Whether the policy cannot act on it, or nobody has looked at it yet."""
    name = "reward" if quantity == "reward" else "observation (entry 1)"
    place = f"at step {step - 30} of this rollout (timestep {3 * step})"
    model = make_model(env=broken(1, 3, step, quantity, number), n_steps=15)
    assert_stops(model, f"the {name} of environment 1 is {shown(number)} {place}")


@pytest.mark.parametrize("number", BAD.values(), ids=BAD.keys())
@pytest.mark.parametrize("observation_space", [VECTOR, PAIR], ids=["box", "dict"])
def test_the_end_that_a_time_out_cuts_off_is_named(observation_space, number):
    """Nobody but the critic sees the last observation of an episode: the seventh ends with the 42nd step by time-out."""
    quantity, name = ("vector", " 'vector'") if observation_space is PAIR else ("observation", "")
    env = broken(1, 3, 42, quantity, number, observation_space=observation_space)
    told = f"the terminal observation{name} (entry 1) of environment 1 is {shown(number)} at step 10 of this rollout"
    assert_stops(make_model("MultiInputPolicy" if observation_space is PAIR else "MlpPolicy", env), told)


@pytest.mark.parametrize("quantity", ["vector", "wide"])
def test_the_entry_of_a_dict_is_named(quantity):
    env = broken(2, 3, 40, quantity, 1e300 if quantity == "wide" else math.nan, observation_space=PAIR)
    entry = "(0, 1)" if quantity == "wide" else "1"
    number = "1e+300" if quantity == "wide" else "nan"
    told = f"the observation '{quantity}' (entry {entry}) of environment 2 is {number} at step 8 of this rollout"
    assert_stops(make_model("MultiInputPolicy", env), told)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_the_first_observation_is_there_at_the_start():
    """As it came from the reset, before any step."""
    env = broken(0, 2, -1, "", 0.0)
    env.envs[1].reset = lambda **_: (np.full(3, math.inf, np.float32), {})
    with pytest.raises(ValueError, match=r"\(entry 0\) of environment 1 is inf at the start of this rollout \(timestep 0\)"):
        make_model(env=env).learn(32)


def normalized(env: Any) -> Any:
    return VecNormalize(env)


def stacked(env: Any) -> Any:
    return VecFrameStack(VecNormalize(env), 2)


def twice(env: Any) -> Any:
    """One for the observations, one for the rewards."""
    return VecNormalize(VecNormalize(env, norm_reward=False), norm_obs=False)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf], ids=str)
@pytest.mark.parametrize("step", [31, 40, 45], ids=["first", "middle", "last"])
@pytest.mark.parametrize("quantity", ["reward", "observation"])
@pytest.mark.parametrize("wrap", [normalized, stacked, twice])
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_vec_normalize_makes_nan_of_all_environments_and_one_is_named(wrap, quantity, step, number):
    """Its statistics are those from before, in every layer."""
    env = wrap(broken(1, 3, step, quantity, number))
    model = make_model(env=env, n_steps=15)
    name = "reward" if quantity == "reward" else "observation (entry 1)"
    told = f"the {name} of environment 1 is {shown(number)} at step {step - 30} of this rollout (timestep {3 * step})"
    innermost = env if wrap is normalized else env.venv
    assert_stops(model, told, innermost)
    for layer in (env, env.venv):
        if isinstance(layer, VecNormalize):
            assert np.isfinite([layer.ret_rms.mean, layer.ret_rms.var, *layer.returns]).all()


@pytest.mark.parametrize("quantity", ["reward", "observation"])
def test_what_frozen_statistics_would_clip_is_no_less_infinite(quantity):
    """An infinity that ``clip_obs`` makes a 10 of looks like any other number from then on."""
    env = VecNormalize(broken(1, 2, 40, quantity, math.inf))
    env.training = False
    assert_stops(make_model(env=env), "of environment 1 is inf at step 8 of this rollout (timestep 80)")


def test_a_large_number_is_what_vec_normalize_is_for():
    """1e25 cannot be learned from; scaled and clipped it can."""
    env = VecNormalize(broken(1, 2, 40, "reward", 1e25))
    make_model(env=env).learn(160)
    assert env.ret_rms.var > 1e40


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning", "ignore:invalid value:RuntimeWarning")
def test_a_number_that_overflows_the_statistics_is_named():
    """VecNormalize squares an observation in its own precision: 1e25 is too much for float32."""
    env = VecNormalize(broken(1, 2, 40, "observation", 1e25))
    told = "(entry 1) of environment 1 is 1e+25, too large for the statistics of VecNormalize, at step 8 of this rollout"
    assert_stops(make_model(env=env), told, env)


SB3S_LOOP = {
    "gsde": {"use_sde": True},
    "users_buffer": {"rollout_buffer_class": UsersBuffer},
}


@pytest.mark.parametrize("wrap", [lambda env: env, normalized], ids=["bare", "normalized"])
@pytest.mark.parametrize("quantity", ["reward", "observation"])
@pytest.mark.parametrize("kwargs", SB3S_LOOP.values(), ids=SB3S_LOOP.keys())
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_sb3s_own_loop_is_looked_after(kwargs, quantity, wrap):
    env = wrap(broken(1, 3, 39, quantity, math.nan, action_space=CONTINUOUS))
    told = f"of environment 1 is nan at step 7 of this rollout (timestep {3 * 39})"
    model = make_model(env=env, **kwargs)
    assert_stops(model, told)
    assert "step" not in vars(env)


def test_callbacks_save_a_vec_normalize_in_the_middle_of_sb3s_loop(tmp_path):
    """As the zoo does with each new best model; the look at each step must not be in the way."""

    class Save(BaseCallback):
        def _on_step(self) -> bool:
            self.model.get_vec_normalize_env().save(tmp_path / "vecnormalize.pkl")
            return True

    env = normalized(vector_env(2, action_space=CONTINUOUS))
    make_model(env=env, use_sde=True).learn(32, callback=Save())
    assert VecNormalize.load(tmp_path / "vecnormalize.pkl", env.venv).obs_rms.count > 32


def test_the_value_of_a_terminal_observation_is_part_of_a_reward_in_sb3s_loop():
    """It adds one to the other, step by step."""
    env = broken(1, 3, 42, "observation", math.nan, action_space=CONTINUOUS)
    told = "the reward (with the value that SB3 adds at a time-out) of environment 1 is nan at step 10 of this rollout"
    assert_stops(make_model(env=env, use_sde=True), told)


class Reads(BaseCallback):
    """Takes a part of the rollout before the model does, as a logger of its contents might."""

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        next(self.model.rollout_buffer.get(8))


def test_a_buffer_that_was_read_is_read_right():
    """Reading lays SB3's buffer out environment by environment."""
    model = make_model(env=broken(1, 3, 39, "observation", 1e20, action_space=CONTINUOUS), use_sde=True)
    with pytest.raises(ValueError, match=r"\(entry 1\) of environment 1 is 1e\+20 at step 7 of this rollout \(timestep 117\)"):
        model.learn(480, Reads())


def test_whole_episodes_are_looked_at_too():
    """Without a critic, and from fresh resets: two episodes of six steps in each environment are a rollout."""
    model = make_model(env=broken(1, 2, 14, "reward", math.nan), baseline="average", n_episodes=2)
    with pytest.raises(
        ValueError, match=r"iteration 2 .*reward of environment 1 is nan at step 2 of this rollout \(timestep 28\)"
    ):
        model.learn(480)


def test_a_native_environment_is_looked_at():
    env = make_vec_env("CartPole-v1", 16)
    model = make_model(env=env)
    model.learn(256)
    env.env.state[0, 11] = math.nan
    with pytest.raises(ValueError, match=r"observation \(entry 0\) of environment 11 is nan at step 1 of this rollout"):
        model.learn(256, reset_num_timesteps=False)


def test_broken_weights_are_not_the_environments_fault():
    model = make_model()
    with th.no_grad():
        model.policy.action_net.weight.fill_(math.nan)
    with pytest.raises(ValueError, match=r"diverged in iteration 1 .*the policy's distribution over actions has NaN"):
        model.learn(16)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_many_moderate_numbers_raise_no_false_alarm(dtype):
    """The sum of their squares is beyond all limits, none of them is."""
    large = {np.float16: 6e4, np.float32: 0.9 * LARGEST, np.float64: 0.9 * LARGEST}[dtype]
    assert first_invalid(np.full((100, 100), large, dtype)) is None


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@given(data=st.data())
def test_the_first_unsound_number_is_found_as_one_by_one(dtype, data):
    """In any shape and any layout of the memory."""
    shape = data.draw(array_shapes(min_dims=1, max_dims=4, max_side=4))
    numbers = data.draw(arrays(dtype, shape, elements=st.floats(width=np.dtype(dtype).itemsize * 8)))
    numbers = data.draw(st.sampled_from([numbers, numbers.swapaxes(0, -1), np.repeat(numbers, 2, axis=0)[::2]]))
    unsound = [index for index in np.ndindex(numbers.shape) if not abs(float(numbers[index])) < LARGEST]
    assert first_invalid(numbers) == (unsound[0] if unsound else None)


@pytest.mark.parametrize("which", ["policy", "critic"])
def test_a_refused_update_leaves_the_optimisers_as_they_were(which):
    """Momentum of a step that was taken back would move the weights in the next one."""
    model = make_model()
    model.learn(32)
    optimizer = model.critic_optimizer
    before = weights(model)
    states = [
        {p: {k: v.clone() for k, v in s.items()} for p, s in o.state.items()} for o in (model.policy.optimizer, optimizer)
    ]
    rates = {"policy": "lr_schedule", "critic": "vf_lr_schedule"}
    setattr(model, rates[which], lambda _: 1e37)
    with pytest.raises(ValueError, match="diverged in iteration 3"):
        model.learn(32, reset_num_timesteps=False)
    assert not differing(before, weights(model))
    for kept, one in zip(states, (model.policy.optimizer, optimizer), strict=True):
        assert kept.keys() == one.state.keys()
        for parameter, state in kept.items():
            assert all(th.equal(value, one.state[parameter][name]) for name, value in state.items())


def test_training_goes_on_once_the_environment_is_mended():
    env = VecNormalize(broken(1, 2, 40, "observation", math.nan))
    model = make_model(env=env)
    with pytest.raises(ValueError, match="environment 1"):
        model.learn(320)
    model.learn(320)
    assert model.num_timesteps == 320
    assert np.isfinite(env.obs_rms.mean).all()


def test_first_observation_is_looked_at_before_the_statistics_are_lost():
    """The reset comes before any rollout: the error names the environment, and the statistics are those from before."""

    class Broken(RandomEnv):
        def reset(self, **kwargs):
            observation, info = super().reset(**kwargs)
            return observation * np.float32("nan"), info

    env = VecNormalize(DummyVecEnv([RandomEnv, Broken]))
    with pytest.raises(ValueError, match=r"observation \(entry 0\) of environment 1 is nan at the start of this rollout"):
        make_model(env=env).learn(32)
    assert np.isfinite(env.obs_rms.mean).all()
