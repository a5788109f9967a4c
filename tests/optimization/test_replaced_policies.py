"""A user may replace the model's policy or its optimiser; it is trained, saved and loaded as with A2C."""

from copy import deepcopy

import pytest
import torch as th
from helpers import RandomEnv, differing, make_model, silence, weights
from resumption import Crash, CrashAt, assert_same, disturb, random_envs
from sb3_loop import RolloutRecorder
from stable_baselines3 import A2C
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import ActorCriticPolicy
from torch.optim import SGD, Adam, Optimizer

from sb3_vpg import VPG
from sb3_vpg.checkpoints.callback import TrainingCheckpoint

NET = {"net_arch": [8]}


def sb3_policy(model):
    """A policy of SB3, as behaviour cloning in imitation returns it."""
    return ActorCriticPolicy(model.observation_space, model.action_space, lambda _: 1e-3, **NET)


def put_policy(model, policy):
    model.policy = policy


def put_optimizer(model, optimizer):
    model.policy.optimizer = optimizer


REPLACEMENTS = {
    "policy_of_sb3": lambda m: put_policy(m, sb3_policy(m)),
    "policy_copied": lambda m: put_policy(m, deepcopy(m.policy)),
    "policy_of_a2c": lambda m: put_policy(m, A2C("MlpPolicy", RandomEnv(), policy_kwargs=dict(NET)).learn(10).policy),
    "policy_of_another_vpg": lambda m: put_policy(m, make_model(seed=7).learn(16).policy),
    "policy_compiled": lambda m: put_policy(m, th.compile(m.policy, backend="eager")),
    "policy_with_shared_weights": lambda m: put_policy(m, with_weights_of(m, sb3_policy(m))),
    "optimizer_of_everything": lambda m: put_optimizer(m, Adam(m.policy.parameters(), lr=0.01)),
    "optimizer_of_another_class": lambda m: put_optimizer(m, SGD(m.policy.parameters(), lr=0.01, momentum=0.5)),
    "optimizer_of_the_same": lambda m: put_optimizer(m, Adam(held(m.policy.optimizer), lr=0.01, eps=1e-3)),
    "optimizer_filled_again": lambda m: m.policy.optimizer.__init__(m.policy.parameters(), lr=0.01),
}
every_replacement = pytest.mark.parametrize("replace", REPLACEMENTS.values(), ids=REPLACEMENTS.keys())


def held(optimizer):
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def with_weights_of(model, policy):
    """Let the policy use the same module as the model for the networks' bodies."""
    policy.mlp_extractor = model.policy.mlp_extractor
    policy.optimizer = Adam(policy.parameters(), lr=0.01)
    return policy


class Replace(BaseCallback):
    """Replaces once, in one of the callback's methods."""

    def __init__(self, replace, where):
        super().__init__()
        self.replace, self.where, self.calls = replace, where, 0

    def _now(self, where):
        self.calls += where == self.where
        if where == self.where and self.calls == (1 if where == "start" else 2):
            self.replace(self.model)
            self.weights = weights_of(self.model)

    def _on_training_start(self):
        self._now("start")

    def _on_rollout_end(self):
        self._now("rollout_end")

    def _on_step(self):
        return True


def weights_of(model):
    """The weights under the names of the policy that is not compiled."""
    return {name.removeprefix("_orig_mod."): value for name, value in weights(model).items()}


def assert_trained_and_loadable(model, before, model_path):
    """All weights have changed, and the saved model has the same weights and optimiser states and can be trained."""
    assert differing(before, weights_of(model)) == set(before)
    model.save(model_path)
    loaded = VPG.load(model_path, env=RandomEnv())
    assert not differing(weights_of(model), weights(loaded))
    for what in ("policy.optimizer", "critic_optimizer"):
        saved, restored = model.get_parameters()[what], loaded.get_parameters()[what]
        th.testing.assert_close(restored["state"], saved["state"], rtol=0, atol=0)
    loaded.learn(16)
    assert differing(weights_of(model), weights(loaded)) == set(before)


