"""The two optimisers of a policy: each parameter is in exactly one, and no step of the critic changes the policy."""

from copy import deepcopy

import pytest
import torch as th
from helpers import (
    CONTINUOUS,
    DICT,
    IMAGE,
    GroupedPolicy,
    LinearExtractor,
    OddlyNamedPolicy,
    PartlyFrozenPolicy,
    RandomEnv,
    action_parameters,
    differing,
    make_model,
    same,
    sample_observations,
    values,
    weights,
)
from stable_baselines3 import A2C
from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor

from sb3_vpg import VPG

SQUASHED = {"use_sde": True, "policy_kwargs": {"squash_output": True}}
SHARED = {"share_features_extractor": True}
UNSHARED = {
    "mlp": lambda **kw: make_model(**kw),
    "mlp_continuous": lambda **kw: make_model(env=RandomEnv(action_space=CONTINUOUS), **kw),
    "cnn": lambda **kw: make_model("CnnPolicy", RandomEnv(IMAGE), **kw),
    "multi_input": lambda **kw: make_model("MultiInputPolicy", RandomEnv(DICT), **kw),
    "odd_names": lambda **kw: make_model(OddlyNamedPolicy, policy_kwargs={"net_arch": []}, **kw),
    "frozen": lambda **kw: make_model(PartlyFrozenPolicy, **kw),
    "gsde": lambda **kw: make_model(env=RandomEnv(action_space=CONTINUOUS), use_sde=True, **kw),
    "gsde_squashed": lambda **kw: make_model(env=RandomEnv(action_space=CONTINUOUS), **SQUASHED, **kw),
    "several_groups": lambda **kw: make_model(GroupedPolicy, RandomEnv(action_space=CONTINUOUS), **kw),
}
SHARING = {
    "cnn_shared": lambda **kw: make_model("CnnPolicy", RandomEnv(IMAGE), policy_kwargs=SHARED, **kw),
    "multi_input_shared": lambda **kw: make_model("MultiInputPolicy", RandomEnv(DICT), policy_kwargs=SHARED, **kw),
    "mlp_shared": lambda **kw: make_model(policy_kwargs={"features_extractor_class": LinearExtractor}, **kw),
}
ALL_POLICIES = {**UNSHARED, **SHARING}
every_policy = pytest.mark.parametrize("build", ALL_POLICIES.values(), ids=ALL_POLICIES.keys())
unshared_policy = pytest.mark.parametrize("build", UNSHARED.values(), ids=UNSHARED.keys())


def held(optimizer):
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def names_in(model, optimizer):
    inside = set(held(optimizer))
    return {name for name, parameter in model.policy.named_parameters() if parameter in inside}


def owners_by_trial(model):
    """Find the owners slowly: change each parameter and see whether the actions or only the values change."""
    policy, observations = model.policy, sample_observations(model)
    actions, value = action_parameters(policy, observations), values(policy, observations)
    actor, critic = set(), set()
    generator = th.Generator().manual_seed(5)
    for name, parameter in policy.named_parameters():
        before = parameter.data.clone()
        parameter.data += 0.5 + th.rand(parameter.shape, generator=generator)
        if not same(actions, action_parameters(policy, observations)):
            actor.add(name)
        elif not th.equal(value, values(policy, observations)):
            critic.add(name)
        parameter.data = before
    return actor, critic


@every_policy
def test_every_parameter_is_in_exactly_one_optimizer(build):
    """The two optimisers together hold each parameter of the policy once."""
    model = build()
    together = held(model.policy.optimizer) + held(model.critic_optimizer)
    assert len(together) == len(set(together))
    assert set(together) == set(model.policy.parameters())


@every_policy
def test_owners_equal_those_found_by_trial(build):
    """The actor's optimiser holds the parameters that change the actions, the critic's those that change only the values."""
    model = build()
    actor, critic = owners_by_trial(model)
    assert actor
    assert critic
    assert names_in(model, model.policy.optimizer) == actor
    assert names_in(model, model.critic_optimizer) == critic


