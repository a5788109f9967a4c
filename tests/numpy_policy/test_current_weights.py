"""Whatever changes a policy, and whenever: the next action comes from what the policy is now."""

import pickle
from contextlib import nullcontext
from copy import deepcopy
from typing import Any

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
    """:return: what torch says defines the distribution, shape (n, K)"""
    model.policy.set_training_mode(False)
    with th.no_grad():
        distribution = model.policy.get_distribution(th.as_tensor(observations)).distribution
    if hasattr(distribution, "logits"):
        return distribution.logits.numpy()
    return th.cat([distribution.mean, distribution.stddev], dim=1).numpy()


def assert_up_to_date(model: VPG) -> None:
    """Prediction, and a rollout with its log-probabilities and values, are what torch makes of the weights now."""
    expected, _ = model.policy.predict(OBSERVATIONS, deterministic=True)
    found, _ = model.predict(OBSERVATIONS, deterministic=True)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
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


def used(action: str) -> VPG:
    """A model that has predicted and collected, so that it holds whatever it keeps between the calls."""
    model = model_for("box", action)
    play(model, RolloutRecorder())
    model.predict(OBSERVATIONS)
    model.predict(OBSERVATIONS[0], deterministic=True)
    return model


@pytest.mark.parametrize("action", ["discrete", "box"])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_what_has_changed_is_used_at_once(change, action):
    """However a user changes weights or modules, the next prediction and the next rollout know it."""
    model = used(action)
    before = torch_parameters(model, OBSERVATIONS)
    changed = change(model)
    model = changed if isinstance(changed, VPG) else model
    assert np.abs(torch_parameters(model, OBSERVATIONS) - before).max() > 1e-3, "the change shows nowhere"
    assert_up_to_date(model)
    assert_up_to_date(model)


@pytest.mark.parametrize("change", ["data_exchanged", "action_net", "load_state_dict_assign", "hook_of_the_action_net"])
def test_a_change_back_is_noticed_as_well(change):
    """From NumPy to torch and back again, or from one weight to another and back."""
    model = used("box")
    before, net = {name: value.clone() for name, value in weights(model).items()}, model.policy.action_net
    CHANGES[change](model)
    assert_up_to_date(model)
    model.policy.action_net = net
    net._forward_hooks.clear()
    model.policy.load_state_dict(before)
    assert_up_to_date(model)


def layers_in_the_flattening_extractor(model):
    for extractor in (model.policy.pi_features_extractor, model.policy.vf_features_extractor):
        extractor.flatten = nn.Sequential(nn.Flatten(), nn.LayerNorm(3))


def other_class(model):
    for layer in (model.policy.action_net, model.policy.value_net):
        layer.__class__ = Doubling


class Doubling(nn.Linear):
    def forward(self, x):
        return 2.0 * super().forward(x)


@pytest.mark.parametrize("change", [layers_in_the_flattening_extractor, other_class])
@pytest.mark.parametrize("use", [used, lambda action: model_for("box", action)], ids=["used", "new"])
def test_what_stands_inside_of_sb3s_modules_is_looked_at(change, use):
    """SB3's extractor may hold other layers than SB3's, and a layer may become one of another class."""
    model = use("box")
    change(model)
    assert_up_to_date(model)


def test_images_are_scaled_as_the_policy_says_now():
    model = make_model(env=RandomEnv(IMAGE), policy_kwargs={"normalize_images": False})
    image = model.get_env().reset()
    for normalizes in (False, True, False):
        model.policy.normalize_images = normalizes
        with th.no_grad():
            expected = model.policy.get_distribution(model.policy.obs_to_tensor(image)[0]).distribution.logits.numpy()
        model.predict(image)
        found = model._actor.outputs(image)
        np.testing.assert_allclose(found - found.mean(), expected - expected.mean(), rtol=1e-3, atol=1e-5)


def test_a_bias_added_later_is_used():
    """To a layer that was made without one."""
    model = used("box")
    model.policy.action_net = random_layer(8, 2, bias=False)
    assert_up_to_date(model)
    model.policy.action_net.bias = nn.Parameter(th.tensor([0.5, -0.5]))
    assert_up_to_date(model)


def test_the_critic_is_as_current_as_the_actor():
    """Its layers may be exchanged, too, without the actor's."""
    model = used("discrete")
    model.policy.value_net = random_layer(8, 1)
    assert_up_to_date(model)
    model.policy.mlp_extractor.value_net.append(nn.Tanh())
    exchange(model.policy.value_net.weight)
    assert_up_to_date(model)


