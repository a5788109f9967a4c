"""The critic's fit in NumPy equals the fit in torch: weights, losses and Adam's state."""

from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from helpers import CONTINUOUS, IMAGE, LinearExtractor, OddlyNamedPolicy, PartlyFrozenPolicy, RandomEnv, make_model, weights
from stable_baselines3.common.callbacks import BaseCallback
from threadpoolctl import threadpool_info, threadpool_limits
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from sb3_vpg import VPG
from sb3_vpg.exceptions import NotFiniteError
from sb3_vpg.optimization.critic import NumpyCriticFit, TorchCriticFit, critic_fit
from sb3_vpg.optimization.steps import Steps
from sb3_vpg.optimization.updates import finite_numbers, rollback_unless_finite

MODELS: dict[str, Callable[[], VPG]] = {
    "tanh": lambda: make_model(policy_kwargs={"net_arch": [16, 8]}),
    "relu": lambda: make_model(policy_kwargs={"activation_fn": nn.ReLU, "net_arch": [32]}),
    "identity": lambda: make_model(policy_kwargs={"activation_fn": nn.Identity}),
    "linear": lambda: make_model(policy_kwargs={"net_arch": []}),
    "discrete_observations": lambda: make_model(env=RandomEnv(spaces.Discrete(5))),
    "several_discrete_observations": lambda: make_model(env=RandomEnv(spaces.MultiDiscrete([2, 3]))),
    "binary_observations": lambda: make_model(env=RandomEnv(spaces.MultiBinary(4))),
    "other_adam": lambda: make_model(policy_kwargs={"optimizer_kwargs": {"eps": 1e-3, "betas": (0.5, 0.9)}}),
    "continuous_actions": lambda: make_model(env=RandomEnv(action_space=CONTINUOUS)),
}
NORMS = {"unbounded": float("inf"), "bounded": 0.05}
Batches = list[tuple[Steps, th.Tensor]]


def batches_of(model: VPG, sizes: list[int], seed: int = 0) -> Batches:
    """Return batches of steps, their observations shaped as in the rollout buffer, and their returns."""
    space, rng = deepcopy(model.observation_space), np.random.default_rng(seed)
    space.seed(seed)
    shape = model.rollout_buffer.obs_shape
    observations = [th.as_tensor(np.stack([np.reshape(space.sample(), shape) for _ in range(size)])) for size in sizes]
    actions = th.zeros(max(sizes), 1)
    steps = [Steps(batch, actions[: len(batch)]) for batch in observations]
    return [(batch, th.as_tensor(rng.normal(3.0, 2.0, len(batch)), dtype=th.float32)) for batch in steps]


def both_fits(model: VPG, max_grad_norm: float) -> Iterator[tuple[VPG, Any]]:
    """:return: two copies of the model, one with each fit"""
    for cls in (TorchCriticFit, NumpyCriticFit):
        copied = deepcopy(model)
        chosen = critic_fit(copied.policy, copied.critic_optimizer, max_grad_norm)
        assert type(chosen) is NumpyCriticFit
        torch_fit = TorchCriticFit(copied.policy, copied.critic_optimizer, max_grad_norm)
        yield copied, chosen if cls is NumpyCriticFit else torch_fit


@pytest.mark.parametrize("max_grad_norm", NORMS.values(), ids=NORMS.keys())
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS.keys())
def test_both_fits_end_at_the_same_weights(make: Callable[[], VPG], max_grad_norm: float) -> None:
    """
    After three fits with batches of 1, 7 and 2500 steps, weights, losses and moments are the same, and the actor has not
    changed. The large batch exceeds the block of rows that NumPy computes at a time.
    """
    model = make()
    start, results = weights(model), []
    for one, fit in both_fits(model, max_grad_norm):
        losses = [loss for number in range(3) for loss in fit.run(batches_of(one, [1, 7, 2500, 7], number))]
        gradients = {name: parameter.grad for name, parameter in one.policy.named_parameters()}
        results.append((weights(one), losses, one.critic_optimizer.state_dict()["state"], gradients))
    (torch_weights, torch_losses, torch_state, torch_grads), (numpy_weights, numpy_losses, numpy_state, numpy_grads) = results
    np.testing.assert_allclose(numpy_losses, torch_losses, rtol=1e-4)
    # Where a gradient is nearly zero, Adam turns rounding into a step; the tolerance is small for 12 steps of 0.01
    th.testing.assert_close(numpy_weights, torch_weights, rtol=1e-4, atol=2e-4)
    th.testing.assert_close(numpy_state, torch_state, rtol=1e-3, atol=1e-5)
    # Callbacks may log the gradients of the last step; the actor has none
    assert {name for name, gradient in numpy_grads.items() if gradient is not None} == {n for n in start if "value" in n}
    th.testing.assert_close(numpy_grads, torch_grads, rtol=1e-3, atol=1e-4)
    moved = {name for name in start if not th.equal(start[name], numpy_weights[name])}
    assert moved == {name for name in start if "value" in name}


