"""A training warns once if no weight can change, unless the user asked for that."""

import re
import threading
import warnings

import numpy as np
import pytest
import torch as th
from helpers import RandomEnv, differing, make_model, make_recurrent_model, weights
from masked_envs import make_maskable
from resumption import Crash, CrashAt, random_envs
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.utils import LinearSchedule
from torch import nn

from sb3_vpg.checkpoints.callback import TrainingCheckpoint


def warnings_of(learn):
    """:return: the texts of the warnings"""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        learn()
    return [str(warning.message) for warning in caught]


def test_a_schedule_that_ends_with_the_first_rollout_warns():
    """Progress is counted after a rollout, so the only update has step size 0, as with PPO, which does not warn."""
    ppo = PPO("MlpPolicy", RandomEnv(), LinearSchedule(0.01, 0.0, 1.0), n_steps=16, batch_size=16, device="cpu")
    model = make_model(learning_rate="lin_0.01")
    for trained, expected in ((ppo, []), (model, ["learning_rate='lin_0.01' was 0 at each update"])):
        before = weights(trained)
        texts = warnings_of(lambda trained=trained: trained.learn(16))
        assert not differing(before, weights(trained))
        assert [text[: len(start)] for text, start in zip(texts, expected, strict=True)] == expected
    assert "n_steps=16" in texts[0]
    assert "raise total_timesteps" in texts[0]


def test_each_learn_of_a_loop_warns_once():
    """Each learn() with a single rollout warns once, also with reset_num_timesteps=False."""
    model = make_model(learning_rate="lin_0.01")
    assert warnings_of(lambda: model.learn(48)) == []
    for _ in range(3):
        assert len(warnings_of(lambda: model.learn(16, reset_num_timesteps=False))) == 1
    assert warnings_of(lambda: model.learn(48, reset_num_timesteps=False)) == []


def rising(progress):
    return 0.01 * (0.2 < progress < 0.8)


WARNED = {
    "policy": ({"learning_rate": "lin_0.01", "vf_learning_rate": 0.01}, ["learning_rate"]),
    "critic": ({"vf_learning_rate": "lin_0.01"}, ["vf_learning_rate"]),
    "both": ({"learning_rate": "lin_0.01", "vf_learning_rate": "lin_0.01"}, ["learning_rate", "vf_learning_rate"]),
    "a_function": ({"learning_rate": rising}, ["learning_rate"]),
    "no_critic": ({"learning_rate": "lin_0.01", "baseline": "none", "vf_learning_rate": "lin_0.01"}, ["learning_rate"]),
    "zero": ({"learning_rate": 0.0}, []),
    "zero_text": ({"learning_rate": "0"}, []),
    "a_function_of_zero": ({"learning_rate": lambda progress: 0.0}, []),
    "constant": ({"learning_rate": 0.01}, []),
}


@pytest.mark.parametrize(("kwargs", "names"), WARNED.values(), ids=WARNED.keys())
def test_the_warning_names_the_step_size_that_was_zero(kwargs, names):
    """The warning names the step size that was 0 at each update, but not one that is always 0, which is a choice."""
    texts = warnings_of(lambda: make_model(**kwargs).learn(16))
    # A function as learning_rate causes another warning as well
    assert [re.match(r"\w+", text)[0] for text in texts if "was 0 at each update" in text] == names


def test_a_resumed_training_does_not_warn_for_its_last_update(tmp_path):
    """The updates before the kill count, so a resumed training with only its last update left does not warn."""

    def script(*callbacks):
        model = make_model(env=random_envs(), learning_rate="lin_0.01")
        return model.learn(128, [TrainingCheckpoint(tmp_path, save_freq=32, verbose=0), *callbacks])

    with pytest.raises(Crash):
        script(CrashAt(100))
    assert warnings_of(script) == []


@pytest.mark.parametrize("part", ["all", "actor", "actor_without_critic"])
def test_a_frozen_policy_warns(part):
    """The warning comes if nothing can be trained, but not if only the actor is frozen and a critic is fitted."""
    model = make_model(baseline="none" if part == "actor_without_critic" else "value")
    for name, parameter in model.policy.named_parameters():
        parameter.requires_grad_(part != "all" and "value" in name)
    before = weights(model)
    texts = warnings_of(lambda: model.learn(32))
    assert [text[:40] for text in texts] == ([] if part == "actor" else ["every parameter of the policy is frozen "])
    assert bool(differing(before, weights(model))) == (part == "actor")


@pytest.mark.parametrize("make", [make_model, make_maskable, make_recurrent_model])
def test_warnings_of_learn_name_the_users_line(make):
    """Also those of the subclasses of VPG, whose learn() calls VPG's."""
    model, frozen = make(learning_rate="lin_0.01"), make()
    model.mine = threading.Lock()
    frozen.policy.requires_grad_(False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.learn(16)
        frozen.learn(16)
    beginnings = [str(one.message)[:20] for one in caught]
    assert beginnings == ["load(path) alone wil", "learning_rate='lin_0", "every parameter of t"]
    assert {one.filename for one in caught} == {__file__}


def test_a_replaced_schedule_applies_to_the_critic():
    """``model.lr_schedule = f`` applies to both optimisers, unless the critic has its own step size."""
    rates = []
    for kwargs in ({}, {"vf_learning_rate": 0.5}):
        model = make_model(**kwargs)
        model.lr_schedule = lambda progress: 0.25
        model.learn(32)
        rates.append([optimizer.param_groups[0]["lr"] for optimizer in (model.policy.optimizer, model.critic_optimizer)])
    assert rates == [[0.25, 0.25], [0.25, 0.5]]


class Masked(BaseFeaturesExtractor):
    """Weights its features by the softmax of a parameter, in which minus infinity excludes a feature."""

    def __init__(self, space, learned):
        super().__init__(space, 3)
        self.layer = nn.Linear(3, 3)
        self.mask = nn.Parameter(th.tensor([0.0, -np.inf, 0.5]), requires_grad=learned)

    def forward(self, observations):
        return self.layer(observations) * th.softmax(self.mask, dim=0)


@pytest.mark.parametrize("learned", [False, True], ids=["frozen", "learned"])
def test_a_constant_of_minus_infinity_can_be_trained(learned):
    """A policy with a parameter of minus infinity is trained as by A2C; the rest of the mask changes if it is learned."""
    kwargs = {"features_extractor_class": Masked, "features_extractor_kwargs": {"learned": learned}}
    for model in (A2C("MlpPolicy", RandomEnv(), policy_kwargs=dict(kwargs)), make_model(policy_kwargs=kwargs)):
        before = weights(model)
        model.learn(32)
        after = weights(model)
        assert {name for name in differing(before, after) if "mask" in name} == {n for n in before if "mask" in n and learned}
        assert float(after["features_extractor.mask"][1]) == -np.inf


def test_an_update_that_makes_an_infinite_constant_nan_is_refused():
    """If minus infinity becomes NaN, training stops with the weights from before the update."""
    model = make_model(policy_kwargs={"features_extractor_class": Masked, "features_extractor_kwargs": {"learned": True}})
    before = weights(model)
    mask = model.policy.pi_features_extractor.mask
    model.policy.optimizer.register_step_post_hook(lambda *_: mask.data.copy_(mask.data * 0.0))
    with pytest.raises(ValueError, match="norm of the weights after the step is nan"):
        model.learn(32)
    assert not differing(before, weights(model))
