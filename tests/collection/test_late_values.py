"""Values that are computed after the rollout equal those that SB3's loop computes at each step, or VPG refuses."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch as th
from helpers import CONTINUOUS, make_model
from sb3_loop import ACTIONS, RolloutRecorder, assert_same_buffers, environments, model_for, play, replay
from stable_baselines3 import A2C
from stable_baselines3.common.callbacks import BaseCallback
from torch import nn

from sb3_vpg import VPG


def write_in_place(callback: BaseCallback) -> None:
    """Write to the arrays in ``locals``, as callbacks do that shape rewards."""
    names = callback.locals
    if callback.n_calls % 3 == 0:
        names["values"][:] = 5.0
    if callback.n_calls % 3 == 1:
        names["log_probs"] -= 1.0
    if callback.n_calls % 4 < 2:
        names["actions"][:] = 0
    names["rewards"] += 0.25


@pytest.mark.parametrize("action", ACTIONS)
def test_buffer_keeps_what_a_callback_writes_in_place(action: str) -> None:
    """
    If a callback writes to values, log-probabilities, actions and rewards, both loops store the same.

    A log-probability remains that of the action as it was drawn.
    """
    ours, _, theirs, _ = replay(lambda: model_for("box", action), step_hook=write_in_place)
    assert_same_buffers(ours, theirs)


def test_buffer_ignores_values_that_a_callback_replaces() -> None:
    """If a callback assigns a new tensor to ``locals["values"]``, both loops store the values of the policy."""

    def replace_values(callback: BaseCallback) -> None:
        assert callback.locals["values"].shape == (2, 1)
        callback.locals["values"] = th.full((2, 1), 9.0)

    ours, _, theirs, _ = replay(model_for, step_hook=replace_values)
    assert_same_buffers(ours, theirs)


def other_weights(model: VPG, seed: int) -> dict[str, Any]:
    generator = th.Generator().manual_seed(seed)
    return {name: th.randn(tensor.shape, generator=generator) for name, tensor in model.policy.state_dict().items()}


def set_other_weights(callback: BaseCallback) -> None:
    """Set other weights in the first step, twice in the seventh, and in the last one of a rollout of 15 steps."""
    step = callback.n_calls % 15
    for seed in {1: [1], 7: [2, 3], 0: [4]}.get(step, []):
        callback.model.set_parameters({"policy": other_weights(callback.model, seed)}, exact_match=False)


@pytest.mark.parametrize("policy", ["tanh", "shared_extractor", "own_body"])
def test_set_parameters_in_the_middle_of_a_rollout_changes_no_earlier_value(policy: str) -> None:
    """``set_parameters`` in a rollout changes neither the values of earlier steps nor those bootstrapped at time-outs."""
    ours, _, theirs, _ = replay(lambda: model_for("box", "discrete", policy), step_hook=set_other_weights)
    assert_same_buffers(ours, theirs)


@pytest.mark.parametrize("use_sde", [False, True], ids=["default", "gsde"])
def test_set_parameters_changes_no_earlier_value_with_n_episodes(use_sde: bool) -> None:
    """With ``n_episodes`` too, each value in the buffer is that of the weights at its step."""
    model = make_model(env=environments(2, action_space=CONTINUOUS), n_episodes=3, use_sde=use_sde)
    policies: list[Any] = []

    def keep_policy(callback: BaseCallback) -> None:
        policies.append(deepcopy(model.policy))
        set_other_weights(callback)

    play(model, RolloutRecorder(keep_policy))
    buffer = model.rollout_buffer
    assert buffer.pos == len(policies) > 15
    for row, policy in enumerate(policies):
        with th.no_grad():
            values = policy.predict_values(th.as_tensor(buffer.observations[row]))
        np.testing.assert_allclose(buffer.values[row], values.flatten(), rtol=1e-4, atol=1e-5)


CHANGES: dict[str, Callable[[Any], Any]] = {
    "data": lambda policy: policy.value_net.bias.data.add_(1.0),
    "in_place": lambda policy: nn.init.normal_(policy.mlp_extractor.value_net[0].bias),
    "module": lambda policy: setattr(policy, "value_net", deepcopy(policy.value_net)),
    "load_state_dict": lambda policy: policy.load_state_dict({k: v + 1 for k, v in policy.state_dict().items()}),
}


@pytest.mark.parametrize("options", [{}, {"n_episodes": 3}], ids=["steps", "episodes"])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_other_changes_of_the_critic_in_a_rollout_are_refused(change: Any, options: dict[str, Any]) -> None:
    """A change of the critic's weights without ``set_parameters`` is refused in a rollout and allowed between rollouts."""
    model = make_model(env=environments(2), n_steps=12, **options)
    play(model, RolloutRecorder())
    change(model.policy)
    play(model, RolloutRecorder())

    def change_at_step_5(callback: BaseCallback) -> None:
        if callback.n_calls == 5:
            change(callback.model.policy)

    with pytest.raises(ValueError, match=r"critic's weights were changed .* with model\.set_parameters\(\)"):
        play(model, RolloutRecorder(change_at_step_5))
    play(model, RolloutRecorder())


