"""Values that are computed late are those that SB3's loop computes in each step, or they are refused: it is the oracle."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch as th
from helpers import CONTINUOUS, make_model, silence
from sb3_loop import ACTIONS, RolloutRecorder, assert_same_buffers, environments, model_for, play, replay
from stable_baselines3 import A2C
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

from sb3_vpg import VPG
from sb3_vpg.collection.pure_modules import are_pure
from sb3_vpg.collection.stepwise_actor import StepwiseActor


def writes(callback: BaseCallback) -> None:
    """To what it reads, in the way that reward shaping writes to ``locals["rewards"]``."""
    names = callback.locals
    if callback.n_calls % 3 == 0:
        names["values"][:] = 5.0
    if callback.n_calls % 3 == 1:
        names["log_probs"] -= 1.0
    if callback.n_calls % 4 < 2:
        names["actions"][:] = 0
    names["rewards"] += 0.25


@pytest.mark.parametrize("action", ACTIONS)
def test_what_a_callback_writes_in_place_is_what_sb3_keeps(action: str) -> None:
    """Values and log-probabilities that were written to; and of actions those log-probabilities that they were drawn with."""
    ours, _, theirs, _ = replay(lambda: model_for("box", action), on_step=writes)
    assert_same_buffers(ours, theirs)


def test_what_a_callback_puts_in_their_place_is_nothing_to_sb3() -> None:
    def replaces(callback: BaseCallback) -> None:
        assert callback.locals["values"].shape == (2, 1)
        callback.locals["values"] = th.full((2, 1), 9.0)

    ours, _, theirs, _ = replay(model_for, on_step=replaces)
    assert_same_buffers(ours, theirs)


def other_weights(model: VPG, seed: int) -> dict[str, Any]:
    generator = th.Generator().manual_seed(seed)
    return {name: th.randn(one.shape, generator=generator) for name, one in model.policy.state_dict().items()}


def sets(callback: BaseCallback) -> None:
    """Also twice in a row, in the first step and in the last one."""
    step = callback.n_calls % 15
    for seed in {1: [1], 7: [2, 3], 0: [4]}.get(step, []):
        callback.model.set_parameters({"policy": other_weights(callback.model, seed)}, exact_match=False)


@pytest.mark.parametrize("policy", ["tanh", "shared_extractor", "own_body"])
def test_set_parameters_in_the_middle_of_a_rollout_changes_no_earlier_value(policy: str) -> None:
    """As population-based training does; time-outs are valued by the weights of their time as well."""
    ours, _, theirs, _ = replay(lambda: model_for("box", "discrete", policy), on_step=sets)
    assert_same_buffers(ours, theirs)


@pytest.mark.parametrize("use_sde", [False, True], ids=["lean", "gsde"])
def test_nor_in_whole_episodes(use_sde: bool) -> None:
    model = make_model(env=environments(2, action_space=CONTINUOUS), n_episodes=3, use_sde=use_sde)
    policies: list[Any] = []

    def look(callback: BaseCallback) -> None:
        policies.append(deepcopy(model.policy))
        sets(callback)

    play(model, RolloutRecorder(look))
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
def test_another_change_in_the_middle_of_a_rollout_is_refused(change: Any, options: dict[str, Any]) -> None:
    """And between rollouts nothing is."""
    model = make_model(env=environments(2), n_steps=12, **options)
    play(model, RolloutRecorder())
    change(model.policy)
    play(model, RolloutRecorder())
    with pytest.raises(ValueError, match=r"critic's weights were changed .* with model\.set_parameters\(\)"):
        play(model, RolloutRecorder(lambda callback: change(callback.model.policy) if callback.n_calls == 5 else None))
    play(model, RolloutRecorder())


def test_a_copy_of_the_model_is_in_no_rollout() -> None:
    """A callback may change it as it likes."""
    copies: list[Any] = []

    def copy(callback: BaseCallback) -> None:
        copies.append(deepcopy(callback.model))
        for change in CHANGES.values():
            change(copies[-1].policy)
        copies[-1].set_parameters(callback.model.get_parameters())

    ours, _, theirs, _ = replay(model_for, rollouts=1, on_step=copy)
    assert_same_buffers(ours, theirs)
    assert len(copies) == 30


def test_without_a_critic_nobody_minds() -> None:
    model = make_model(env=environments(2), baseline="none")
    play(model, RolloutRecorder(lambda callback: CHANGES["data"](callback.model.policy)))


class Extractor(BaseFeaturesExtractor):
    """Its features depend on the observation alone."""

    def __init__(self, space: Any) -> None:
        super().__init__(space, 3)
        self.layer = nn.Linear(3, 3)
        self.label, self.scale = "features", [1.0]
        self.function = lambda x: th.tanh(x)

    def forward(self, x: th.Tensor) -> th.Tensor:
        return self.function(self.layer(x)) * self.scale[0]


class Counts(Extractor):
    """In a buffer."""

    def __init__(self, space: Any) -> None:
        super().__init__(space)
        self.register_buffer("n", th.zeros(()))

    def forward(self, x: th.Tensor) -> th.Tensor:
        self.n += 1
        return super().forward(x) * (1.0 + 1.0 / self.n)


class Remembers(Extractor):
    """A running mean in an attribute."""

    mean = np.zeros(3, np.float32)

    def forward(self, x: th.Tensor) -> th.Tensor:
        self.mean = 0.9 * self.mean + 0.1 * x.mean(dim=0).numpy()
        return super().forward(x - th.as_tensor(self.mean))


class Compares(Extractor):
    """The observations of a batch with each other."""

    def forward(self, x: th.Tensor) -> th.Tensor:
        return super().forward(x - x.mean(dim=0))


class Draws(Extractor):
    """Random numbers."""

    def forward(self, x: th.Tensor) -> th.Tensor:
        return super().forward(x + th.randn_like(x))


class CannotBeCopied(Extractor):
    def __init__(self, space: Any) -> None:
        super().__init__(space)
        self.generator = iter(x for x in ())


OWN = {one.__name__: one for one in (Counts, Remembers, Compares, Draws, CannotBeCopied)}
PURE = {
    "none": {},
    "own": {"features_extractor_class": Extractor},
    "batch_norm": {"activation_fn": lambda: nn.BatchNorm1d(8)},
}


def build(cls: Any, extractor: Any, **options: Any) -> Any:
    policy_kwargs = {"features_extractor_class": extractor, "share_features_extractor": True, "net_arch": [8]}
    more = {"env": environments(2), "n_steps": 15, "gae_lambda": 0.9, "seed": 0, "device": "cpu", **options}
    return cls("MlpPolicy", policy_kwargs=policy_kwargs, **more)


@pytest.mark.parametrize("extractor", OWN.values(), ids=OWN.keys())
def test_a_module_that_says_something_else_later_is_called_at_each_step(extractor: Any) -> None:
    """A2C with the same seed plays the same rollout, value for value; a copy that was tried has left no trace."""
    ours, theirs = (build(cls, extractor) for cls in (VPG, A2C))
    theirs.policy.load_state_dict(ours.policy.state_dict())
    for model in (ours, theirs):
        th.manual_seed(3)
        silence(model)
        _, callback = model._setup_learn(1000)
        for _ in range(2):
            model.collect_rollouts(model.env, callback, model.rollout_buffer, 15)
    assert_same_buffers(ours, theirs)


@pytest.mark.parametrize("extractor", OWN.values(), ids=OWN.keys())
def test_also_with_whole_episodes(extractor: Any) -> None:
    model = build(VPG, extractor, n_episodes=2)
    play(model, RolloutRecorder())
    actor = model._choose_actor()
    actor.start(model._rng)
    assert isinstance(actor, StepwiseActor)
    assert not actor.values_wait


def test_whole_episodes_call_a_counter_as_often_as_sb3() -> None:
    """Once in a step, once at a time-out, once for what follows the rollout; in this order."""
    model = build(VPG, Counts, n_episodes=2)
    policy = deepcopy(model.policy)
    begun, seen = float(policy.features_extractor.n), RolloutRecorder()
    play(model, seen)
    ends = [row for row, one in enumerate(seen.rows) if one["infos"][0].get("TimeLimit.truncated")]
    buffer = model.rollout_buffer
    policy.set_training_mode(False)
    with th.no_grad():
        for row in range(buffer.pos):
            _, values, _ = policy(th.as_tensor(buffer.observations[row]))
            np.testing.assert_allclose(buffer.values[row], values.flatten(), rtol=1e-5)
            if row == ends[0]:
                policy.features_extractor.n += 2
    assert (buffer.pos, len(ends)) == (12, 1)
    assert model.policy.features_extractor.n - begun == 12 + 2 + 1


@pytest.mark.parametrize("policy_kwargs", PURE.values(), ids=PURE.keys())
def test_other_modules_stay_fast(policy_kwargs: dict[str, Any]) -> None:
    model = make_model(env=environments(2), policy_kwargs={"net_arch": [8], **policy_kwargs})
    play(model, RolloutRecorder())
    assert not isinstance(model._choose_actor(), StepwiseActor)


def test_normalisation_by_the_batch_alone_is_no_property_of_an_observation() -> None:
    """Torch's own, with an option that keeps no statistics."""
    batch_norm = {"activation_fn": lambda: nn.BatchNorm1d(8, track_running_stats=False)}
    model = make_model(env=environments(2), policy_kwargs=batch_norm)
    model.policy.set_training_mode(False)
    assert not are_pure(model.policy, model.env.reset())


