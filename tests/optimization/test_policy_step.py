"""The policy's step in NumPy equals the step in torch: weights, losses and Adam's state."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import astuple
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from helpers import CONTINUOUS, IMAGE, RandomEnv, make_model, weights
from torch import nn
from torch.nn.utils import prune

from sb3_vpg import VPG
from sb3_vpg.estimation.diagnostics import batch_parts
from sb3_vpg.exceptions import NotFiniteError
from sb3_vpg.optimization.critic import TorchCriticFit
from sb3_vpg.optimization.policy_step import NumpyPolicyStep, PolicyBatch, PolicyUpdate, TorchPolicyStep, policy_step
from sb3_vpg.optimization.steps import Steps

MODELS: dict[str, Callable[[], VPG]] = {
    "discrete": lambda: make_model(policy_kwargs={"net_arch": [16, 8]}),
    "relu": lambda: make_model(policy_kwargs={"activation_fn": nn.ReLU, "net_arch": [32]}),
    "linear": lambda: make_model(policy_kwargs={"net_arch": []}),
    "continuous": lambda: make_model(env=RandomEnv(action_space=CONTINUOUS)),
    "other_scale": lambda: make_model(env=RandomEnv(action_space=CONTINUOUS), policy_kwargs={"log_std_init": -1.5}),
    "several_discrete": lambda: make_model(env=RandomEnv(action_space=spaces.MultiDiscrete([2, 3, 4]))),
    "binary": lambda: make_model(env=RandomEnv(action_space=spaces.MultiBinary(3))),
    "discrete_observations": lambda: make_model(env=RandomEnv(spaces.Discrete(5))),
    "other_adam": lambda: make_model(policy_kwargs={"optimizer_kwargs": {"eps": 1e-3, "betas": (0.5, 0.9)}}),
}
NORMS = {"unbounded": float("inf"), "bounded": 0.05}


def steps_of(model: VPG, n_steps: int, seed: int = 0) -> PolicyBatch:
    """:return: random steps"""
    rng, parts = np.random.default_rng(seed), []
    for space, shape in ((model.observation_space, model.rollout_buffer.obs_shape), (model.action_space, (-1,))):
        space = deepcopy(space)
        space.seed(seed)
        parts.append(th.as_tensor(np.stack([np.reshape(space.sample(), shape) for _ in range(n_steps)])))
    return PolicyBatch(Steps(parts[0], parts[1].float()), th.as_tensor(rng.normal(1.0, 2.0, n_steps), dtype=th.float32))


def by_numpy(model: VPG, batch: PolicyBatch, n_terms: int, ent_coef: float, max_grad_norm: float) -> PolicyUpdate:
    step = policy_step(model.policy, batch, max_grad_norm, has_critic=True)
    assert type(step) is NumpyPolicyStep
    return step.run(n_terms, ent_coef)


def by_torch(model: VPG, batch: PolicyBatch, n_terms: int, ent_coef: float, max_grad_norm: float) -> PolicyUpdate:
    return TorchPolicyStep(model.policy, batch, max_grad_norm, has_critic=True).run(n_terms, ent_coef)


def is_taken_by_numpy(model: VPG) -> bool:
    return type(policy_step(model.policy, steps_of(model, 3), 0.5, has_critic=True)) is NumpyPolicyStep


@pytest.mark.parametrize("max_grad_norm", NORMS.values(), ids=NORMS.keys())
@pytest.mark.parametrize("ent_coef", [0.0, 0.3])
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS.keys())
def test_both_steps_end_at_the_same_weights(make: Callable[[], VPG], ent_coef: float, max_grad_norm: float) -> None:
    """
    After three steps, weights, losses, gradients and moments are the same, and the critic has not changed. The large batch
    exceeds the block of rows that NumPy computes at a time; the number of terms differs from that of steps.
    """
    start, results = make(), []
    for take in (by_torch, by_numpy):
        model = deepcopy(start)
        steps = [(steps_of(model, n, seed=n), n_terms) for n, n_terms in ((1, 1), (2500, 2500), (40, 3))]
        taken = [take(model, batch, n_terms, ent_coef, max_grad_norm) for batch, n_terms in steps]
        gradients = {name: parameter.grad for name, parameter in model.policy.named_parameters()}
        results.append((weights(model), taken, model.policy.optimizer.state_dict()["state"], gradients))
    (torch_weights, torch_steps, torch_state, torch_grads), (numpy_weights, numpy_steps, numpy_state, numpy_grads) = results
    np.testing.assert_allclose([*map(astuple, numpy_steps)], [*map(astuple, torch_steps)], rtol=1e-4, atol=1e-5)
    # Where a gradient is nearly zero, Adam turns rounding into a step; the tolerance is small for 3 steps of 0.01
    th.testing.assert_close(numpy_weights, torch_weights, rtol=1e-4, atol=2e-4)
    th.testing.assert_close(numpy_state, torch_state, rtol=1e-3, atol=1e-5)
    th.testing.assert_close(numpy_grads, torch_grads, rtol=1e-3, atol=1e-4)
    moved = {name for name, before in weights(start).items() if not th.equal(before, numpy_weights[name])}
    assert moved == {name for name in weights(start) if "value" not in name}


@pytest.mark.parametrize("name", ["discrete", "continuous", "several_discrete", "binary"])
def test_in_double_precision_both_gradients_agree_closely(name: str) -> None:
    """So the differences in single precision are rounding. Torch's gradient is that of SB3's own distribution."""
    model = MODELS[name]()
    model.policy.double()
    steps, advantages = steps_of(model, 50)
    observations, actions, advantages = steps.observations.double(), steps.actions.double(), advantages.double()
    batch = PolicyBatch(Steps(observations, actions), advantages)
    step = policy_step(model.policy, batch, float("inf"), has_critic=True)
    assert type(step) is NumpyPolicyStep
    outputs = model.policy.action_net(model.policy.mlp_extractor.policy_net(observations)).detach().requires_grad_(True)
    distribution = model.policy.action_dist
    if name == "continuous":
        distribution.proba_distribution(outputs, model.policy.log_std)
    else:
        distribution.proba_distribution(outputs)
    log_prob = distribution.log_prob(actions[:, 0] if name == "discrete" else actions)
    entropy = distribution.entropy()
    loss = -(advantages * log_prob).sum() - 0.3 * entropy.sum()
    leaves = [outputs, *step.distribution.parameters]
    gradients = th.autograd.grad(loss, leaves)
    terms = step.distribution.terms(outputs.detach().numpy(), actions.numpy(), advantages.numpy(), 0.3)
    np.testing.assert_allclose(terms.log_prob, log_prob.detach(), rtol=1e-9)
    np.testing.assert_allclose(terms.entropy, entropy.detach(), rtol=1e-9)
    for own, gradient in zip([terms.gradient, *terms.own_gradients], gradients, strict=True):
        np.testing.assert_allclose(own, gradient, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("lengths", [None, [3, 10, 1, 20, 6]], ids=["steps", "episodes"])
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS.keys())
def test_both_steps_have_the_same_gradients_of_parts(make: Callable[[], VPG], lengths: list[int] | None) -> None:
    """Up to the order of the numbers: NumPy's has the network first, torch's is that of the optimiser."""
    model = make()
    batch, parts = steps_of(model, 40), batch_parts(th.arange(40).flip(0), lengths)
    steps = [TorchPolicyStep(model.policy, batch, 0.5, True), policy_step(model.policy, batch, 0.5, has_critic=True)]
    of_torch, of_numpy = (th.stack(step.part_gradients(parts)).sort(dim=1).values for step in steps)
    assert type(steps[1]) is NumpyPolicyStep
    assert of_torch.shape[0] == (8 if lengths is None else 5)
    th.testing.assert_close(of_numpy, of_torch, rtol=1e-4, atol=1e-5)


def test_each_step_continues_the_other() -> None:
    """Adam's moments and step count are in the optimiser's state, so either step continues the other."""
    start, ends = MODELS["continuous"](), []
    for order in ((by_torch, by_numpy), (by_numpy, by_torch)):
        model = deepcopy(start)
        for number, take in enumerate(order):
            take(model, steps_of(model, 20, number), 20, 0.01, 0.5)
        ends.append(weights(model))
    th.testing.assert_close(ends[0], ends[1], rtol=1e-5, atol=1e-5)


def test_an_action_that_is_ruled_out_changes_nothing_but_itself() -> None:
    """A logit of minus infinity has probability 0: the step is torch's, entropy included, and the mask stays."""
    start, ends = MODELS["discrete"](), []
    with th.no_grad():
        start.policy.action_net.bias[2] = -float("inf")
    for take in (by_torch, by_numpy):
        model = deepcopy(start)
        steps, advantages = steps_of(model, 30)
        batch = PolicyBatch(Steps(steps.observations, steps.actions % 2), advantages)
        ends.append((take(model, batch, 30, 0.3, 0.5), weights(model)))
    np.testing.assert_allclose(astuple(ends[1][0]), astuple(ends[0][0]), rtol=1e-5)
    th.testing.assert_close(ends[1][1], ends[0][1], rtol=1e-5, atol=1e-5)
    assert ends[1][1]["action_net.bias"][2] == -float("inf")