def test_callback_may_change_a_copy_of_the_model() -> None:
    """Changes of a copy of the model, made in a rollout, are allowed and leave the rollout of the model as it is."""
    copies: list[Any] = []

    def copy(callback: BaseCallback) -> None:
        copies.append(deepcopy(callback.model))
        for change in CHANGES.values():
            change(copies[-1].policy)
        copies[-1].set_parameters(callback.model.get_parameters())

    ours, _, theirs, _ = replay(model_for, rollouts=1, step_hook=copy)
    assert_same_buffers(ours, theirs)
    assert len(copies) == 30


def test_without_a_critic_changes_of_value_weights_are_allowed() -> None:
    """With ``baseline="none"``, changing the value head in a rollout raises nothing."""
    model = make_model(env=environments(2), baseline="none")
    play(model, RolloutRecorder(lambda callback: CHANGES["data"](callback.model.policy)))


class RolloutEndValues(BaseCallback):
    """Keeps the values in ``locals`` at the end of each rollout, at the start of the next one and at the end of training."""

    def __init__(self) -> None:
        super().__init__()
        self.values: dict[str, list[Any]] = {}

    def _keep(self, when: str) -> None:
        self.values.setdefault(when, []).append([self.locals["values"].clone(), self.locals["log_probs"].clone()])

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        if self.model.num_timesteps:
            self._keep("start")

    def _on_rollout_end(self) -> None:
        self._keep("end")

    def _on_training_start(self) -> None:
        assert self.locals["iteration"] == 0

    def _on_training_end(self) -> None:
        self._keep("training end")


@pytest.mark.parametrize(
    ("cls", "options"),
    [(A2C, {}), (VPG, {}), (VPG, {"n_episodes": 2}), (VPG, {"baseline": "none"}), (VPG, {"use_sde": True})],
    ids=["a2c", "steps", "episodes", "no_critic", "gsde"],
)
def test_values_at_the_end_of_a_rollout_are_shown_until_the_next_one(cls: Any, options: dict[str, Any]) -> None:
    """``locals`` shows the same values at the end of a rollout and, after the update, at the start of the next one."""
    callback = RolloutEndValues()
    env = environments(2, action_space=CONTINUOUS)
    cls("MlpPolicy", env, seed=0, device="cpu", **{"n_steps": 12, **options}).learn(60, callback)
    ends = callback.values["end"]
    assert len(ends) == len(callback.values["start"]) + 1
    for shown, end in zip([*callback.values["start"], *callback.values["training end"]], ends, strict=True):
        for actual, expected in zip(shown, end, strict=True):
            assert th.equal(actual, expected)


@pytest.mark.parametrize("options", [{}, {"n_episodes": 2}, {"use_sde": True}], ids=["steps", "episodes", "gsde"])
def test_policy_set_in_on_rollout_start_plays_the_rollout(options: dict[str, Any]) -> None:
    """If a callback sets ``model.policy`` in ``_on_rollout_start``, that policy gives all actions and values, as in A2C."""
    model = make_model(env=environments(2, action_space=CONTINUOUS), n_steps=12, **options)
    play(model, RolloutRecorder())
    policies = [make_model(env=environments(2, action_space=CONTINUOUS), **options).policy for _ in range(2)]

    class ReplacePolicy(RolloutRecorder):
        def _on_rollout_start(self) -> None:
            super()._on_rollout_start()
            model.policy = policies.pop()
            with th.no_grad():
                model.policy.action_net.bias.fill_(float(len(policies)) + 20.0)

    for bias in (21.0, 20.0):
        play(model, ReplacePolicy())
        buffer = model.rollout_buffer
        assert abs(float(buffer.actions.mean()) - bias) < 1.0
        with th.no_grad():
            values = model.policy.predict_values(th.as_tensor(buffer.observations[0]))
        np.testing.assert_allclose(buffer.values[0], values.flatten(), rtol=1e-4, atol=1e-5)
