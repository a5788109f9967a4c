"""The error for a NaN, infinite or huge number names the environment, the step and the quantity."""

import math
from copy import deepcopy
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from helpers import CONTINUOUS, VECTOR, RandomEnv, UsersBuffer, differing, make_model, vector_env, weights
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecNormalize

from sb3_vpg.vec_env.gym_vec_env import make_vec_env

BAD = {"nan": math.nan, "inf": math.inf, "minus_inf": -math.inf, "huge": -3e25}
PAIR = spaces.Dict({"vector": VECTOR, "wide": spaces.Box(-1.0, 1.0, (2, 2), np.float64), "flag": spaces.Discrete(3)})


class FaultyEnv(RandomEnv):
    """
    Returns one invalid number.

    :param step: the step with the invalid number, counted from 1
    :param quantity: ``"reward"``, ``"observation"`` or the key of a dict observation
    :param number: the invalid number
    """

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


def faulty_vec_env(index: int, n_envs: int, step: int, quantity: str, number: float, **kwargs: Any) -> DummyVecEnv:
    """:return: environments of which the one with this index returns an invalid number"""

    def make(env: int) -> Monitor:
        return Monitor(FaultyEnv(step if env == index else -1, quantity, number, **kwargs))

    return DummyVecEnv([partial(make, env) for env in range(n_envs)])


def optimizer_states(model: Any) -> list[str]:
    return [str(optimizer.state_dict()) for optimizer in (model.policy.optimizer, model.critic_optimizer) if optimizer]


def assert_stops(model: Any, message: str, statistics: VecNormalize | None = None) -> None:
    """Check that the third rollout raises this message and changes no weights, optimisers or statistics."""
    steps = 2 * model.n_steps * model.n_envs
    model.learn(steps)
    weights_before, states_before = weights(model), optimizer_states(model)
    if statistics is not None:
        mean_before, variance_before = statistics.obs_rms.mean.copy(), statistics.ret_rms.var
    with pytest.raises(ValueError, match=r"Training stopped in iteration 3 ") as caught:
        model.learn(steps, reset_num_timesteps=False)
    assert message in str(caught.value)
    assert not differing(weights_before, weights(model))
    assert optimizer_states(model) == states_before
    if statistics is not None:
        np.testing.assert_array_equal(statistics.obs_rms.mean, mean_before)
        assert statistics.ret_rms.var == variance_before


@pytest.mark.parametrize("number", BAD.values(), ids=BAD.keys())
@pytest.mark.parametrize("step", [31, 40, 45], ids=["first", "middle", "last"])
@pytest.mark.parametrize("quantity", ["reward", "observation"])
@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning", "ignore:invalid value:RuntimeWarning")
def test_error_names_environment_step_and_quantity(quantity, step, number):
    """The error names the place of a reward, and of an observation, in the first, a middle and the last step of a rollout."""
    name = "reward" if quantity == "reward" else "observation (entry 1)"
    place = f"at step {step - 30} of this rollout (timestep {3 * step})"
    model = make_model(env=faulty_vec_env(1, 3, step, quantity, number), n_steps=15)
    assert_stops(model, f"the {name} of environment 1 is {number:g} {place}")


@pytest.mark.parametrize("number", BAD.values(), ids=BAD.keys())
@pytest.mark.parametrize("observation_space", [VECTOR, PAIR], ids=["box", "dict"])
def test_error_names_the_terminal_observation_of_a_time_out(observation_space, number):
    """The error names the terminal observation of a time-out, which only the critic reads. Step 42 is a time-out."""
    quantity, name = ("vector", " 'vector'") if observation_space is PAIR else ("observation", "")
    env = faulty_vec_env(1, 3, 42, quantity, number, observation_space=observation_space)
    message = f"the terminal observation{name} (entry 1) of environment 1 is {number:g} at step 10 of this rollout"
    assert_stops(make_model("MultiInputPolicy" if observation_space is PAIR else "MlpPolicy", env), message)


@pytest.mark.parametrize("quantity", ["vector", "wide"])
def test_error_names_the_key_and_the_entry_of_a_dict(quantity):
    """For a dict observation, the error names the key and the index of the invalid entry."""
    env = faulty_vec_env(2, 3, 40, quantity, 1e300 if quantity == "wide" else math.nan, observation_space=PAIR)
    entry, number = ("(0, 1)", "1e+300") if quantity == "wide" else ("1", "nan")
    message = f"the observation '{quantity}' (entry {entry}) of environment 2 is {number} at step 8 of this rollout"
    assert_stops(make_model("MultiInputPolicy", env), message)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_error_names_the_observation_of_the_first_reset():
    """The error for an observation of the first reset says that it came before any step."""
    env = faulty_vec_env(0, 2, -1, "", 0.0)
    env.envs[1].reset = lambda **_: (np.full(3, math.inf, np.float32), {})
    with pytest.raises(ValueError, match=r"\(entry 0\) of environment 1 is inf at the start of this rollout \(timestep 0\)"):
        make_model(env=env).learn(32)