@pytest.mark.parametrize("broken", ["advantages", "weights"])
def test_a_number_that_is_not_finite_stops_the_step(broken: str) -> None:
    model = MODELS["continuous"]()
    steps, advantages = steps_of(model, 8)
    if broken == "advantages":
        advantages[3] = float("nan")
    else:
        with th.no_grad():
            model.policy.action_net.weight.fill_(float("inf"))
    before = weights(model)
    with pytest.raises(NotFiniteError, match=r"the loss of the policy is (inf|nan|-inf)"):
        by_numpy(model, PolicyBatch(steps, advantages), 8, 0.0, 0.5)
    th.testing.assert_close(weights(model), before, rtol=0, atol=0, equal_nan=True)


def with_a_frozen_scale(model: VPG) -> Any:
    model.policy.log_std.requires_grad_(False)


def with_a_gradient_hook(model: VPG) -> Any:
    model.policy.log_std.register_hook(lambda gradient: None)


def with_a_step_hook(model: VPG) -> Any:
    model.policy.optimizer.register_step_pre_hook(lambda *_: None)


def with_own_evaluation(model: VPG) -> Any:
    own = model.policy.evaluate_actions
    model.policy.evaluate_actions = lambda observations, actions: own(observations, actions)


def with_a_backward_hook(model: VPG) -> Any:
    model.policy.action_net.register_full_backward_hook(lambda *_: None)


