"""Policies without their own critic, policies that cannot be trained, and policies saved without a model."""

from typing import Any

import numpy as np
import pytest
import torch as th
from helpers import (
    CONTINUOUS,
    DICT,
    IMAGE,
    LinearExtractor,
    RandomEnv,
    action_parameters,
    differing,
    make_model,
    same,
    sample_observations,
    values,
    weights,
)
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import DummyVecEnv
from stable_baselines3.dqn.policies import DQNPolicy
from torch import nn

from sb3_vpg import VPG, CnnPolicy, MlpPolicy, MultiInputPolicy


class Head(nn.Module):
    """A value without weights: 0, or the mean of the policy's features."""

    def __init__(self, constant: bool) -> None:
        super().__init__()
        self.constant = constant

    def forward(self, features: th.Tensor) -> th.Tensor:
        mean = features.mean(dim=1, keepdim=True)
        return th.zeros_like(mean.detach()) if self.constant else mean


class NoCriticPolicy(ActorCriticPolicy):
    """REINFORCE without a baseline: the value is always 0."""

    constant = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        net_arch = {"net_arch": {"pi": [8], "vf": []}, "features_extractor_class": LinearExtractor}
        super().__init__(*args, **{**kwargs, **net_arch})

    def _build(self, lr_schedule: Any) -> None:
        super()._build(lr_schedule)
        self.value_net = Head(self.constant)
        self.optimizer = self.optimizer_class(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)


class AllSharedPolicy(NoCriticPolicy):
    """The value is computed from the policy's features and has no weights."""

    constant = False


@pytest.mark.parametrize("policy", [NoCriticPolicy, AllSharedPolicy])
def test_a_policy_without_its_own_critic_trains_saves_and_loads(policy, model_path):
    """Such a policy has no optimiser for the critic, and is trained, saved and loaded."""
    model = make_model(policy)
    assert model.critic_optimizer is None
    before = weights(model)
    model.learn(48)
    assert differing(before, weights(model)) == set(before)
    assert "critic_optimizer" not in model.get_parameters()
    model.save(model_path)
    loaded = VPG.load(model_path, env=RandomEnv())
    assert loaded.critic_optimizer is None
    assert not differing(weights(model), weights(loaded))
    loaded.learn(48)
    assert differing(weights(model), weights(loaded)) == set(before)


class BatchNormExtractor(BaseFeaturesExtractor):
    def __init__(self, observation_space: Any) -> None:
        super().__init__(observation_space, 3)
        self.norm = nn.BatchNorm1d(3)

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return self.norm(observations)


@pytest.mark.parametrize("share", [False, True], ids=["separate", "shared"])
def test_critic_passes_do_not_change_batch_statistics(share):
    """The policy's actions do not depend on the number of critic passes, although batch norm has running averages."""
    outputs = []
    for passes in (1, 5):
        model = make_model(
            learning_rate=0.0,
            vf_learning_rate=0.01,
            n_critic_updates=passes,
            policy_kwargs={"features_extractor_class": BatchNormExtractor, "share_features_extractor": share},
        ).learn(16)
        outputs.append(action_parameters(model.policy, sample_observations(model)))
    assert same(*outputs)


def test_construction_does_not_change_batch_statistics():
    """Finding the owners of the parameters evaluates the policy, but does not change its running averages."""
    model = make_model(policy_kwargs={"features_extractor_class": BatchNormExtractor, "share_features_extractor": False})
    counts = [value for name, value in weights(model).items() if name.endswith("num_batches_tracked")]
    assert counts
    assert not any(counts)


class ModeRecorder(BaseFeaturesExtractor):
    """Records the number of observations and the mode of each call."""

    def __init__(self, observation_space: Any) -> None:
        super().__init__(observation_space, 3)
        self.calls: set[tuple[int, str]] = set()

    def forward(self, observations: th.Tensor) -> th.Tensor:
        self.calls.add((len(observations), "train" if self.training else "eval"))
        return observations


def test_policy_collects_in_eval_mode_and_learns_in_train_mode():
    """The policy is in eval mode for the single observations of a rollout, and in train mode for the batch of an update."""
    model = make_model(policy_kwargs={"features_extractor_class": ModeRecorder, "share_features_extractor": False})
    extractors = (model.policy.pi_features_extractor, model.policy.vf_features_extractor)
    for extractor in extractors:
        extractor.calls.clear()
    model.learn(64)
    actor, critic = (extractor.calls for extractor in extractors)
    assert actor == {(1, "eval"), (16, "train")}
    assert {mode for count, mode in critic if count < 16} == {"eval"}
    assert (16, "train") in critic


