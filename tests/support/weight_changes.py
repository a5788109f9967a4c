"""Changes of a policy's weights and modules that users make, by name."""

import io
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import torch as th
from helpers import LinearExtractor
from sb3_loop import environments
from torch import nn
from torch.nn.utils import parametrizations, prune

from sb3_vpg import VPG

OBSERVATIONS = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
Change = Callable[[VPG], Any]
"""Changes a model, or returns another model that is changed."""


def others(model: VPG) -> dict[str, th.Tensor]:
    """:return: other weights of the same shapes"""
    generator = th.Generator().manual_seed(9)
    return {name: th.randn(value.shape, generator=generator) * 0.5 for name, value in model.policy.state_dict().items()}


def hidden(model: VPG) -> nn.Sequential:
    return model.policy.mlp_extractor.policy_net


def for_each_parameter(change: Callable[[nn.Parameter], Any]) -> Change:
    def apply(model: VPG) -> None:
        with th.no_grad():
            for parameter in model.policy.parameters():
                change(parameter)

    return apply


def exchange(parameter: nn.Parameter) -> None:
    parameter.data = parameter.data * -1.5 + 0.3


def at(path: str, value: Callable[[VPG], Any]) -> Change:
    """:return: a change that replaces the attribute of the policy at a dotted path"""
    *owner, name = path.split(".")

    def apply(model: VPG) -> None:
        setattr(model.policy.get_submodule(".".join(owner)), name, value(model))

    return apply


def random_layer(n_in: int, n_out: int, bias: bool = True) -> nn.Linear:
    layer = nn.Linear(n_in, n_out, bias)
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    return layer


def longer(model: VPG) -> None:
    hidden(model).append(random_layer(8, 8))
    hidden(model).append(nn.ReLU())


def another_item(model: VPG) -> None:
    hidden(model)[1] = nn.ReLU()
    hidden(model)[0] = random_layer(3, 8)


def without_bias(model: VPG) -> None:
    model.policy.action_net.bias = None
    with th.no_grad():
        model.policy.action_net.weight.mul_(-1)


def pruned(model: VPG) -> None:
    prune.l1_unstructured(model.policy.action_net, "weight", amount=0.6)


def normed(model: VPG) -> None:
    parametrizations.weight_norm(hidden(model)[0])
    with th.no_grad():
        hidden(model)[0].parametrizations.weight.original0.mul_(-3.0)


def doubling_hook(path: str) -> Change:
    def apply(model: VPG) -> None:
        model.policy.get_submodule(path).register_forward_hook(lambda module, args, output: output * -2.0)

    return apply


def before_hook(model: VPG) -> None:
    model.policy.action_net.register_forward_pre_hook(lambda module, args: (args[0] * -2.0,))


def from_file(model: VPG) -> VPG:
    file = io.BytesIO()
    model.policy.load_state_dict(others(model))
    model.save(file)
    file.seek(0)
    return VPG.load(file, environments(2, **space_of(model)), device="cpu")


def into_the_model_from_file(model: VPG) -> None:
    file, other = io.BytesIO(), deepcopy(model)
    other.policy.load_state_dict(others(model))
    other.save(file)
    file.seek(0)
    model.set_parameters(VPG.load(file, device="cpu").get_parameters())


def space_of(model: VPG) -> dict[str, Any]:
    return {"observation_space": model.observation_space, "action_space": model.action_space}


def copied(model: VPG) -> VPG:
    copy = deepcopy(model)
    for_each_parameter(lambda parameter: parameter.mul_(-2.0))(copy)
    return copy


def another_policy(model: VPG) -> None:
    model.policy = deepcopy(model.policy)
    model.policy.load_state_dict(others(model))


def other_deviation(model: VPG) -> None:
    if hasattr(model.policy, "log_std"):
        model.policy.log_std = nn.Parameter(th.tensor([-2.0, 0.5]))
    else:
        model.policy.load_state_dict(others(model))


def frozen_and_moved(model: VPG) -> None:
    model.policy.requires_grad_(False)
    exchange(model.policy.action_net.weight)


def remove_units(model: VPG) -> None:
    """Prune hidden units by slices, which share the memory of the whole weights."""
    first, last = hidden(model)[0], model.policy.action_net
    first.weight.data, first.bias.data = first.weight.data[:4], first.bias.data[:4]
    last.weight.data = last.weight.data[:, :4]