def test_a_copy_and_its_original_go_their_own_ways():
    """Neither is moved by what happens to the other one."""
    original = used("box")
    copy = deepcopy(original)
    kept, _ = original.predict(OBSERVATIONS, deterministic=True)
    copy.learn(45)
    assert_up_to_date(copy)
    np.testing.assert_array_equal(original.predict(OBSERVATIONS, deterministic=True)[0], kept)
    for_each_parameter(exchange)(original)
    assert_up_to_date(original)
    assert_up_to_date(copy)


def test_a_policy_in_float64_predicts_in_float64():
    """SB3 leaves the observation in float32, which its own layers then refuse; VPG's prediction takes them as they are."""
    model = used("box")
    single, _ = model.predict(OBSERVATIONS, deterministic=True)
    model.policy.double()
    double, _ = model.predict(OBSERVATIONS, deterministic=True)
    np.testing.assert_allclose(double, single, rtol=1e-4, atol=1e-6)
    model.policy.float()
    assert_up_to_date(model)


HALFWAY = {
    name: CHANGES[name]
    for name in ("data_exchanged", "data_add", "action_net", "weight", "appended_layers", "hook_of_the_action_net", "log_std")
}


OF_THE_CRITIC_TOO = {("data_exchanged", "discrete"), ("data_exchanged", "box"), ("data_add", "discrete"), ("data_add", "box")}
OF_THE_CRITIC_TOO |= {("log_std", "discrete")}  # which has none, so that all weights are loaded


@pytest.mark.parametrize("action", ["discrete", "box"])
@pytest.mark.parametrize("name", HALFWAY)
def test_a_change_in_the_middle_of_a_rollout_acts_on_the_very_next_action(name, action):
    """A callback's change after the eighth step: torch tells both halves, each by the policy of its time."""
    change = HALFWAY[name]

    def look(callback):
        if callback.n_calls == 8:
            change(callback.model)

    model = used(action)
    earlier = deepcopy(model.policy)
    refused = pytest.raises(ValueError, match="critic's weights were changed in the middle of a rollout")
    with refused if (name, action) in OF_THE_CRITIC_TOO else nullcontext():
        play(model, RolloutRecorder(look))
    buffer = model.rollout_buffer
    for rows, policy in [(slice(0, 8), earlier), (slice(8, 15), model.policy)]:
        with th.no_grad():
            distribution = policy.get_distribution(th.as_tensor(buffer.observations[rows].reshape(-1, 3)))
            actions = th.as_tensor(buffer.actions[rows].reshape(-1, buffer.action_dim))
            log_probs = distribution.log_prob(actions if action == "box" else actions[:, 0])
        np.testing.assert_allclose(buffer.log_probs[rows].flatten(), log_probs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("policy", [None, "extractor"], ids=["numpy", "torch"])
def test_a_certain_action_is_taken_from_the_step_on_at_which_it_became_certain(policy):
    """Seen from outside: not from the log-probabilities that VPG writes down."""

    def look(callback):
        callback.model.policy.action_net.bias.data = th.tensor([[0.0, 0.0, 1e4], [1e4, 0.0, 0.0]][callback.n_calls % 2])

    model = play(model_for("box", "discrete", policy), RolloutRecorder(look))
    np.testing.assert_array_equal(model.rollout_buffer.actions[1:, :, 0], [[2 * (step % 2 == 0)] * 2 for step in range(1, 15)])


def test_a_hook_of_the_whole_policy_fires_while_it_plays():
    """SB3's loop calls the policy at each step; who listens there hears VPG, too."""
    heard: dict[Any, int] = {}
    for loop in (VPG.collect_rollouts, OnPolicyAlgorithm.collect_rollouts):
        model = model_for()
        play(model, RolloutRecorder())
        model.policy.register_forward_hook(lambda *_, loop=loop: heard.update({loop: heard.get(loop, 0) + 1}))
        play(model, RolloutRecorder(), loop=loop)
    assert [*heard.values()] == [15, 15]


def test_a_model_that_has_played_can_be_pickled():
    """As SB3's can, for instance to be sent to another process."""
    model = make_model().learn(32)
    model.predict(OBSERVATIONS)
    enlarge(model)
    copy = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(*(one.predict(OBSERVATIONS, deterministic=True)[0] for one in (model, copy)))
