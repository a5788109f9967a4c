"""Callbacks read the same in ``locals`` as in SB3's loop with the same actions."""

from typing import Any

import numpy as np
import pytest
import torch as th
from custom_policies import Masked
from helpers import CONTINUOUS, RandomEnv, make_model
from sb3_loop import ACTIONS, OBSERVATIONS, RolloutRecorder, assert_same, environments, model_for, play, replay
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, EvalCallback, EveryNTimesteps
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy

from sb3_vpg import VPG

NAMES_IN_A_STEP = ("obs_tensor", "values", "log_probs")
NAMES_AT_THE_END = (*NAMES_IN_A_STEP, "n_steps", "actions", "clipped_actions", "new_obs", "rewards", "dones", "infos")
WITHOUT_CRITIC: dict[str, dict[str, Any]] = {
    "steps": {"baseline": "none"},
    "episodes": {"n_episodes": 2},
    "average": {"n_episodes": 2, "baseline": "average"},
}


def described(value: Any) -> Any:
    """:return: a copy; for a tensor or an array, a list of its type and properties and, at its end, a copy as an array"""
    if isinstance(value, dict):
        return {key: described(entry) for key, entry in value.items()}
    if isinstance(value, th.Tensor):
        return [str(value.dtype), str(value.device), value.requires_grad, value.clone().numpy()]
    return [str(value.dtype), value.copy()] if isinstance(value, np.ndarray) else value


def assert_same_rows(ours: list[Any], theirs: list[Any]) -> None:
    assert len(ours) == len(theirs) > 0
    for our_row, their_row in zip(ours, theirs, strict=True):
        for name in our_row:
            assert_same_description(our_row[name], their_row[name])


def assert_same_description(actual: Any, expected: Any) -> None:
    if isinstance(actual, dict):
        assert actual.keys() == expected.keys()
        for key in actual:
            assert_same_description(actual[key], expected[key])
    elif isinstance(actual, list) and actual and isinstance(actual[0], str):
        assert actual[:-1] == expected[:-1]
        assert actual[-1].shape == expected[-1].shape
        np.testing.assert_allclose(actual[-1], expected[-1], rtol=1e-4, atol=1e-5)
    else:
        assert_same(actual, expected)


class ValueRecorder(RolloutRecorder):
    """Also reads the values that are computed on demand, in two of three steps, and all variables at the end of a rollout."""

    def __init__(self, step_hook: Any) -> None:
        super().__init__(step_hook)
        self.steps: list[Any] = []
        self.ends: list[Any] = []

    def _on_step(self) -> bool:
        if self.n_calls % 3 != 1:
            self.steps.append({name: described(self.locals[name]) for name in NAMES_IN_A_STEP})
        return super()._on_step()

    def _on_rollout_end(self) -> None:
        super()._on_rollout_end()
        self.ends.append({name: described(self.locals[name]) for name in NAMES_AT_THE_END})


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("observation", OBSERVATIONS)
def test_values_log_probabilities_and_tensors_are_those_of_sb3(observation: str, action: str) -> None:
    """In each step and at the end of each rollout, callbacks read the same values, types, shapes and devices in both loops."""
    _, ours, _, theirs = replay(lambda: model_for(observation, action), recorder_class=ValueRecorder)
    assert_same_rows(ours.steps, theirs.steps)
    assert_same_rows(ours.ends, theirs.ends)


@pytest.mark.parametrize("policy", ["relu", "extractor", "shared_extractor", "float64"])
def test_values_are_those_of_sb3_with_other_policies(policy: str) -> None:
    """Callbacks read the same in both loops, whether NumPy or torch computes the network."""
    _, ours, _, theirs = replay(lambda: model_for("box", "discrete", policy), recorder_class=ValueRecorder)
    assert_same_rows(ours.steps, theirs.steps)
    if policy != "float64":  # at the end of a rollout, our loop shows the float32 numbers of the buffer
        assert_same_rows(ours.ends, theirs.ends)


