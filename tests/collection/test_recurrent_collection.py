"""Rollouts of ``RecurrentVPG`` are those of sb3_contrib's ``RecurrentPPO``."""

from typing import Any

import numpy as np
import pytest
import torch as th
from helpers import CONTINUOUS, DICT, DISCRETE, make_recurrent_model, silence, vector_env
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.callbacks import BaseCallback

from sb3_vpg.collection.recurrent_actor import RecurrentActor

STRUCTURES = {
    "separate": {},
    "shared": {"shared_lstm": True, "enable_critic_lstm": False},
    "no_critic_lstm": {"enable_critic_lstm": False},
    "two_layers": {"n_lstm_layers": 2},
}


def seeded_env(**kwargs: Any) -> Any:
    env = vector_env(3, **kwargs)
    env.seed(5)
    return env


def collect(model: Any, n_rollouts: int = 1) -> list[dict[str, np.ndarray]]:
    """:return: what each rollout left in the buffer"""
    silence(model)
    _, callback = model._setup_learn(1, reset_num_timesteps=False)
    th.manual_seed(3)
    rollouts = []
    for _ in range(n_rollouts):
        assert model.collect_rollouts(model.get_env(), callback, model.rollout_buffer, model.n_steps)
        names = ("observations", "actions", "rewards", "episode_starts", "values", "log_probs", "advantages", "returns")
        buffer, found = model.rollout_buffer, {}
        for name in names:
            array = getattr(buffer, name)
            found |= {f"{name}.{key}": one.copy() for key, one in array.items()} if isinstance(array, dict) else {name: array}
        rollouts.append({name: np.array(array) for name, array in found.items()})
    return rollouts


def contrib_twin(model: Any, env: Any) -> RecurrentPPO:
    """:return: contrib's algorithm with the same policy"""
    names = ("seed", "n_steps", "gamma", "gae_lambda", "use_sde", "sde_sample_freq", "policy_kwargs")
    twin = RecurrentPPO(type(model.policy), env, device="cpu", **{name: getattr(model, name) for name in names})
    twin.policy.load_state_dict(model.policy.state_dict())
    return twin