class Ends(BaseCallback):
    """Notes the values that are shown after a rollout, at its end and later."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, list[Any]] = {}

    def _note(self, when: str) -> None:
        self.seen.setdefault(when, []).append([self.locals["values"].clone(), self.locals["log_probs"].clone()])

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        if self.model.num_timesteps:
            self._note("start")

    def _on_rollout_end(self) -> None:
        self._note("end")

    def _on_training_start(self) -> None:
        assert self.locals["iteration"] == 0

    def _on_training_end(self) -> None:
        self._note("training end")


@pytest.mark.parametrize(
    ("cls", "options"),
    [(A2C, {}), (VPG, {}), (VPG, {"n_episodes": 2}), (VPG, {"baseline": "none"}), (VPG, {"use_sde": True})],
    ids=["a2c", "steps", "episodes", "no_critic", "gsde"],
)
def test_the_values_at_the_end_of_a_rollout_are_shown_until_the_next_one(cls: Any, options: dict[str, Any]) -> None:
    """After the update too, those of the weights before it."""
    callback = Ends()
    env = environments(2, action_space=CONTINUOUS)
    cls("MlpPolicy", env, seed=0, device="cpu", **{"n_steps": 12, **options}).learn(60, callback)
    ends = callback.seen["end"]
    assert len(ends) == len(callback.seen["start"]) + 1
    for shown, end in zip([*callback.seen["start"], *callback.seen["training end"]], ends, strict=True):
        for one, other in zip(shown, end, strict=True):
            assert th.equal(one, other)


@pytest.mark.parametrize("options", [{}, {"n_episodes": 2}, {"use_sde": True}], ids=["steps", "episodes", "gsde"])
def test_a_policy_that_is_set_when_a_rollout_starts_plays_it(options: dict[str, Any]) -> None:
    """As with A2C: from the first action on."""
    model = make_model(env=environments(2, action_space=CONTINUOUS), n_steps=12, **options)
    play(model, RolloutRecorder())
    policies = [make_model(env=environments(2, action_space=CONTINUOUS), **options).policy for _ in range(2)]

    class Exchanges(RolloutRecorder):
        def _on_rollout_start(self) -> None:
            super()._on_rollout_start()
            model.policy = policies.pop()
            with th.no_grad():
                model.policy.action_net.bias.fill_(float(len(policies)) + 20.0)

    for bias in (21.0, 20.0):
        play(model, Exchanges())
        buffer = model.rollout_buffer
        assert abs(float(buffer.actions.mean()) - bias) < 1.0
        with th.no_grad():
            values = model.policy.predict_values(th.as_tensor(buffer.observations[0]))
        np.testing.assert_allclose(buffer.values[0], values.flatten(), rtol=1e-4, atol=1e-5)