@pytest.mark.parametrize("when", ["new", "loaded", "trained", "start", "rollout_end"])
@every_replacement
def test_a_replacement_is_trained_and_saved(replace, when, model_path):
    """A replacement between two rollouts is trained, saved and loaded."""
    model = make_model()
    if when == "loaded":
        model.save(model_path)
        model = VPG.load(model_path, env=RandomEnv())
    if when == "trained":
        model.learn(32)
    if when in ("new", "loaded", "trained"):
        replace(model)
        before = weights_of(model)
        model.learn(48)
    else:
        callback = Replace(replace, when)
        model.learn(64, callback)
        before = callback.weights
    assert_trained_and_loadable(model, before, model_path)


@every_replacement
def test_each_parameter_is_held_once(replace):
    """After a replacement, the two optimisers together hold each parameter once, and the critic's holds the critic."""
    model = make_model().learn(16)
    replace(model)
    together = held(model.critic_optimizer) + held(model.policy.optimizer)
    assert len(together) == len(set(together))
    assert set(together) == set(model.policy.parameters())
    critic = {name for name, one in model.policy.named_parameters() if one in set(held(model.critic_optimizer))}
    assert critic == {name for name, _ in model.policy.named_parameters() if "value" in name}


SUBSETS = {
    "head": lambda policy: policy.action_net.parameters(),
    "heads": lambda policy: [*policy.action_net.parameters(), *policy.value_net.parameters()],
    "actor_and_a_head": lambda policy: [*policy.mlp_extractor.policy_net.parameters(), *policy.value_net.parameters()],
}


@pytest.mark.parametrize("subset", SUBSETS.values(), ids=SUBSETS.keys())
def test_parameters_missing_in_an_optimizer_are_frozen_as_with_a2c(subset, model_path):
    """Layers that a new optimiser does not hold are frozen, also after loading. (A2C cannot load such a file.)"""
    moved = []
    for cls in (A2C, VPG):
        model = cls("MlpPolicy", RandomEnv(), n_steps=16, seed=0, policy_kwargs=dict(NET))
        model.policy.optimizer = Adam(subset(model.policy), lr=0.01)
        before = weights(model)
        model.learn(32)
        moved.append(differing(before, weights(model)))
    assert moved[0] == moved[1]
    model.save(model_path)
    loaded = VPG.load(model_path, env=RandomEnv())
    before = weights(loaded)
    loaded.learn(16)
    assert differing(before, weights(loaded)) == moved[1]


def test_a_new_optimizer_keeps_its_moments():
    """The moments in a new policy's optimiser go with their parameters to both optimisers; the old critic's are dropped."""
    model, other = make_model().learn(32), A2C("MlpPolicy", RandomEnv(), policy_kwargs=dict(NET))
    other.learn(15)
    original_states = {p: deepcopy(s) for p, s in other.policy.optimizer.state.items()}
    model.policy = other.policy
    states = {**model.critic_optimizer.state, **model.policy.optimizer.state}
    assert model.critic_optimizer.state
    assert states.keys() == original_states.keys()
    for parameter, state in states.items():
        th.testing.assert_close(state, original_states[parameter], rtol=0, atol=0)
        assert float(state["step"]) == 3


def test_a_new_parameter_of_the_actor_joins_it():
    """``add_param_group`` on the policy's optimiser does not change the critic's."""
    model = make_model().learn(16)
    critic = model.critic_optimizer
    scale = th.nn.Parameter(th.ones(3))
    model.policy.register_parameter("scale", scale)
    original = model.policy.mlp_extractor.forward_actor
    model.policy.mlp_extractor.forward_actor = lambda features: original(features * scale)
    model.policy.optimizer.add_param_group({"params": [scale]})
    before = weights(model)
    with pytest.warns(UserWarning, match="other parameters than policy_class and policy_kwargs build"):
        model.learn(32)
    assert model.critic_optimizer is critic
    assert scale in set(held(model.policy.optimizer))
    assert differing(before, weights(model)) == set(before)


def compiled(model):
    model.policy = th.compile(model.policy, backend="eager")
    return model


def with_optimizer(model, cls, **kwargs):
    model.policy.optimizer = cls(model.policy.parameters(), lr=0.01, **kwargs)
    return model