def with_batch_norm_in_the_critic(model: VPG) -> Any:
    model.policy.mlp_extractor.value_net.append(nn.BatchNorm1d(8))


def with_another_optimizer(model: VPG) -> Any:
    model.policy.optimizer = th.optim.SGD(model.policy.parameters(), lr=0.1)


def with_one_scale_for_all_actions(model: VPG) -> Any:
    model.policy.log_std = nn.Parameter(th.zeros(1))
    model.policy.optimizer = th.optim.Adam(model.policy.parameters())
    model._split()


def with_another_parameter_in_a_layer(model: VPG) -> Any:
    model.policy.action_net.register_parameter("temperature", nn.Parameter(th.ones(())))
    model.policy.optimizer = th.optim.Adam(model.policy.parameters())
    model._split()


CHANGES = [with_a_frozen_scale, with_a_gradient_hook, with_a_step_hook, with_own_evaluation, with_a_backward_hook]
CHANGES += [with_batch_norm_in_the_critic, with_another_optimizer]
CHANGES += [with_one_scale_for_all_actions, with_another_parameter_in_a_layer]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_torch_takes_the_step_of_other_policies(change: Callable[[VPG], Any]) -> None:
    """NumPy leaves the step to torch if somebody observes it or if it would not do the same."""
    model = MODELS["continuous"]()
    assert is_taken_by_numpy(model)
    change(model)
    assert not is_taken_by_numpy(model)


@pytest.mark.filterwarnings("ignore:load.path. alone will not read this model:UserWarning")
@pytest.mark.parametrize("change", [with_one_scale_for_all_actions, with_another_parameter_in_a_layer])
def test_policies_that_numpy_cannot_train_learn(change: Callable[[VPG], Any]) -> None:
    model = MODELS["continuous"]()
    change(model)
    before = weights(model)
    model.learn(32)
    assert not th.equal(weights(model)["action_net.weight"], before["action_net.weight"])


@pytest.mark.parametrize("part", ["policy_net", "value_net"])
def test_a_layer_that_holds_its_bias_first_is_trained_as_by_torch(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """``torch.prune.remove`` leaves such layers: NumPy finds weight and bias by name."""
    ends = []
    for numpy_steps in (True, False):
        if not numpy_steps:
            monkeypatch.setattr("sb3_vpg.vpg.policy_step", lambda *arguments: TorchPolicyStep(*arguments[:4]))
            monkeypatch.setattr("sb3_vpg.vpg.critic_fit", lambda *arguments: TorchCriticFit(*arguments[:3]))
        model = make_model()
        layer = getattr(model.policy.mlp_extractor, part)[0]
        prune.l1_unstructured(layer, "weight", 0.2)
        prune.remove(layer, "weight")
        assert next(iter(layer._parameters)) == "bias"
        ends.append(weights(model.learn(64)))
    th.testing.assert_close(ends[0], ends[1], rtol=1e-4, atol=1e-4)


def test_options_of_adam_may_be_tensors() -> None:
    start, ends = MODELS["discrete"](), []
    start.policy.optimizer.param_groups[0]["betas"] = (th.tensor(0.9), th.tensor(0.99))
    for take in (by_torch, by_numpy):
        model = deepcopy(start)
        take(model, steps_of(model, 20), 20, 0.0, 0.5)
        ends.append(weights(model))
    th.testing.assert_close(ends[0], ends[1], rtol=1e-5, atol=1e-5)


def test_torch_takes_the_step_of_images() -> None:
    model = make_model("CnnPolicy", env=RandomEnv(IMAGE))
    assert not is_taken_by_numpy(model)


@pytest.mark.parametrize("n_episodes", [None, 2])
def test_logging_does_not_change_the_weights(n_episodes: int | None) -> None:
    """The diagnostics of a logged update are computed apart from the step."""
    ends = []
    for log_interval in (1, 1000):
        model = make_model(env=RandomEnv(action_space=CONTINUOUS), n_episodes=n_episodes, verbose=1)
        model.learn(64, log_interval=log_interval)
        assert ("train/gradient_snr" in model.logger.name_to_value) == (log_interval == 1)
        ends.append(weights(model))
    th.testing.assert_close(ends[0], ends[1], rtol=0, atol=0)