class ReadLocals(BaseCallback):
    """Reads ``locals`` in every way that a dict offers, and compares the values with those of the policy."""

    def __init__(self) -> None:
        super().__init__()
        self.n_ends = 0

    def _on_step(self) -> bool:
        names, policy = self.locals, self.model.policy
        for name in NAMES_IN_A_STEP:
            assert name in names
            assert names.get(name) is names[name]
        copies = [
            dict(names),
            {**names},
            names.copy(),
            dict(names.items()),
            dict(zip(names.keys(), names.values(), strict=True)),
        ]
        for copy in copies:
            assert set(copy) == set(names)
            assert all(copy[name] is names[name] for name in NAMES_IN_A_STEP)
        assert "nothing" not in names
        assert names.get("nothing", 3) == 3
        with pytest.raises(KeyError, match="nothing"):
            names["nothing"]
        with th.no_grad():
            observations = th.as_tensor(self.model._last_obs)
            actions = th.as_tensor(names["actions"])
            values, log_probs, _ = policy.evaluate_actions(observations, actions)
        th.testing.assert_close(names["obs_tensor"], observations)
        th.testing.assert_close(names["values"], values, rtol=1e-4, atol=1e-5)
        th.testing.assert_close(names["log_probs"], log_probs.float(), rtol=1e-4, atol=1e-5)
        return True

    def _on_rollout_end(self) -> None:
        self.n_ends += 1
        with th.no_grad():
            values = self.model.policy.predict_values(th.as_tensor(self.model._last_obs))
        th.testing.assert_close(self.locals["values"], values, rtol=1e-4, atol=1e-5)
        assert self.locals["dones"] is self.model._last_episode_starts
        np.testing.assert_array_equal(self.locals["log_probs"], self.model.rollout_buffer.log_probs[-1])


@pytest.mark.parametrize("box", [False, True], ids=["discrete", "box"])
@pytest.mark.parametrize("options", [{}, *WITHOUT_CRITIC.values()], ids=["critic", *WITHOUT_CRITIC])
@pytest.mark.parametrize("policy", ["MlpPolicy", Masked, "gsde"])
def test_every_callback_reads_values_in_learn(options: dict[str, Any], policy: Any, box: bool) -> None:
    """Callbacks in lists and events read the policy's values too, also if VPG does not need a critic."""
    if (policy is Masked and box) or (policy == "gsde" and not box):
        pytest.skip("Masked needs discrete actions, gSDE continuous ones")
    policy_options = {"use_sde": True, "policy": "MlpPolicy"} if policy == "gsde" else {"policy": policy}
    space = {"action_space": CONTINUOUS} if box else {}
    callbacks = [ReadLocals() for _ in range(4)]
    evaluation = EvalCallback(environments(1, **space), eval_freq=8, callback_after_eval=None)
    nested = [callbacks[0], CallbackList([callbacks[1], EveryNTimesteps(2, callbacks[2])]), evaluation, callbacks[3]]
    model = make_model(env=environments(2, **space), **policy_options, **options)
    model.learn(64, callback=nested)
    assert [callback.n_calls for callback in callbacks] == [callbacks[0].n_calls] * 4
    assert callbacks[0].n_calls >= 32
    # SB3 does not call _on_rollout_end() of a callback inside an event
    assert [callback.n_ends > 1 for callback in callbacks] == [True, True, False, True]


def test_function_as_callback_reads_values() -> None:
    """A function that is given as callback reads other values at each step."""
    values: list[float] = []

    def keep_value(variables: dict[str, Any], _: Any) -> bool:
        values.append(float(variables["values"]))
        return True

    make_model().learn(16, callback=keep_value)
    assert len(set(values)) > 8


def test_each_step_shows_new_values() -> None:
    """A step shows neither the values of the step before nor those at the end of the previous rollout."""
    values: list[np.ndarray] = []
    play(model_for(), RolloutRecorder(lambda callback: values.append(callback.locals["values"].numpy())), rollouts=2)
    assert len(np.unique(np.concatenate(values))) > 30


CALLS: list[int] = []


def count(*_: Any) -> None:
    """A hook, outside of the test so that a copy of the module can be pickled."""
    CALLS.append(1)


def test_values_are_computed_on_demand() -> None:
    """The critic is called three times per rollout, and once more for each step whose values a callback reads."""
    model = model_for(policy="extractor")
    model.policy.vf_features_extractor.register_forward_hook(count)
    play(model, RolloutRecorder())  # the first rollout also calls a copy of the modules
    CALLS.clear()
    play(model, RolloutRecorder())
    assert len(CALLS) == 3  # for all steps, all time-outs and the observation after the rollout
    play(model, RolloutRecorder(lambda callback: callback.locals["values"]))
    assert len(CALLS) == 3 + 3 + 15