RESUMED = {
    "optimizer": lambda model: with_optimizer(model, Adam, betas=(0.5, 0.9)),
    "optimizer_of_another_class": lambda model: with_optimizer(model, SGD, momentum=0.5),
    "policy_compiled": compiled,
}


@pytest.mark.parametrize("change", RESUMED.values(), ids=RESUMED.keys())
def test_a_killed_run_with_a_replacement_resumes_exactly(change, tmp_path):
    """A script that is killed and started again ends with the same weights as one that was not killed."""

    def script(callback, folder):
        model = change(make_model(env=random_envs()))
        return model.learn(192, [TrainingCheckpoint(folder, save_freq=32, verbose=0), *callback])

    uninterrupted = script([], tmp_path / "whole")
    with pytest.raises(Crash):
        script([CrashAt(150)], tmp_path / "killed")
    disturb()
    assert_same(uninterrupted, script([], tmp_path / "killed"))


class NoStepSize(Optimizer):
    """A user's optimiser, whose constructor needs another argument than ``lr``."""

    def __init__(self, params, strength):
        super().__init__(params, {"strength": strength})

    def step(self, closure=None):
        for parameter in held(self):
            if parameter.grad is not None:
                parameter.data -= 0.01 * parameter.grad


class Recurrent(ActorCriticPolicy):
    def evaluate_actions(self, obs, actions, lstm_states, episode_starts):
        raise NotImplementedError


REFUSED = {
    "recurrent": (
        lambda m: put_policy(m, Recurrent(m.observation_space, m.action_space, lambda _: 1e-3)),
        "evaluate_actions.. takes more than observations and actions",
    ),
    "no_actor_critic": (
        lambda m: put_policy(m, th.nn.Linear(1, 1)),
        "Linear has no optimizer",
    ),
    "optimizer_of_the_critic": (
        lambda m: put_optimizer(m, Adam(m.policy.value_net.parameters(), lr=0.01)),
        "no parameter in its optimizer reaches its log-probabilities",
    ),
    "optimizer_that_cannot_be_built_twice": (
        lambda m: put_optimizer(m, NoStepSize(m.policy.parameters(), 1.0)),
        "Use a subclass whose constructor needs only these two arguments",
    ),
}


@pytest.mark.parametrize("when", ["learn", "start", "train"])
@pytest.mark.parametrize(("replace", "text"), REFUSED.values(), ids=REFUSED.keys())
def test_a_replacement_that_cannot_be_trained_is_refused(replace, text, when):
    """A replacement that VPG cannot train is refused before the first step, with advice."""
    model = make_model()
    steps = RolloutRecorder()
    if when == "start":
        with pytest.raises(ValueError, match=text):
            model.learn(32, [Replace(replace, "start"), steps])
    else:
        replace(model)
        silence(model)
        with pytest.raises(ValueError, match=text):
            model.learn(32, steps) if when == "learn" else model.train()
    assert model.num_timesteps == 0


@pytest.mark.parametrize("what", ["file", "dict", "own_state_dict"])
def test_a_compiled_policy_takes_parameters(what, model_path):
    """A compiled policy takes parameters of a compiled or plain model, since files have the names of the plain policy."""
    for make in (make_model, lambda **kwargs: compiled(make_model(**kwargs))):
        model = make().learn(32)
        model.save(model_path)
        other = compiled(make_model(seed=1))
        policy = other.policy
        if what == "own_state_dict":
            given = other.policy.state_dict()
            given.update({f"_orig_mod.{name}": value for name, value in weights_of(model).items()})
            other.set_parameters({"policy": given}, exact_match=False)
        else:
            other.set_parameters(model_path if what == "file" else model.get_parameters())
        assert other.policy is policy
        assert not differing(weights_of(model), weights_of(other))
        other.learn(16)


def test_a_state_dict_with_a_missing_weight_is_torchs_error_as_with_a2c() -> None:
    """Torch's error about the policy comes first, as in SB3, also if the optimisers' state dicts lack an entry."""
    for model in (make_model(), A2C("MlpPolicy", RandomEnv(), n_steps=8)):
        cut = {name: dict(list(state.items())[:-1]) for name, state in model.get_parameters().items()}
        with pytest.raises(RuntimeError, match="Missing key"):
            model.set_parameters(cut, exact_match=True)