def test_names_of_parameters_do_not_matter():
    """The actor's body may be called ``value_thing`` and the critic's ``actor_like``: the gradients decide."""
    model = make_model(OddlyNamedPolicy)
    body = "mlp_extractor"
    assert {f"{body}.value_thing.{kind}" for kind in ("weight", "bias")} <= names_in(model, model.policy.optimizer)
    assert {f"{body}.actor_like.{kind}" for kind in ("weight", "bias")} <= names_in(model, model.critic_optimizer)


@every_policy
def test_critic_steps_leave_the_policy_bit_identical(build):
    """With a step size of 0 for the policy, the values change and the action distribution keeps every bit."""
    model = build(learning_rate=0.0, vf_learning_rate=0.01)
    observations = sample_observations(model)
    actions, value = action_parameters(model.policy, observations), values(model.policy, observations)
    model.learn(48)
    assert same(actions, action_parameters(model.policy, observations))
    assert not th.equal(value, values(model.policy, observations))


@unshared_policy
def test_policy_steps_leave_an_unshared_critic_bit_identical(build):
    """With a step size of 0 for the critic, the action distribution changes and the values keep every bit."""
    model = build(vf_learning_rate=0.0)
    observations = sample_observations(model)
    actions, value = action_parameters(model.policy, observations), values(model.policy, observations)
    model.learn(48)
    assert not same(actions, action_parameters(model.policy, observations))
    assert th.equal(value, values(model.policy, observations))


def test_frozen_parameters_stay_frozen():
    """Finding the owners unfreezes nothing, and training changes all parameters except the frozen ones."""
    model = make_model(PartlyFrozenPolicy)
    frozen = {name for name, parameter in model.policy.named_parameters() if not parameter.requires_grad}
    assert frozen == {name for name in weights(model) if name.startswith("mlp_extractor.")}
    before = weights(model)
    model.learn(48)
    assert differing(before, weights(model)) == set(before) - frozen


@pytest.mark.parametrize("part", ["policy", "critic"])
def test_the_actor_or_the_critic_can_be_frozen(part):
    """If the whole critic or the whole actor is frozen, the other one is still trained."""
    model = make_model()
    optimizers = {"policy": model.policy.optimizer, "critic": model.critic_optimizer}
    frozen = names_in(model, optimizers[part])
    for parameter in held(optimizers[part]):
        parameter.requires_grad_(False)
    before = weights(model)
    model.learn(48)
    assert differing(before, weights(model)) == set(before) - frozen


def test_group_options_follow_each_parameter():
    """Each parameter keeps the weight decay and the betas of its group in the policy's optimiser."""
    model = make_model(GroupedPolicy, RandomEnv(action_space=CONTINUOUS))
    names = {parameter: name for name, parameter in model.policy.named_parameters()}
    for optimizer in (model.policy.optimizer, model.critic_optimizer):
        assert len(optimizer.param_groups) > 1
        for group in optimizer.param_groups:
            for name in (names[parameter] for parameter in group["params"]):
                assert group["weight_decay"] == (0.25 if name.endswith("weight") else 0.0)
                assert group["betas"] == ((0.5, 0.75) if name == "log_std" else (0.9, 0.999))


OPTIMIZERS = {
    "adam_default": {},
    "adam_no_kwargs": {"optimizer_kwargs": None},
    "adam": {"optimizer_kwargs": {"eps": 1e-3, "betas": (0.8, 0.9)}},
    "adamw": {"optimizer_class": th.optim.AdamW, "optimizer_kwargs": {"weight_decay": 0.125}},
    "sgd": {"optimizer_class": th.optim.SGD, "optimizer_kwargs": {"momentum": 0.5}},
    "rmsprop": {"optimizer_class": th.optim.RMSprop, "optimizer_kwargs": {"alpha": 0.75}},
    "rmsprop_tf": {"optimizer_class": RMSpropTFLike, "optimizer_kwargs": {"eps": 1e-4}},
    "adagrad": {"optimizer_class": th.optim.Adagrad, "optimizer_kwargs": {"initial_accumulator_value": 0.5}},
}
any_optimizer = pytest.mark.parametrize("policy_kwargs", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())