def unwrapped(env: Any) -> Any:
    return env


def normalized(env: Any) -> Any:
    return VecNormalize(env)


def stacked(env: Any) -> Any:
    return VecFrameStack(VecNormalize(env), 2)


def two_layers(env: Any) -> Any:
    """Normalise observations and rewards in two layers."""
    return VecNormalize(VecNormalize(env, norm_reward=False), norm_obs=False)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf], ids=str)
@pytest.mark.parametrize("step", [31, 40, 45], ids=["first", "middle", "last"])
@pytest.mark.parametrize("quantity", ["reward", "observation"])
@pytest.mark.parametrize("wrap", [normalized, stacked, two_layers])
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_error_names_one_environment_behind_vec_normalize(wrap, quantity, step, number):
    """The error names the faulty environment, although VecNormalize spreads NaN to all, and its statistics stay valid."""
    env = wrap(faulty_vec_env(1, 3, step, quantity, number))
    model = make_model(env=env, n_steps=15)
    name = "reward" if quantity == "reward" else "observation (entry 1)"
    message = f"the {name} of environment 1 is {number:g} at step {step - 30} of this rollout (timestep {3 * step})"
    innermost = env if wrap is normalized else env.venv
    assert_stops(model, message, innermost)
    for layer in (env, env.venv):
        if isinstance(layer, VecNormalize):
            assert np.isfinite([layer.ret_rms.mean, layer.ret_rms.var, *layer.returns]).all()


@pytest.mark.parametrize("quantity", ["reward", "observation"])
def test_infinity_is_refused_although_frozen_vec_normalize_clips_it(quantity):
    """An infinite number is refused even if ``VecNormalize`` with frozen statistics clips it to 10."""
    env = VecNormalize(faulty_vec_env(1, 2, 40, quantity, math.inf))
    env.training = False
    assert_stops(make_model(env=env), "of environment 1 is inf at step 8 of this rollout (timestep 80)")


def test_large_reward_is_allowed_behind_vec_normalize():
    """A reward of 1e25, which is refused without ``VecNormalize``, is allowed with it, since it is scaled and clipped."""
    env = VecNormalize(faulty_vec_env(1, 2, 40, "reward", 1e25))
    make_model(env=env).learn(160)
    assert env.ret_rms.var > 1e40


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning", "ignore:invalid value:RuntimeWarning")
def test_error_names_a_number_that_overflows_the_statistics():
    """The error names an observation of 1e25, whose square in ``VecNormalize`` overflows float32."""
    env = VecNormalize(faulty_vec_env(1, 2, 40, "observation", 1e25))
    message = "(entry 1) of environment 1 is 1e+25, too large for the statistics of VecNormalize, at step 8 of this rollout"
    assert_stops(make_model(env=env), message, env)


PLAYED_BY_SB3S_LOOP = {
    "gsde": {"use_sde": True},
    "users_buffer": {"rollout_buffer_class": UsersBuffer},
}


@pytest.mark.parametrize("wrap", [unwrapped, normalized])
@pytest.mark.parametrize("quantity", ["reward", "observation"])
@pytest.mark.parametrize("kwargs", PLAYED_BY_SB3S_LOOP.values(), ids=PLAYED_BY_SB3S_LOOP.keys())
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_numbers_are_checked_in_sb3s_loop(kwargs, quantity, wrap):
    """In SB3's loop too, the error names the environment and the step, and ``env.step`` is left as it was."""
    env = wrap(faulty_vec_env(1, 3, 39, quantity, math.nan, action_space=CONTINUOUS))
    model = make_model(env=env, **kwargs)
    assert_stops(model, f"of environment 1 is nan at step 7 of this rollout (timestep {3 * 39})")
    assert "step" not in vars(env)


def test_callback_can_save_vec_normalize_in_sb3s_loop(tmp_path):
    """A callback can save ``VecNormalize`` in SB3's loop, as the zoo does, although its steps are checked there."""

    class SaveVecNormalize(BaseCallback):
        def _on_step(self) -> bool:
            self.model.get_vec_normalize_env().save(tmp_path / "vecnormalize.pkl")
            return True

    env = normalized(vector_env(2, action_space=CONTINUOUS))
    make_model(env=env, use_sde=True).learn(32, callback=SaveVecNormalize())
    assert VecNormalize.load(tmp_path / "vecnormalize.pkl", env.venv).obs_rms.count > 32