def weight_as_attribute(model: VPG) -> None:
    """Replace a parameter by a tensor, as hypernetworks do."""
    weight = model.policy.action_net.weight.detach() * -1.5
    del model.policy.action_net.weight
    model.policy.action_net.weight = weight


def weight_as_buffer(model: VPG) -> None:
    """Replace a parameter by a buffer."""
    weight = model.policy.action_net.weight.detach() * -1.5
    del model.policy.action_net.weight
    model.policy.action_net.register_buffer("weight", weight)


def into_shared_memory(model: VPG) -> None:
    model.policy.share_memory()
    for_each_parameter(lambda parameter: parameter.add_(0.5))(model)


CHANGES: dict[str, Change] = {
    "training": lambda model: model.learn(45),
    "a_step_of_another_optimizer": lambda model: optimizer_step(model),
    "load_state_dict": lambda model: model.policy.load_state_dict(others(model)),
    "load_state_dict_assign": lambda model: model.policy.load_state_dict(others(model), assign=True),
    "set_parameters": lambda model: model.set_parameters({"policy": others(model)}, exact_match=False),
    "set_parameters_from_a_file": into_the_model_from_file,
    "load": from_file,
    "deepcopy": copied,
    "another_policy": another_policy,
    "data_add": for_each_parameter(lambda parameter: parameter.data.add_(0.5)),
    "data_exchanged": for_each_parameter(exchange),
    "data_of_the_bias_alone": lambda model: exchange(model.policy.action_net.bias),
    "set_": for_each_parameter(lambda parameter: parameter.set_(parameter.detach().clone() * -1.5)),
    "action_net": at("action_net", lambda model: random_layer(8, model.policy.action_net.out_features)),
    "action_net_without_bias": at("action_net", lambda model: random_layer(8, model.policy.action_net.out_features, False)),
    "bias_removed": without_bias,
    "weight": at("action_net.weight", lambda model: nn.Parameter(model.policy.action_net.weight.data * -1.5)),
    "bias": at("action_net.bias", lambda model: nn.Parameter(model.policy.action_net.bias.data * -3.0)),
    "first_layer": at("mlp_extractor.policy_net.0", lambda model: random_layer(3, 8)),
    "activation": at("mlp_extractor.policy_net.1", lambda model: nn.ReLU()),
    "unknown_activation": at("mlp_extractor.policy_net.1", lambda model: nn.Softplus()),
    "item": another_item,
    "policy_net": at("mlp_extractor.policy_net", lambda model: nn.Sequential(random_layer(3, 8), nn.Tanh())),
    "mlp_extractor": at("mlp_extractor", lambda model: other_body(model)),
    "pi_features_extractor": at("pi_features_extractor", lambda model: LinearExtractor(model.observation_space, 3)),
    "appended_layers": longer,
    "pruned": pruned,
    "parametrized": normed,
    "hook_of_a_layer": doubling_hook("mlp_extractor.policy_net.0"),
    "hook_of_an_activation": doubling_hook("mlp_extractor.policy_net.1"),
    "hook_of_the_body": doubling_hook("mlp_extractor.policy_net"),
    "hook_of_the_action_net": doubling_hook("action_net"),
    "hook_of_the_extractor": doubling_hook("pi_features_extractor"),
    "hook_inside_the_extractor": doubling_hook("pi_features_extractor.flatten"),
    "hook_before_the_action_net": before_hook,
    "log_std": other_deviation,
    "frozen": frozen_and_moved,
    "shared_memory": into_shared_memory,
    "units_removed": remove_units,
    "weight_as_attribute": weight_as_attribute,
    "weight_as_buffer": weight_as_buffer,
}


def optimizer_step(model: VPG) -> None:
    optimizer = th.optim.SGD(model.policy.parameters(), lr=1.0)
    tensor = th.as_tensor(OBSERVATIONS)
    model.policy.get_distribution(tensor).log_prob(th.as_tensor(model.predict(OBSERVATIONS)[0])).mean().backward()
    optimizer.step()


def other_body(model: VPG) -> nn.Module:
    body = deepcopy(model.policy.mlp_extractor)
    with th.no_grad():
        body.policy_net[0].weight.mul_(-2.0)
    return body
