"""Files of models with a replaced policy or optimiser: what they hold, and when saving or loading warns or fails."""

from typing import Any

import numpy as np
import pytest
import torch as th
from helpers import RandomEnv, differing, make_model, weights
from stable_baselines3 import A2C
from stable_baselines3.common.policies import ActorCriticPolicy
from torch.optim import SGD, Adam

from sb3_vpg import VPG
from sb3_vpg.optimization.optimizers import parameters_of

NET = {"net_arch": [8]}


def test_a_policy_of_another_shape_is_trained_with_a_warning(model_path):
    """The warning says how to load the file. A2C does not warn, and cannot load its file."""
    model = make_model()
    kwargs: dict[str, Any] = {"net_arch": [4, 4]}
    model.policy = ActorCriticPolicy(model.observation_space, model.action_space, lambda _: 1e-3, **kwargs)
    before = weights(model)
    with pytest.warns(UserWarning, match="custom_objects=.*that build this one") as caught:
        model.learn(32)
    assert len(caught) == 1
    assert differing(before, weights(model)) == set(before)
    with pytest.warns(UserWarning, match="other parameters than policy_class and policy_kwargs build"):
        model.save(model_path)
    loaded = VPG.load(model_path, custom_objects={"policy_class": ActorCriticPolicy, "policy_kwargs": kwargs})
    assert not differing(weights(model), weights(loaded))
    np.testing.assert_array_equal(*(one.predict(np.ones(3, np.float32), deterministic=True)[0] for one in (model, loaded)))


class Reversed(ActorCriticPolicy):
    """Has the parameters of its parent but chooses other actions."""

    def _get_action_dist_from_latent(self, latent_pi):
        return self.action_dist.proba_distribution(action_logits=-self.action_net(latent_pi))


def build(cls, model, **kwargs):
    return cls(model.observation_space, model.action_space, lambda _: 1e-3, **{**NET, **kwargs})


SAME_NAMES: dict[str, Any] = {
    "policy": (Reversed, {}, r"its class is .*:Reversed, not torch\.nn"),
    "activation": (ActorCriticPolicy, {"activation_fn": th.nn.ReLU}, r"policy_net\.1 is torch.*:ReLU, not torch.*:Tanh"),
}


@pytest.mark.parametrize(("cls", "kwargs", "text"), SAME_NAMES.values(), ids=SAME_NAMES.keys())
def test_a_policy_that_differs_only_in_its_classes_causes_a_warning(cls, kwargs, text, model_path):
    """Without the arguments that the warning names, the file would be loaded as another policy."""
    model = make_model()
    model.policy = build(cls, model, **kwargs)
    with pytest.warns(UserWarning, match=text) as caught:
        model.learn(32)
    assert len(caught) == 1
    with pytest.warns(UserWarning, match=text):
        model.save(model_path)
    custom = {"policy_class": cls, "policy_kwargs": {**NET, **kwargs}}
    loaded = VPG.load(model_path, env=RandomEnv(), custom_objects=custom)
    observations = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    expected, actual = (trained.predict(observations, deterministic=True)[0] for trained in (model, loaded))
    np.testing.assert_array_equal(actual, expected)
    loaded.learn(32)
    loaded.save(model_path)


CLASSES: dict[str, Any] = {
    "sgd": (SGD, {"momentum": 0.9, "nesterov": True}),
    "rmsprop": (th.optim.RMSprop, {"alpha": 0.5}),
    "adamw": (th.optim.AdamW, {"weight_decay": 0.25}),
    "radam": (th.optim.RAdam, {}),
}


@pytest.mark.parametrize(("cls", "kwargs"), CLASSES.values(), ids=CLASSES.keys())
def test_the_file_names_the_class_and_the_options_of_a_replaced_optimizer(cls, kwargs, model_path):
    """A loaded model trains like the original, and its ``policy_kwargs`` have the optimiser's class and options."""
    model = make_model(policy_kwargs={"optimizer_kwargs": {"eps": 1e-4}})
    model.policy.optimizer = cls(model.policy.parameters(), lr=0.01, **kwargs)
    model.learn(32)
    model.save(model_path)
    loaded = VPG.load(model_path, env=RandomEnv())
    assert {type(loaded.policy.optimizer), type(loaded.critic_optimizer)} == {cls}
    assert loaded.policy_kwargs == {**NET, "optimizer_class": cls, "optimizer_kwargs": kwargs}
    for trained in (model, loaded):
        trained.set_env(RandomEnv())
        trained.set_random_seed(3)
        trained.learn(48)
    assert not differing(weights(model), weights(loaded))


@pytest.mark.parametrize("trust", [False, True], ids=["plain", "trust"])
@pytest.mark.parametrize(("stored", "momentum"), [(SGD, 0.9), (SGD, 0.0), (Adam, None)], ids=["sgd", "plain_sgd", "adam"])
def test_a_file_that_names_another_optimizer_class_is_refused(stored, momentum, trust, model_path):
    """A file whose settings name another optimiser class, as A2C may write it, is refused with advice."""
    model = A2C("MlpPolicy", RandomEnv(), n_steps=16, policy_kwargs={**NET, "optimizer_class": Adam})
    if stored is Adam:
        model.policy_kwargs["optimizer_class"] = SGD
    options = {"momentum": momentum} if stored is SGD else {}
    model.policy.optimizer = stored(model.policy.parameters(), lr=0.01, **options)
    model.learn(32)
    parameters = model.get_parameters()
    other = make_model(policy_kwargs={"optimizer_class": model.policy_kwargs["optimizer_class"]})
    with pytest.raises(ValueError, match=r"so it is of another class.*optimizer_kwargs"):
        other.set_parameters(parameters)
    model = make_model(policy_kwargs={"optimizer_class": stored, "optimizer_kwargs": options}).learn(32)
    model.save(model_path)
    wrong = {"policy_kwargs": {**NET, "optimizer_class": SGD if stored is Adam else Adam}}
    with pytest.raises(ValueError, match=r"so it is of another class.*optimizer_kwargs"):
        VPG.load(model_path, trust=trust, custom_objects=wrong)
    right = {"policy_kwargs": {**NET, "optimizer_class": stored, "optimizer_kwargs": options}}
    VPG.load(model_path, env=RandomEnv(), trust=trust, custom_objects=right).learn(32)


def test_a_parameter_that_is_not_the_policys_causes_a_warning(model_path):
    """A parameter that is not the policy's causes a warning in learn() and in save(). A2C cannot load such a file."""
    model = make_model()
    model.policy.optimizer.add_param_group({"params": th.nn.Linear(4, 1).parameters()})
    with pytest.warns(UserWarning, match="holds 2 parameters that are not those of model.policy"):
        model.learn(32)
    with pytest.warns(UserWarning, match="holds 2 parameters that are not those of model.policy"):
        model.save(model_path)


def test_optimizers_of_different_classes_cause_a_warning(model_path):
    """``load`` builds both optimisers of one class, so different classes cause a warning."""
    model = make_model().learn(16)
    model.policy.optimizer = SGD(parameters_of(model.policy.optimizer), lr=0.01)
    text = "policy.optimizer is a SGD and critic_optimizer a Adam"
    with pytest.warns(UserWarning, match=text):
        model.learn(32)
    with pytest.warns(UserWarning, match=text):
        model.save(model_path)
    with pytest.raises(ValueError, match="critic_optimizer is a SGD here, but the stored one has no dampening"):
        VPG.load(model_path)
    model.policy.optimizer = SGD(model.policy.parameters(), lr=0.01)
    model.save(model_path)
    VPG.load(model_path, env=RandomEnv()).learn(16)