@pytest.mark.parametrize("structure", STRUCTURES.values(), ids=STRUCTURES.keys())
def test_a_rollout_equals_that_of_contrib(structure: dict[str, Any]) -> None:
    """Three rollouts with time-outs: observations, actions, rewards with bootstraps, values, advantages and states."""
    model = make_recurrent_model(env=seeded_env(), n_steps=10, policy_kwargs=structure)
    twin = contrib_twin(model, seeded_env())
    for ours, theirs in zip(collect(model, 3), collect(twin, 3), strict=True):
        for name in theirs:
            np.testing.assert_allclose(ours[name], theirs[name], atol=1e-6, err_msg=name)
    for ours, theirs in zip(model._last_lstm_states, twin._last_lstm_states, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(one, other.numpy(), atol=1e-6)


@pytest.mark.parametrize(
    ("policy", "spaces", "options"),
    [
        ("MlpLstmPolicy", {"action_space": CONTINUOUS}, {}),
        ("MlpLstmPolicy", {"action_space": CONTINUOUS}, {"use_sde": True}),
        ("MultiInputLstmPolicy", {"observation_space": DICT, "action_space": DISCRETE}, {}),
    ],
    ids=["continuous", "gsde", "dict"],
)
def test_other_spaces_and_gsde_are_collected_as_by_contrib(policy: str, spaces: dict, options: dict) -> None:
    model = make_recurrent_model(policy, seeded_env(**spaces), n_steps=10, **options)
    twin = contrib_twin(model, seeded_env(**spaces))
    for ours, theirs in zip(collect(model, 2), collect(twin, 2), strict=True):
        for name in theirs:
            np.testing.assert_allclose(ours[name], theirs[name], atol=1e-6, err_msg=name)


def test_gsde_draws_new_noise_every_few_steps() -> None:
    model = make_recurrent_model(env=seeded_env(action_space=CONTINUOUS), n_steps=10, use_sde=True, sde_sample_freq=3)
    draws, reset_noise = [], model.policy.reset_noise
    model.policy.reset_noise = lambda n_envs: (draws.append(n_envs), reset_noise(n_envs))
    collect(model)
    assert draws == [3] * 4


@pytest.mark.parametrize("options", [{"n_steps": 10}, {"n_episodes": 2}], ids=["n_steps", "n_episodes"])
@pytest.mark.parametrize("structure", STRUCTURES.values(), ids=STRUCTURES.keys())
def test_the_update_sees_what_collection_saw(structure: dict[str, Any], options: dict[str, int]) -> None:
    """Log-probabilities and values of the padded sequences are those of the single steps."""
    model = make_recurrent_model(env=seeded_env(), policy_kwargs=structure, **options)
    for _ in range(2):
        collect(model)
        buffer = model.rollout_buffer
        steps = model._steps(buffer)
        log_probs, _ = steps.evaluate(model.policy, has_critic=True)
        values = steps.values(model.policy)
        for evaluated, stored in ((log_probs, buffer.log_probs), (values, buffer.values)):
            expected = stored.T[buffer.counted.T] if "n_episodes" in options else stored.ravel()
            np.testing.assert_allclose(evaluated.detach().numpy(), expected, atol=1e-6)


def test_without_a_critic_its_lstm_is_not_called() -> None:
    model = make_recurrent_model(env=seeded_env(), baseline="none")
    calls: list[Any] = []
    model.policy.lstm_critic.register_forward_hook(lambda *args: calls.append(args))
    model.learn(3 * model.n_steps)
    assert not calls


class StopAt(BaseCallback):
    """Stops a rollout, in the middle of it."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    def _on_step(self) -> bool:
        self.states = self.model._recurrent_actor.states_before
        return self.n_calls < self.step


def test_after_a_stop_the_states_belong_to_the_last_observation() -> None:
    """The step that stopped is not part of them, as its observation is still the last one."""
    model = make_recurrent_model(env=seeded_env())
    callback = StopAt(4)
    model.learn(100, callback=callback)
    for ours, expected in zip(model._last_lstm_states, callback.states, strict=True):
        for one, other in zip(ours, expected, strict=True):
            np.testing.assert_array_equal(one, other.numpy())
    assert np.abs(model._last_lstm_states[0][0]).max() > 0


class Fails(BaseCallback):
    """Raises an error in one of its methods, and keeps the last states of the actor."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where

    def _on_step(self) -> bool:
        actor = self.model._recurrent_actor
        self.before, self.after = actor.states_before, actor.states
        if self.where == "step" and self.n_calls == 4:
            raise ZeroDivisionError
        return True

    def _on_rollout_end(self) -> None:
        if self.where == "rollout_end":
            raise ZeroDivisionError


def interrupted(*_: Any) -> Any:
    raise KeyboardInterrupt


@pytest.mark.parametrize("length", [{"n_steps": 10}, {"n_episodes": 2}], ids=["n_steps", "n_episodes"])
@pytest.mark.parametrize("where", ["step", "rollout_end", "last_values"])
def test_after_an_error_the_states_belong_to_the_last_observation(
    where: str, length: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of a step, that is the one before it; after the last step, the one that follows it."""
    model, callback = make_recurrent_model(env=seeded_env(), **length), Fails(where)
    if where == "last_values":
        monkeypatch.setattr(RecurrentActor, "values", interrupted)
    with pytest.raises((ZeroDivisionError, KeyboardInterrupt)):
        model.learn(100, callback=callback)
    expected = callback.before if where == "step" else callback.after
    for ours, pair in zip(model._last_lstm_states, expected, strict=True):
        for one, other in zip(ours, pair, strict=True):
            np.testing.assert_array_equal(one, other.numpy())
    is_last = np.array_equal(model._last_obs, model.rollout_buffer.observations[model.rollout_buffer.pos - (where != "step")])
    assert is_last == (where == "step")


class ReadAll(BaseCallback):
    """Keeps what a callback can read of each step."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []

    def _on_step(self) -> bool:
        self.seen.append((self.locals["values"].clone(), self.locals["log_probs"].clone()))
        return True


def test_callbacks_read_the_values_and_log_probs_of_the_step() -> None:
    model = make_recurrent_model(env=seeded_env(), n_steps=10)
    callback = ReadAll()
    model.learn(30, callback=callback)
    values, log_probs = (th.stack(parts).squeeze().numpy() for parts in zip(*callback.seen, strict=True))
    np.testing.assert_array_equal(values, model.rollout_buffer.values)
    np.testing.assert_array_equal(log_probs, model.rollout_buffer.log_probs)


class KeepStates(BaseCallback):
    """Keeps the states and starts that a callback can read of each step."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[list[np.ndarray]] = []

    def _on_step(self) -> bool:
        tensors = [self.locals["episode_starts"], *(part for pair in self.locals["lstm_states"] for part in pair)]
        self.seen.append([one.numpy().copy() for one in tensors])
        return True


def test_callbacks_read_the_states_and_starts_that_contrib_shows() -> None:
    model = make_recurrent_model(env=seeded_env(), n_steps=30)
    seen = []
    for one in (model, contrib_twin(model, seeded_env())):
        silence(one)
        keep = KeepStates()
        _, callback = one._setup_learn(1, keep)
        th.manual_seed(3)
        one.collect_rollouts(one.get_env(), callback, one.rollout_buffer, one.n_steps)
        seen.append(keep.seen)
    for ours, theirs in zip(*seen, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-7)
    starts = np.array([step[0] for step in seen[0]])
    assert 0 < starts[1:].sum() < starts[1:].size


def test_callbacks_may_read_values_without_a_critic() -> None:
    model = make_recurrent_model(env=seeded_env(), n_steps=10, baseline="none")
    callback = ReadAll()
    model.learn(30, callback=callback)
    assert callback.seen[0][0].shape == (3, 1)