SAVED = {
    "mlp": (MlpPolicy, RandomEnv(), {}),
    "mlp_continuous": (MlpPolicy, RandomEnv(action_space=CONTINUOUS), {}),
    "mlp_separate": (MlpPolicy, RandomEnv(), {"features_extractor_class": LinearExtractor, "share_features_extractor": False}),
    "cnn": (CnnPolicy, RandomEnv(IMAGE), {}),
    "cnn_shared": (CnnPolicy, RandomEnv(IMAGE), {"share_features_extractor": True}),
    "multi_input": (MultiInputPolicy, RandomEnv(DICT), {}),
    "multi_input_shared": (MultiInputPolicy, RandomEnv(DICT), {"share_features_extractor": True}),
}


@pytest.mark.parametrize(("policy_class", "env", "policy_kwargs"), SAVED.values(), ids=SAVED.keys())
def test_policy_saved_without_a_model_loads_and_predicts_the_same(policy_class, env, policy_kwargs, tmp_path):
    """``policy.save`` and ``policy.load`` round-trip, with shared and with separate extractors."""
    model = make_model(policy_class, env, policy_kwargs=policy_kwargs).learn(16)
    model.policy.save(tmp_path / "policy.pt")
    loaded = policy_class.load(tmp_path / "policy.pt")
    assert loaded.share_features_extractor == model.policy.share_features_extractor
    observations = sample_observations(model)
    assert same(action_parameters(model.policy, observations), action_parameters(loaded, observations))
    assert th.equal(values(model.policy, observations), values(loaded, observations))


@pytest.mark.parametrize(
    ("policy", "env"),
    [("MlpPolicy", RandomEnv()), ("CnnPolicy", RandomEnv(IMAGE)), ("MultiInputPolicy", RandomEnv(DICT))],
    ids=["mlp", "cnn", "multi_input"],
)
def test_extractors_are_separate_by_default(policy, env):
    """Actor and critic have separate extractors, unless ``share_features_extractor=True``."""
    model = make_model(policy, env)
    assert not model.policy.share_features_extractor
    assert model.policy.pi_features_extractor is not model.policy.vf_features_extractor
    shared = make_model(policy, env, policy_kwargs={"share_features_extractor": True})
    assert shared.policy.pi_features_extractor is shared.policy.vf_features_extractor


@pytest.mark.parametrize("name", ["MlpLstmPolicy", "mlp", ""])
def test_unknown_policy_name_is_refused_with_the_known_ones(name):
    """The message lists the known names and an algorithm for recurrent policies."""
    with pytest.raises(ValueError, match=r"MlpPolicy, CnnPolicy, MultiInputPolicy.*RecurrentVPG") as refusal:
        VPG(name, RandomEnv())
    assert repr(name) in str(refusal.value)


def test_recurrent_policy_class_is_refused():
    """VPG keeps no hidden state; the message names the class and an algorithm that does."""
    with pytest.raises(ValueError, match=r"RecurrentActorCriticPolicy.*RecurrentVPG"):
        VPG(RecurrentActorCriticPolicy, RandomEnv())


@pytest.mark.parametrize("policy", [DQNPolicy, nn.Linear, 3], ids=["dqn", "module", "number"])
def test_anything_but_an_actor_critic_is_refused(policy):
    """The message says which classes are accepted."""
    with pytest.raises(ValueError, match="subclass of ActorCriticPolicy"):
        VPG(policy, RandomEnv())


class DetachedPolicy(ActorCriticPolicy):
    """Its log-probabilities depend on no parameter."""

    def evaluate_actions(self, obs: Any, actions: th.Tensor) -> tuple[th.Tensor, th.Tensor, th.Tensor | None]:
        value, log_prob, entropy = super().evaluate_actions(obs, actions)
        return value, log_prob.detach(), entropy.detach()


def test_a_policy_with_nothing_to_train_is_refused():
    """A policy whose log-probabilities depend on no parameter is refused."""
    with pytest.raises(ValueError, match="DetachedPolicy has nothing to train"):
        make_model(DetachedPolicy)


@pytest.mark.parametrize("deterministic", [False, True], ids=["sampled", "deterministic"])
def test_predict_takes_one_observation_or_a_batch(deterministic):
    """One observation gives one action, a batch gives a batch, as in every algorithm of SB3."""
    model = make_model(env=DummyVecEnv([lambda: RandomEnv(action_space=CONTINUOUS)]))
    single, state = model.predict(np.zeros(3, np.float32), deterministic=deterministic)
    many, _ = model.predict(np.zeros((5, 3), np.float32), deterministic=deterministic)
    assert (single.shape, many.shape, state) == ((2,), (5, 2), None)
    assert CONTINUOUS.contains(single)
    assert same([th.as_tensor(row) for row in many[1:]], [th.as_tensor(many[0])] * 4) is deterministic