def test_in_double_precision_both_fits_agree_closely() -> None:
    """In double precision both fits agree closely, so the differences in single precision are rounding."""
    model = make_model(policy_kwargs={"net_arch": [16, 8]})
    model.policy.double()
    model.critic_optimizer = type(model.critic_optimizer)(model.critic_optimizer.param_groups)
    results = []
    for one, fit in both_fits(model, 0.5):
        if isinstance(fit, TorchCriticFit):
            # SB3's methods convert observations to single precision
            one.policy.evaluate_actions = lambda x, _, p=one.policy: (p.value_net(p.mlp_extractor.value_net(x)), None, None)
        batches = [(Steps(s.observations.double(), s.actions), r.double()) for s, r in batches_of(one, [64, 7, 1500] * 5)]
        results.append((fit.run(batches), weights(one)))
    th.testing.assert_close(results[1], results[0], rtol=1e-9, atol=1e-10)


def test_each_fit_continues_the_other() -> None:
    """Adam's moments and step count are in the optimiser's state, so either fit continues the other."""
    model = make_model()
    ends = []
    for order in ((TorchCriticFit, "numpy"), ("numpy", TorchCriticFit)):
        copied = deepcopy(model)
        for number, kind in enumerate(order):
            fit: Any = critic_fit(copied.policy, copied.critic_optimizer, 0.5)
            if kind is TorchCriticFit:
                fit = TorchCriticFit(copied.policy, copied.critic_optimizer, 0.5)
            fit.run(batches_of(copied, [20] * 4, number))
        ends.append(weights(copied))
    th.testing.assert_close(ends[0], ends[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("broken", ["returns", "weights"])
def test_a_number_that_is_not_finite_stops_both_fits(broken: str) -> None:
    """Within ``rollback_unless_finite``, as in ``VPG.train``, the weights are then those before the fit."""
    for one, fit in both_fits(make_model(), 0.5):
        steps, returns = batches_of(one, [8])[0]
        if broken == "returns":
            returns = th.full_like(returns, float("inf"))
        else:
            with th.no_grad():
                one.policy.value_net.weight.fill_(float("nan"))
        before = weights(one)
        refused = pytest.raises(NotFiniteError, match=r"the loss of the critic is (inf|nan)")
        with refused, rollback_unless_finite([one.critic_optimizer]):
            fit.run([(steps, returns)] * 2)
        th.testing.assert_close(weights(one), before, rtol=0, atol=0, equal_nan=True)


def test_the_first_number_that_is_not_finite_is_named() -> None:
    """They are checked after all steps, of which the later ones may only be consequences."""
    one, infinite, nan = (th.tensor(number) for number in (1.0, float("inf"), float("nan")))
    assert finite_numbers([(one, 2 * one), (3 * one, one)], "critic") == [(1.0, 2.0), (3.0, 1.0)]
    with pytest.raises(NotFiniteError, match=r"^the gradient norm of the critic is inf$"):
        finite_numbers([(one, one), (one, infinite), (nan, nan)], "critic")


def with_a_step_hook(model: VPG) -> VPG:
    model.critic_optimizer.register_step_pre_hook(lambda *_: None)
    return model


def with_a_gradient_hook(model: VPG) -> VPG:
    model.policy.value_net.weight.register_hook(lambda gradient: None)
    return model


def with_a_frozen_bias(model: VPG) -> VPG:
    model.policy.value_net.bias.requires_grad_(False)
    return model


def with_own_values(model: VPG) -> VPG:
    model.policy.predict_values = lambda observations: th.zeros(len(observations), 1)
    return model


def with_a_layer_twice(model: VPG) -> VPG:
    body = model.policy.mlp_extractor.value_net
    body[4] = body[2]
    return model


def with_a_shared_weight(model: VPG) -> VPG:
    body = model.policy.mlp_extractor.value_net
    body[4].weight = body[2].weight
    return model


def with_a_backward_hook(model: VPG) -> VPG:
    model.policy.value_net.register_full_backward_hook(lambda *_: None)
    return model


def with_a_replaced_forward(model: VPG) -> VPG:
    model.policy.value_net.forward = lambda x: x.sum(dim=1, keepdim=True)
    return model


def with_a_subclass_of_tensors(model: VPG) -> VPG:
    model.policy.value_net.weight.__class__ = Doubling
    return model


class Doubling(nn.Parameter):
    """Doubles the result of each linear layer that uses it."""

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = super().__torch_function__(function, types, args, kwargs or {})
        return result * 2 if function is nn.functional.linear else result


class Twice(nn.Module):
    """A parametrisation: the layer uses twice the weight that is learned."""

    def forward(self, weight: th.Tensor) -> th.Tensor:
        return 2 * weight


def with_a_parametrisation(model: VPG) -> VPG:
    nn.utils.parametrize.register_parametrization(model.policy.value_net, "weight", Twice())
    return model


def with_spectral_norm(model: VPG) -> VPG:
    nn.utils.parametrizations.spectral_norm(model.policy.mlp_extractor.value_net[0])
    return model


def with_weight_norm(model: VPG) -> VPG:
    nn.utils.parametrizations.weight_norm(model.policy.value_net)
    return model


def with_a_compiled_layer(model: VPG) -> VPG:
    model.policy.mlp_extractor.value_net[0].compile(backend="eager")
    return model


def with_a_new_option_of_adam(model: VPG) -> VPG:
    """A later torch might add an option."""
    model.critic_optimizer.defaults["lookahead"] = False
    return model


def with_two_activations(model: VPG) -> VPG:
    model.policy.mlp_extractor.value_net.append(nn.ReLU())
    return model


TORCH = {
    "another_optimizer": lambda: make_model(policy_kwargs={"optimizer_class": th.optim.RMSprop}),
    "amsgrad": lambda: make_model(policy_kwargs={"optimizer_kwargs": {"amsgrad": True}}),
    "weight_decay": lambda: make_model(policy_kwargs={"optimizer_kwargs": {"weight_decay": 0.1}}),
    "another_activation": lambda: make_model(policy_kwargs={"activation_fn": nn.SiLU}),
    "a_layer_twice": lambda: with_a_layer_twice(make_model(policy_kwargs={"net_arch": [8, 8, 8]})),
    "a_weight_twice": lambda: with_a_shared_weight(make_model(policy_kwargs={"net_arch": [8, 8, 8]})),
    "a_backward_hook": lambda: with_a_backward_hook(make_model()),
    "a_replaced_forward": lambda: with_a_replaced_forward(make_model()),
    "two_activations_in_a_row": lambda: with_two_activations(make_model()),
    "a_subclass_of_tensors": lambda: with_a_subclass_of_tensors(make_model()),
    "a_parametrisation": lambda: with_a_parametrisation(make_model()),
    "spectral_norm": lambda: with_spectral_norm(make_model()),
    "weight_norm": lambda: with_weight_norm(make_model()),
    "a_compiled_layer": lambda: with_a_compiled_layer(make_model()),
    "an_unknown_option": lambda: with_a_new_option_of_adam(make_model()),
    "images": lambda: make_model("CnnPolicy", RandomEnv(IMAGE)),
    "own_extractor": lambda: make_model(policy_kwargs={"features_extractor_class": LinearExtractor}),
    "own_networks": lambda: make_model(OddlyNamedPolicy),
    "frozen_layers": lambda: make_model(PartlyFrozenPolicy),
    "frozen_bias": lambda: with_a_frozen_bias(make_model()),
    "a_step_hook": lambda: with_a_step_hook(make_model()),
    "a_gradient_hook": lambda: with_a_gradient_hook(make_model()),
    "own_values": lambda: with_own_values(make_model()),
}


@pytest.mark.parametrize("make", TORCH.values(), ids=TORCH.keys())
def test_torch_fits_what_numpy_cannot(make: Callable[[], VPG]) -> None:
    model = make()
    assert type(critic_fit(model.policy, model.critic_optimizer, 0.5)) is TorchCriticFit


GLOBAL = {
    "forward": nn.modules.module.register_module_forward_hook,
    "forward_pre": nn.modules.module.register_module_forward_pre_hook,
    "backward": nn.modules.module.register_module_full_backward_hook,
    "backward_pre": nn.modules.module.register_module_full_backward_pre_hook,
    "step_pre": register_optimizer_step_pre_hook,
    "step_post": register_optimizer_step_post_hook,
}


@pytest.mark.parametrize("register", GLOBAL.values(), ids=GLOBAL.keys())
def test_global_hooks_make_torch_fit(register: Callable[..., Any]) -> None:
    """With a hook for all modules or optimisers, torch fits and calls it; after its removal, NumPy fits again."""
    model = make_model()
    handle = register(lambda *_: None)
    try:
        assert type(critic_fit(model.policy, model.critic_optimizer, 0.5)) is TorchCriticFit
    finally:
        handle.remove()
    assert type(critic_fit(model.policy, model.critic_optimizer, 0.5)) is NumpyCriticFit


class ThreadCounts(BaseCallback):
    """Records how many threads NumPy's matrix products may use."""

    seen: frozenset[int] = frozenset()

    def _on_step(self):
        self.seen |= blas_threads()
        return True


def blas_threads():
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


def test_matrix_products_use_the_threads_that_torch_is_set_to():
    """Parallel runs would wait for each other's threads otherwise. After training, the previous setting is restored."""
    pools = ThreadCounts()
    with threadpool_limits(2, user_api="blas"):
        before = blas_threads()
        make_model().learn(32, pools)
        assert blas_threads() == before
    assert pools.seen == {th.get_num_threads()} == {1}
    assert before == {2}