def test_error_in_sb3s_loop_names_the_reward_with_the_added_value():
    """For a NaN terminal observation in SB3's loop, the error names the reward, to which SB3 adds the terminal value."""
    env = faulty_vec_env(1, 3, 42, "observation", math.nan, action_space=CONTINUOUS)
    message = "the reward (with the value that SB3 adds at a time-out) of environment 1 is nan at step 10 of this rollout"
    assert_stops(make_model(env=env, use_sde=True), message)


class ReadBuffer(BaseCallback):
    """Reads a minibatch at the end of the rollout, before the update."""

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        next(self.model.rollout_buffer.get(8))


def test_error_is_right_if_a_callback_read_the_buffer():
    """The error names the right environment and step if a callback has read the buffer, which changes its layout."""
    model = make_model(env=faulty_vec_env(1, 3, 39, "observation", 1e20, action_space=CONTINUOUS), use_sde=True)
    with pytest.raises(ValueError, match=r"\(entry 1\) of environment 1 is 1e\+20 at step 7 of this rollout \(timestep 117\)"):
        model.learn(480, ReadBuffer())


def test_numbers_are_checked_with_n_episodes():
    """With ``n_episodes`` and no critic, the error names the step too: a rollout has two episodes of six steps."""
    model = make_model(env=faulty_vec_env(1, 2, 14, "reward", math.nan), baseline="average", n_episodes=2)
    with pytest.raises(
        ValueError, match=r"iteration 2 .*reward of environment 1 is nan at step 2 of this rollout \(timestep 28\)"
    ):
        model.learn(480)


def test_numbers_are_checked_in_a_native_environment():
    """For gymnasium's vectorised CartPole, the error names the environment in the batch."""
    env = make_vec_env("CartPole-v1", 16)
    model = make_model(env=env)
    model.learn(256)
    env.env.state[0, 11] = math.nan
    with pytest.raises(ValueError, match=r"observation \(entry 0\) of environment 11 is nan at step 1 of this rollout"):
        model.learn(256, reset_num_timesteps=False)


def test_nan_weights_are_reported_as_divergence():
    """If a weight is NaN, the error says that the policy diverged and names no environment."""
    model = make_model()
    with th.no_grad():
        model.policy.action_net.weight.fill_(math.nan)
    with pytest.raises(ValueError, match=r"diverged in iteration 1 .*the policy's distribution over actions has NaN"):
        model.learn(16)


@pytest.mark.parametrize("schedule", ["lr_schedule", "vf_lr_schedule"], ids=["policy", "critic"])
def test_refused_update_leaves_weights_and_optimisers_unchanged(schedule):
    """If an update is refused, weights and optimiser states are those from before: old momentum would move later steps."""
    model = make_model()
    model.learn(32)
    before = weights(model)
    optimizers = model.policy.optimizer, model.critic_optimizer
    states = [{parameter: deepcopy(state) for parameter, state in optimizer.state.items()} for optimizer in optimizers]
    setattr(model, schedule, lambda _: 1e37)
    with pytest.raises(ValueError, match="diverged in iteration 3"):
        model.learn(32, reset_num_timesteps=False)
    assert not differing(before, weights(model))
    for state_before, optimizer in zip(states, optimizers, strict=True):
        assert state_before.keys() == optimizer.state.keys()
        for parameter, state in state_before.items():
            assert all(th.equal(value, optimizer.state[parameter][name]) for name, value in state.items())


def test_training_continues_after_an_invalid_observation():
    """After an error for an invalid observation, ``learn()`` trains on if the environment is valid again."""
    env = VecNormalize(faulty_vec_env(1, 2, 40, "observation", math.nan))
    model = make_model(env=env)
    with pytest.raises(ValueError, match="environment 1"):
        model.learn(320)
    model.learn(320)
    assert model.num_timesteps == 320
    assert np.isfinite(env.obs_rms.mean).all()


def test_observation_of_a_reset_is_checked_before_vec_normalize_reads_it():
    """If the first reset returns NaN, the error names the environment, and the statistics stay finite."""

    class NanResetEnv(RandomEnv):
        def reset(self, **kwargs):
            observation, info = super().reset(**kwargs)
            return observation * np.float32("nan"), info

    env = VecNormalize(DummyVecEnv([RandomEnv, NanResetEnv]))
    with pytest.raises(ValueError, match=r"observation \(entry 0\) of environment 1 is nan at the start of this rollout"):
        make_model(env=env).learn(32)
    assert np.isfinite(env.obs_rms.mean).all()
