"""A policy can be deep-copied and pickled whenever SB3's can, as for opponents in self-play and for workers."""

import pickle
from collections import OrderedDict, deque
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch as th
from helpers import CONTINUOUS, DICT, IMAGE, RandomEnv, differing, make_model, sample_observations, silence, values, weights
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter, Logger
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn


class NoOutput(KVWriter):
    """A log output, so that diagnostics are computed, that can be copied."""

    def write(self, key_values, key_excluded, step=0):
        pass


def logging(model):
    model.set_logger(Logger(folder=None, output_formats=[NoOutput()]))
    return model


SEVERAL = {"n_episodes": 2}
MODELS = {
    "mlp": lambda: make_model(),
    "logging": lambda: logging(make_model()),
    "box": lambda: make_model(env=RandomEnv(action_space=CONTINUOUS)),
    "cnn": lambda: make_model("CnnPolicy", RandomEnv(IMAGE)),
    "multi_input": lambda: make_model("MultiInputPolicy", RandomEnv(DICT)),
    "gsde": lambda: make_model(env=RandomEnv(action_space=CONTINUOUS), use_sde=True),
    "remembering": lambda: make_model(policy_kwargs={"features_extractor_class": Keeping}),
    "episodes": lambda: make_model(**SEVERAL),
    "optimal": lambda: make_model(**SEVERAL, baseline="optimal"),
    "no_baseline": lambda: make_model(baseline="none"),
}


class Keeping(BaseFeaturesExtractor):
    """Keeps its last features, as extractors with attention do."""

    def __init__(self, space):
        super().__init__(space, 3)
        self.layer = nn.Linear(3, 3)
        self.kept: dict[str, Any] = {}

    def forward(self, observations):
        features = self.layer(observations)
        self.last, self.pair, self.kept["features"] = features, (features, [features]), features
        return features


class Pair(NamedTuple):
    first: Any
    second: Any


@dataclass(frozen=True)
class Frozen:
    value: Any


class Slots:
    __slots__ = ("value",)

    def __init__(self, value):
        self.value = value


class Cache:
    """Refers to its owner, as caches of attention do."""

    def __init__(self, value, owner):
        self.value, self.owner = value, owner


class Items(OrderedDict[str, Any]):
    pass


RECORDS = {
    "named_tuple": lambda features, owner: Pair(features, [features]),
    "return_of_torch": lambda features, owner: features.max(dim=1),
    "data_class": lambda features, owner: Frozen(features),
    "object": lambda features, owner: Cache(features, owner),
    "slots": lambda features, owner: Slots(features),
    "namespace": lambda features, owner: SimpleNamespace(value={"features": features}),
    "nested": lambda features, owner: Frozen([Pair(features, None)]),
    "ordered_dict": lambda features, owner: Items(value=features),
    "deque": lambda features, owner: deque([features]),
    "set": lambda features, owner: {features, "features"},
    "frozenset": lambda features, owner: frozenset([features]),
    "partial": lambda features, owner: partial(th.add, features, alpha=features),
    "deeply_nested": lambda features, owner: [[[{"features": [[(features,)]]}]]],
}


class Recording(BaseFeaturesExtractor):
    """Keeps its last features in an object of the user."""

    def __init__(self, space, kind):
        super().__init__(space, 3)
        self.layer, self.kind, self.kept = nn.Linear(3, 3), kind, None

    def forward(self, observations):
        features = self.layer(observations)
        self.kept = RECORDS[self.kind](features, self)
        return features


class CopyPolicy(BaseCallback):
    """Copies the policy in every method of a callback."""

    def __init__(self):
        super().__init__()
        self.copies = []

    def _copy(self):
        self.copies.append(deepcopy(self.model.policy))
        pickle.loads(pickle.dumps(self.model.policy))

    _on_training_start = _on_rollout_start = _on_rollout_end = _on_training_end = _copy

    def _on_step(self):
        if self.n_calls % 16 in (1, 2, 9):
            self._copy()
        return True


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS.keys())
def test_a_policy_can_be_copied_at_any_time(make):
    """A policy can be copied when new, in callbacks, after training and after a prediction; the copy computes the same."""
    model = make()
    deepcopy(model.policy)
    # During a rollout, gSDE's noise has a graph, so SB3's policies cannot be copied there either
    model.learn(48, None if model.use_sde else CopyPolicy(), log_interval=1)
    observations = sample_observations(model)
    for copied in (deepcopy(model.policy), pickle.loads(pickle.dumps(model.policy))):
        assert th.equal(values(copied, observations), values(model.policy, observations))
    model.predict(model.env.reset())
    deepcopy(model.policy)


@pytest.mark.parametrize("kind", RECORDS)
def test_a_policy_can_be_copied_with_any_object_that_keeps_features(kind):
    """A policy can be copied in callbacks, as A2C's can. It keeps its object, but without the graph."""
    kwargs = {"features_extractor_class": Recording, "features_extractor_kwargs": {"kind": kind}}
    model = make_model(policy_kwargs=kwargs).learn(48, CopyPolicy())
    kept = model.policy.features_extractor.kept
    deepcopy(model.policy)
    assert type(kept) is type(RECORDS[kind](th.ones(1, 3), None))


@pytest.mark.parametrize("make", [MODELS[name] for name in ("mlp", "remembering", "optimal")])
def test_a_copied_model_trains_independently(make):
    """The copy has optimisers of its own weights. (SB3 cannot copy environments with images and dicts.)"""
    model = make().learn(48)
    copied, before = deepcopy(model), weights(model)
    copied.learn(48)
    assert not differing(before, weights(model))
    assert differing(before, weights(copied)) == differing(before, weights(model.learn(48)))


def test_a_policy_can_be_copied_after_train():
    """After ``train()``, successful or not, the policy can be copied."""
    model = make_model().learn(16)
    silence(model)
    model.train()
    deepcopy(model.policy)
    model.rollout_buffer.advantages[:] = float("nan")
    with pytest.raises(ValueError, match="diverged"):
        model.train()
    deepcopy(model.policy)