def test_loops_may_alternate() -> None:
    """If SB3's loop and VPG's alternate, callbacks read the values of the loop that runs."""
    model, callback = model_for(), ReadLocals()
    _, callback = model._setup_learn(10_000, callback)
    for loop in (OnPolicyAlgorithm.collect_rollouts, VPG.collect_rollouts) * 2:
        assert loop(model, model.env, callback, model.rollout_buffer, model.n_steps)
    assert callback.n_calls == 60


class BonusAfterRollout(BaseCallback):
    """Adds a bonus to the rewards after the rollout and recomputes advantages, as callbacks for curiosity (RND) do."""

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        buffer = self.model.rollout_buffer
        buffer.rewards += 0.5
        buffer.compute_returns_and_advantage(last_values=self.locals["values"], dones=self.locals["dones"])


class BonusAtEachStep(BaseCallback):
    """Adds the same bonus at each step."""

    def _on_step(self) -> bool:
        self.locals["rewards"] += 0.5
        return True


@pytest.mark.parametrize("kwargs", [{}, {"use_sde": True}], ids=["default", "gsde"])
@pytest.mark.parametrize("options", [{}, {"n_episodes": 3}], ids=["steps", "episodes"])
def test_callback_may_recompute_advantages(options: dict[str, Any], kwargs: Any) -> None:
    """A bonus after the rollout gives the counted steps the same advantages and returns as a bonus at each step."""
    results = []
    for callback in (BonusAfterRollout(), BonusAtEachStep()):
        model = make_model(env=environments(2, action_space=CONTINUOUS), gamma=0.9, n_steps=18, **options, **kwargs)
        model.set_random_seed(0)
        model.learn(36, callback=callback)
        buffer = model.rollout_buffer
        counted = getattr(buffer, "counted", np.ones_like(buffer.rewards, dtype=bool))
        results.append((buffer.advantages[counted], buffer.returns[counted]))
    for after_rollout, at_each_step in zip(*results, strict=True):
        np.testing.assert_allclose(after_rollout, at_each_step, rtol=1e-4, atol=1e-5)


REFUSED: dict[str, dict[str, Any]] = {
    **{name: options for name, options in WITHOUT_CRITIC.items() if name != "episodes"},
    "discounted": {"n_episodes": 2, "discount_steps": True},
}


@pytest.mark.parametrize("options", REFUSED.values(), ids=REFUSED.keys())
def test_recomputing_advantages_is_refused_without_gae(options: dict[str, Any]) -> None:
    """If VPG's advantages are not GAE, recomputing them is refused; the alternative in the error message works."""
    model = make_model(**options)
    before = model.policy.action_net.weight.clone()
    with pytest.raises(ValueError, match=r"compute_returns_and_advantage\(\).*self\.locals\['rewards'\] \+= bonus"):
        model.learn(32, callback=BonusAfterRollout())
    assert th.equal(model.policy.action_net.weight, before)
    model.learn(32, callback=BonusAtEachStep())


class ShiftedPolicy(ActorCriticPolicy):
    """Adds constants to the values and log-probabilities in ``forward``."""

    def forward(self, obs: Any, deterministic: bool = False) -> Any:
        actions, values, log_prob = super().forward(obs, deterministic)
        return actions, values + 100.0, log_prob - 7.0


def test_callbacks_and_buffer_have_the_values_of_forward() -> None:
    """With ``n_episodes`` and a policy with its own ``forward``, callbacks read its results and the buffer stores them."""
    shown: list[Any] = []

    class KeepValues(BaseCallback):
        def _on_step(self) -> bool:
            shown.append((float(self.locals["values"]), float(self.locals["log_probs"])))
            return True

    model = make_model(ShiftedPolicy, RandomEnv(action_space=CONTINUOUS), n_episodes=2)
    model.learn(12, callback=KeepValues())
    buffer = model.rollout_buffer
    np.testing.assert_allclose(buffer.values[:, 0], [value for value, _ in shown])
    np.testing.assert_allclose(buffer.log_probs[:, 0], [log_prob for _, log_prob in shown])
    assert buffer.values.min() > 90.0
