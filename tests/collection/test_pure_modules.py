"""The values of modules that are not pure are computed at each step, as in SB3's loop; those of pure modules, later."""

from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch as th
from helpers import make_model, silence
from sb3_loop import RolloutRecorder, assert_same_buffers, environments, play
from stable_baselines3 import A2C
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

from sb3_vpg import VPG
from sb3_vpg.collection.pure_modules import are_pure
from sb3_vpg.collection.stepwise_actor import StepwiseActor


class Extractor(BaseFeaturesExtractor):
    """Is pure: its features depend only on the observation."""

    def __init__(self, space: Any) -> None:
        super().__init__(space, 3)
        self.layer = nn.Linear(3, 3)
        self.label, self.scale = "features", [1.0]
        self.function = lambda x: th.tanh(x)

    def forward(self, x: th.Tensor) -> th.Tensor:
        return self.function(self.layer(x)) * self.scale[0]


class CountingExtractor(Extractor):
    """Counts its calls in a buffer."""

    def __init__(self, space: Any) -> None:
        super().__init__(space)
        self.register_buffer("n", th.zeros(()))

    def forward(self, x: th.Tensor) -> th.Tensor:
        self.n += 1
        return super().forward(x) * (1.0 + 1.0 / self.n)


class RunningMeanExtractor(Extractor):
    """Keeps a running mean of the observations in an attribute."""

    mean = np.zeros(3, np.float32)

    def forward(self, x: th.Tensor) -> th.Tensor:
        self.mean = 0.9 * self.mean + 0.1 * x.mean(dim=0).numpy()
        return super().forward(x - th.as_tensor(self.mean))


class BatchMeanExtractor(Extractor):
    """Subtracts the mean of the batch."""

    def forward(self, x: th.Tensor) -> th.Tensor:
        return super().forward(x - x.mean(dim=0))


class NoisyExtractor(Extractor):
    """Adds random numbers."""

    def forward(self, x: th.Tensor) -> th.Tensor:
        return super().forward(x + th.randn_like(x))


class UncopyableExtractor(Extractor):
    """Has an attribute that cannot be copied."""

    def __init__(self, space: Any) -> None:
        super().__init__(space)
        self.generator = iter(x for x in ())


IMPURE = {
    "counter": CountingExtractor,
    "running_mean": RunningMeanExtractor,
    "batch_mean": BatchMeanExtractor,
    "noise": NoisyExtractor,
    "uncopyable": UncopyableExtractor,
}
PURE = {
    "none": {},
    "extractor": {"features_extractor_class": Extractor},
    "batch_norm": {"activation_fn": lambda: nn.BatchNorm1d(8)},
}


def build(cls: Any, extractor: Any, **options: Any) -> Any:
    policy_kwargs = {"features_extractor_class": extractor, "share_features_extractor": True, "net_arch": [8]}
    arguments = {"env": environments(2), "n_steps": 15, "gae_lambda": 0.9, "seed": 0, "device": "cpu", **options}
    return cls("MlpPolicy", policy_kwargs=policy_kwargs, **arguments)


@pytest.mark.parametrize("extractor", IMPURE.values(), ids=IMPURE.keys())
def test_impure_extractor_plays_the_rollout_of_a2c(extractor: Any) -> None:
    """With the same seed, VPG and A2C store the same rollouts, so VPG's trial calls leave no trace in the extractor."""
    ours, theirs = (build(cls, extractor) for cls in (VPG, A2C))
    theirs.policy.load_state_dict(ours.policy.state_dict())
    for model in (ours, theirs):
        th.manual_seed(3)
        silence(model)
        _, callback = model._setup_learn(1000)
        for _ in range(2):
            model.collect_rollouts(model.env, callback, model.rollout_buffer, 15)
    assert_same_buffers(ours, theirs)


@pytest.mark.parametrize("extractor", IMPURE.values(), ids=IMPURE.keys())
def test_impure_extractor_is_called_at_each_step_with_n_episodes(extractor: Any) -> None:
    """With ``n_episodes`` too, a policy with an impure extractor is called at each step and its values are not postponed."""
    model = build(VPG, extractor, n_episodes=2)
    play(model, RolloutRecorder())
    actor = model._choose_actor()
    actor.start(model._rng)
    assert isinstance(actor, StepwiseActor)
    assert not actor.defers_values


def test_extractor_calls_with_n_episodes() -> None:
    """
    The extractor is called once per step, once per environment at a time-out, and once after the rollout, as in SB3's loop.

    The values of a copy of the policy that is called in this order are those in the buffer.
    """
    model = build(VPG, CountingExtractor, n_episodes=2)
    policy = deepcopy(model.policy)
    n_before, recorder = float(policy.features_extractor.n), RolloutRecorder()
    play(model, recorder)
    ends = [step for step, row in enumerate(recorder.rows) if row["infos"][0].get("TimeLimit.truncated")]
    buffer = model.rollout_buffer
    policy.set_training_mode(False)
    with th.no_grad():
        for row in range(buffer.pos):
            _, values, _ = policy(th.as_tensor(buffer.observations[row]))
            np.testing.assert_allclose(buffer.values[row], values.flatten(), rtol=1e-5)
            if row == ends[0]:
                policy.features_extractor.n += 2
    assert (buffer.pos, len(ends)) == (12, 1)
    assert model.policy.features_extractor.n - n_before == 12 + 2 + 1


@pytest.mark.parametrize("policy_kwargs", PURE.values(), ids=PURE.keys())
def test_pure_modules_are_not_called_at_each_step(policy_kwargs: dict[str, Any]) -> None:
    """For pure modules, VPG does not choose the actor that calls the policy at each step."""
    model = make_model(env=environments(2), policy_kwargs={"net_arch": [8], **policy_kwargs})
    play(model, RolloutRecorder())
    assert not isinstance(model._choose_actor(), StepwiseActor)


def test_batch_norm_without_running_statistics_is_not_pure() -> None:
    """Torch's BatchNorm with ``track_running_stats=False`` is not pure: its output depends on the batch."""
    batch_norm = {"activation_fn": lambda: nn.BatchNorm1d(8, track_running_stats=False)}
    model = make_model(env=environments(2), policy_kwargs=batch_norm)
    model.policy.set_training_mode(False)
    assert not are_pure(model.policy, model.env.reset())
