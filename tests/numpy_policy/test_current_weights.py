"""However and whenever a user changes a policy, the next action is that of the changed policy."""

import pickle
from contextlib import nullcontext
from copy import deepcopy
from functools import partial
from unittest import mock

import numpy as np
import pytest
import torch as th
from helpers import IMAGE, RandomEnv, make_model, weights
from sb3_loop import RolloutRecorder, enlarge, model_for, play
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from torch import nn
from weight_changes import CHANGES, OBSERVATIONS, exchange, for_each_parameter, random_layer

from sb3_vpg import VPG


def torch_parameters(model: VPG, observations: np.ndarray) -> np.ndarray:
    """:return: torch's parameters of the action distribution, shape (n, K): logits, or means and standard deviations"""
    model.policy.set_training_mode(False)
    with th.no_grad():
        distribution = model.policy.get_distribution(th.as_tensor(observations)).distribution
    if hasattr(distribution, "logits"):
        return distribution.logits.numpy()
    return th.cat([distribution.mean, distribution.stddev], dim=1).numpy()


def assert_up_to_date(model: VPG) -> None:
    """Check that predictions, log-probabilities and values agree with those that torch computes from the current weights."""
    expected, _ = model.policy.predict(OBSERVATIONS, deterministic=True)
    actions, _ = model.predict(OBSERVATIONS, deterministic=True)
    np.testing.assert_allclose(actions, expected, rtol=1e-4, atol=1e-5)
    if model.env is None:
        return
    play(model, RolloutRecorder())
    buffer = model.rollout_buffer
    with th.no_grad():
        observations = th.as_tensor(buffer.observations.reshape(-1, 3))
        actions = th.as_tensor(buffer.actions.reshape(30, -1))
        distribution = model.policy.get_distribution(observations)
        log_probs = distribution.log_prob(actions if hasattr(model.policy, "log_std") else actions[:, 0])
        values = model.policy.predict_values(observations)
    np.testing.assert_allclose(buffer.log_probs.flatten(), log_probs, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(buffer.values.flatten(), values.flatten(), rtol=1e-4, atol=1e-4)


def used_model(action: str) -> VPG:
    """:return: a model that has collected and predicted, so that it has filled its caches"""
    model = model_for("box", action)
    play(model, RolloutRecorder())
    model.predict(OBSERVATIONS)
    model.predict(OBSERVATIONS[0], deterministic=True)
    return model


@pytest.mark.parametrize("action", ["discrete", "box"])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_change_acts_on_the_next_prediction_and_rollout(change, action):
    """Each change of weights or modules acts on the next prediction and the next rollout."""
    model = used_model(action)
    before = torch_parameters(model, OBSERVATIONS)
    changed = change(model)
    model = changed if isinstance(changed, VPG) else model
    assert np.abs(torch_parameters(model, OBSERVATIONS) - before).max() > 1e-3, "the change has no effect on torch's outputs"
    assert_up_to_date(model)
    assert_up_to_date(model)


@pytest.mark.parametrize("change", ["data_exchanged", "action_net", "load_state_dict_assign", "hook_of_the_action_net"])
def test_undone_change_acts_as_well(change):
    """A change that is undone acts too, also if NumPy computes the policy, then torch, then NumPy again."""
    model = used_model("box")
    before, net = {name: value.clone() for name, value in weights(model).items()}, model.policy.action_net
    CHANGES[change](model)
    assert_up_to_date(model)
    model.policy.action_net = net
    net._forward_hooks.clear()
    model.policy.load_state_dict(before)
    assert_up_to_date(model)


def add_layer_to_the_extractors(model):
    for extractor in (model.policy.pi_features_extractor, model.policy.vf_features_extractor):
        extractor.flatten = nn.Sequential(nn.Flatten(), nn.LayerNorm(3))


def change_class_of_layers(model):
    for layer in (model.policy.action_net, model.policy.value_net):
        layer.__class__ = DoublingLinear


class DoublingLinear(nn.Linear):
    def forward(self, x):
        return 2.0 * super().forward(x)


@pytest.mark.parametrize("change", [add_layer_to_the_extractors, change_class_of_layers])
@pytest.mark.parametrize("make", [used_model, partial(model_for, "box")], ids=["used", "new"])
def test_changes_inside_sb3s_modules_act(change, make):
    """Another layer inside SB3's extractor acts, and so does another class of a layer, in used and in new models."""
    model = make(action="box")
    change(model)
    assert_up_to_date(model)


def test_normalize_images_may_change():
    """Images are scaled according to the current ``normalize_images`` of the policy."""
    model = make_model(env=RandomEnv(IMAGE), policy_kwargs={"normalize_images": False})
    image = model.get_env().reset()
    for normalize_images in (False, True, False):
        model.policy.normalize_images = normalize_images
        with th.no_grad():
            expected = model.policy.get_distribution(model.policy.obs_to_tensor(image)[0]).distribution.logits.numpy()
        model.predict(image)
        outputs = model._actor.outputs(image)
        np.testing.assert_allclose(outputs - outputs.mean(), expected - expected.mean(), rtol=1e-3, atol=1e-5)


def test_bias_that_is_added_later_acts():
    """A bias acts that is added to a layer without one."""
    model = used_model("box")
    model.policy.action_net = random_layer(8, 2, bias=False)
    assert_up_to_date(model)
    model.policy.action_net.bias = nn.Parameter(th.tensor([0.5, -0.5]))
    assert_up_to_date(model)


def test_transposed_weight_acts():
    """A weight acts whose strides were changed, which leaves it in the same memory."""
    model = model_for("box", "discrete", "tanh")
    body = model.policy.mlp_extractor
    assert_up_to_date(model)
    for _ in range(2):
        for weight in (body.policy_net[2].weight, body.value_net[2].weight):
            weight.data = weight.data.t()
        assert_up_to_date(model)


def test_tensor_in_the_place_of_a_weight_may_be_replaced():
    """A weight that is a plain tensor, and no parameter, acts each time it is replaced."""
    model = used_model("discrete")
    CHANGES["weight_as_attribute"](model)
    for _ in range(3):
        model.policy.action_net.weight = model.policy.action_net.weight * -1.5
        assert_up_to_date(model)


def test_change_of_the_critic_alone_acts():
    """Changes of the critic's layers act on the next rollout if the actor stays the same."""
    model = used_model("discrete")
    model.policy.value_net = random_layer(8, 1)
    assert_up_to_date(model)
    model.policy.mlp_extractor.value_net.append(nn.Tanh())
    exchange(model.policy.value_net.weight)
    assert_up_to_date(model)


def test_copy_and_original_are_independent():
    """Training a deep copy does not change the original, and changing the original does not change the copy."""
    original = used_model("box")
    copy = deepcopy(original)
    before, _ = original.predict(OBSERVATIONS, deterministic=True)
    copy.learn(45)
    assert_up_to_date(copy)
    np.testing.assert_array_equal(original.predict(OBSERVATIONS, deterministic=True)[0], before)
    for_each_parameter(exchange)(original)
    assert_up_to_date(original)
    assert_up_to_date(copy)


def test_float64_policy_predicts():
    """A policy after ``double()`` predicts from float32 observations, which SB3's own ``predict`` refuses."""
    model = used_model("box")
    single, _ = model.predict(OBSERVATIONS, deterministic=True)
    model.policy.double()
    double, _ = model.predict(OBSERVATIONS, deterministic=True)
    np.testing.assert_allclose(double, single, rtol=1e-4, atol=1e-6)
    model.policy.float()
    assert_up_to_date(model)


CHANGES_WITHIN = [
    "data_exchanged",
    "data_add",
    "action_net",
    "weight",
    "appended_layers",
    "hook_of_the_action_net",
    "log_std",
]
CHANGES_CRITIC = {("data_exchanged", "discrete"), ("data_exchanged", "box"), ("data_add", "discrete"), ("data_add", "box")}
CHANGES_CRITIC |= {("log_std", "discrete")}  # without a log_std, this change loads other weights


@pytest.mark.parametrize("action", ["discrete", "box"])
@pytest.mark.parametrize("name", CHANGES_WITHIN)
def test_change_within_a_rollout_acts_on_the_next_action(name, action):
    """
    The first eight actions have the log-probabilities of the old policy, the later ones those of the changed policy.

    If the change affects the critic too, the rollout is refused at its end.
    """

    def change(callback):
        if callback.n_calls == 8:
            CHANGES[name](callback.model)

    model = used_model(action)
    earlier = deepcopy(model.policy)
    refusal = pytest.raises(ValueError, match="critic's weights were changed in the middle of a rollout")
    with refusal if (name, action) in CHANGES_CRITIC else nullcontext():
        play(model, RolloutRecorder(change))
    buffer = model.rollout_buffer
    for rows, policy in [(slice(0, 8), earlier), (slice(8, 15), model.policy)]:
        with th.no_grad():
            distribution = policy.get_distribution(th.as_tensor(buffer.observations[rows].reshape(-1, 3)))
            actions = th.as_tensor(buffer.actions[rows].reshape(-1, buffer.action_dim))
            log_probs = distribution.log_prob(actions if action == "box" else actions[:, 0])
        np.testing.assert_allclose(buffer.log_probs[rows].flatten(), log_probs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("policy", [None, "extractor"], ids=["numpy", "torch"])
def test_action_that_becomes_certain_is_played_at_the_next_step(policy):
    """If a callback makes another action certain at each step, that action is played at the next step."""

    def make_certain(callback):
        bias = th.zeros(3)
        bias[2 if callback.n_calls % 2 == 0 else 0] = 1e4
        callback.model.policy.action_net.bias.data = bias

    model = play(model_for("box", "discrete", policy), RolloutRecorder(make_certain))
    np.testing.assert_array_equal(model.rollout_buffer.actions[1:, :, 0], [[0, 0], [2, 2]] * 7)


def test_hook_of_the_policy_is_called_at_each_step():
    """A forward hook of the policy is called at each step, by VPG's ``collect_rollouts`` as by SB3's."""
    hooks: list[mock.Mock] = []
    for loop in (VPG.collect_rollouts, OnPolicyAlgorithm.collect_rollouts):
        model = model_for()
        play(model, RolloutRecorder())
        hooks.append(mock.Mock(return_value=None))
        model.policy.register_forward_hook(hooks[-1])
        play(model, RolloutRecorder(), loop=loop)
    assert [hook.call_count for hook in hooks] == [15, 15]


def test_used_model_can_be_pickled():
    """A model that has collected and predicted can be pickled, as SB3's can, and predicts the same afterwards."""
    model = make_model().learn(32)
    model.predict(OBSERVATIONS)
    enlarge(model)
    copy = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(*(each.predict(OBSERVATIONS, deterministic=True)[0] for each in (model, copy)))