@any_optimizer
def test_optimizer_class_and_options_hold_for_both(policy_kwargs):
    """``optimizer_class`` and ``optimizer_kwargs`` apply to both optimisers."""
    model = make_model(policy_kwargs=policy_kwargs)
    for optimizer in (model.policy.optimizer, model.critic_optimizer):
        assert type(optimizer) is policy_kwargs.get("optimizer_class", th.optim.Adam)
        for name, value in (policy_kwargs.get("optimizer_kwargs") or {}).items():
            assert optimizer.param_groups[0][name] == value


@any_optimizer
def test_models_with_any_optimizer_train_save_and_load(policy_kwargs, model_path):
    """The states of both optimisers are loaded, also for a class whose state is not empty at the start."""
    model = make_model(policy_kwargs=policy_kwargs).learn(48)
    model.save(model_path)
    loaded = VPG.load(model_path, env=RandomEnv())
    assert not differing(weights(model), weights(loaded))
    for ours, theirs in [
        (model.policy.optimizer, loaded.policy.optimizer),
        (model.critic_optimizer, loaded.critic_optimizer),
    ]:
        th.testing.assert_close(ours.state_dict()["state"], theirs.state_dict()["state"], rtol=0, atol=0)
    loaded.learn(48)


@pytest.mark.parametrize("use_sde", [False, True], ids=["plain", "gsde"])
def test_construction_draws_the_same_random_numbers_as_sb3(use_sde):
    """For one seed VPG and A2C start from the same weights and leave torch's generator in the same state."""
    states, starts = [], []
    for algorithm in (A2C, VPG):
        model = algorithm("MlpPolicy", RandomEnv(action_space=CONTINUOUS), seed=7, use_sde=use_sde, device="cpu")
        states.append(th.get_rng_state())
        starts.append(weights(model))
    assert th.equal(*states)
    assert not differing(*starts)


@pytest.mark.filterwarnings(r"ignore:load\(path\) alone will not read")
def test_each_optimizer_has_its_own_step_size():
    """Each optimiser has its own step size, from construction to the end of a decaying schedule."""
    model = make_model(learning_rate="lin_0.01", vf_learning_rate=lambda progress: 0.5 * progress)

    def rates():
        return [{g["lr"] for g in optimizer.param_groups} for optimizer in (model.policy.optimizer, model.critic_optimizer)]

    assert rates() == [{0.01}, {0.5}]
    model.learn(64)  # the last of four updates comes after all steps, at progress 0
    assert rates() == [{0.0}, {0.0}]


class DirectionExtractor(BaseFeaturesExtractor):
    """The direction of the observation: NaN where it is zero."""

    def __init__(self, observation_space):
        super().__init__(observation_space, observation_space.shape[0])
        self.layer = th.nn.Linear(observation_space.shape[0], self.features_dim)

    def forward(self, observations):
        return self.layer(observations / observations.norm(dim=1, keepdim=True))


def test_a_policy_that_makes_nan_of_zeros_can_be_built():
    """The owners are found with an observation of zeros, and the policy may return NaN for it."""
    model = make_model(policy_kwargs={"features_extractor_class": DirectionExtractor})
    assert model.critic_optimizer is not None
    model.learn(64)


def test_a_fresh_policy_can_be_deep_copied():
    """Finding the owners leaves no graph in the policy, so it can be deep-copied."""
    model = make_model()
    observations = sample_observations(model)
    copied = deepcopy(model.policy)
    assert same(action_parameters(model.policy, observations), action_parameters(copied, observations))
