"""
Whether NumPy may replace torch: only if no hook observes the computation and nobody has changed it.

Torch keeps hooks, layers and parameters in private attributes, which may be renamed in any release. Only this module reads
them, by name. If a name is missing or an optimiser has an unknown option, the answer is no, and torch does the work.
"""

import sys
from collections.abc import Callable, Iterable
from functools import cache
from operator import attrgetter
from typing import Any, TypeGuard

import torch as th
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import FlattenExtractor, MlpExtractor
from torch import nn
from torch.optim import Optimizer

from sb3_vpg.policies import MASKABLE_POLICY, contrib_base

_FORWARD = ("_forward_hooks", "_forward_pre_hooks")
_BACKWARD = ("_backward_hooks", "_backward_pre_hooks")
_GLOBAL_FORWARD = ("_global_forward_hooks", "_global_forward_pre_hooks")
_GLOBAL_BACKWARD = ("_global_backward_hooks", "_global_backward_pre_hooks")
_OF_TENSORS = ("_backward_hooks", "_post_accumulate_grad_hooks")
_STEP = ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks")
_GLOBAL_STEP = ("_global_optimizer_pre_hooks", "_global_optimizer_post_hooks")
_CHILDREN, _PARAMETERS = "_modules", "_parameters"
_REPLACED = {"forward", "forward_actor", "forward_critic", "_call_impl", "_compiled_call_impl"}
"""Names in the ``__dict__`` of a module whose computation was replaced, by assignment or by ``module.compile()``."""
_ADAM = {"lr", "betas", "eps", "weight_decay", "amsgrad", "maximize", "foreach", "capturable", "differentiable", "fused"}
_ADAM |= {"decoupled_weight_decay"}
_SWITCHES = ("weight_decay", "amsgrad", "maximize", "capturable", "differentiable")
_UNKNOWN: dict[str, None] = {"unknown": None}
"""Stands for hooks whose attribute is missing; it is not empty, so the answer is no."""


def forward_hooks(modules: Iterable[nn.Module]) -> list[Any]:
    """Return torch's containers of forward hooks: those of these modules, and those that apply to all modules."""
    torch_globals = sys.modules.get(nn.Module.__module__)
    hooks = [getattr(one, name, _UNKNOWN) for one in modules for name in _FORWARD]
    return hooks + [getattr(torch_globals, name, _UNKNOWN) for name in _GLOBAL_FORWARD]


def can_be_read_in_place(modules: Iterable[nn.Module]) -> bool:
    """Return whether ``children`` and ``parameters`` can read these modules, and nobody has replaced their computation."""
    for one in modules:
        own = vars(one)
        if not (isinstance(own.get(_CHILDREN), dict) and isinstance(own.get(_PARAMETERS), dict)):
            return False
        held = parameters(one)
        if not own.keys().isdisjoint(_REPLACED) or (isinstance(one, nn.Linear) and not {"weight", "bias"} <= held.keys()):
            return False
        if held and any(type(p) is not nn.Parameter for p in held.values() if p is not None):
            return False
    return True


def children(module: nn.Module) -> dict[str, nn.Module]:
    """Return torch's own dict of child modules, not a copy."""
    found: dict[str, nn.Module] = getattr(module, _CHILDREN)
    return found


def parameters(module: nn.Module) -> dict[str, th.Tensor]:
    """Return torch's own dict of parameters, not a copy."""
    found: dict[str, th.Tensor] = getattr(module, _PARAMETERS)
    return found


def only_flattens(extractor: Any) -> bool:
    """Return whether it is SB3's ``FlattenExtractor``, and nobody has put another layer into it."""
    if type(extractor) is not FlattenExtractor:
        return False
    flatten: Any = extractor.flatten
    return type(flatten) is nn.Flatten and (flatten.start_dim, flatten.end_dim) == (1, -1)


def is_watched_backward(modules: Iterable[nn.Module], tensors: Iterable[th.Tensor]) -> bool:
    """Return whether these modules and parameters have backward hooks."""
    torch_globals = sys.modules.get(nn.Module.__module__)
    places: list[tuple[Any, tuple[str, ...]]] = [(torch_globals, _GLOBAL_BACKWARD)]
    places += [(one, _BACKWARD) for one in modules] + [(one, _OF_TENSORS) for one in tensors]
    return any(getattr(owner, name, _UNKNOWN) for owner, names in places for name in names)


def is_plain_adam(optimizer: Optimizer) -> TypeGuard[th.optim.Adam]:
    """Return whether it is Adam without variants, with one parameter group and without hooks."""
    if type(optimizer) is not th.optim.Adam or len(optimizer.param_groups) != 1 or "step" in vars(optimizer):
        return False
    torch_globals = sys.modules.get(Optimizer.__module__)
    hooks = [getattr(optimizer, name, _UNKNOWN) for name in _STEP]
    hooks += [getattr(torch_globals, name, _UNKNOWN) for name in _GLOBAL_STEP]
    group = optimizer.param_groups[0]
    return not any(hooks) and optimizer.defaults.keys() <= _ADAM and not any(group.get(name) for name in _SWITCHES)


# The methods that lead from an observation to an action, and those that lead to its value, too
_ACTING = (
    "__call__",
    "forward",
    "evaluate_actions",
    "get_distribution",
    "extract_features",
    "_get_action_dist_from_latent",
)
_ACTING_WITH_VALUES = (*_ACTING, "predict_values", "obs_to_tensor")


def is_untouched(policy: Any, methods: tuple[str, ...]) -> bool:
    """Return whether these methods are SB3's own: neither the policy's class nor the object overrides them."""
    cls = type(policy)
    # sb3_contrib's maskable policy computes as SB3's does
    base = ActorCriticPolicy if ActorCriticPolicy in cls.__mro__ else contrib_base(cls, MASKABLE_POLICY)
    # Not isinstance(), which is slow for abstract classes: this runs at each prediction
    if base is None or not vars(policy).keys().isdisjoint(methods):
        return False
    read, sb3s = _sb3s(methods, base)
    return bool(read(cls) == sb3s)


@cache
def _sb3s(methods: tuple[str, ...], base: type) -> tuple[Callable[[Any], Any], Any]:
    read = attrgetter(*methods)
    return read, read(base)


def acts_as_sb3(policy: Any, values: bool = False) -> bool:
    """
    :param policy: any policy
    :param values: whether the values matter, too
    :return: whether ``get_distribution`` (and ``predict_values``) agree with ``forward`` and ``evaluate_actions``, because
        these methods and those that they call are SB3's own. If not, call ``policy(observation)`` to sample actions and
        ``evaluate_actions`` to learn, as SB3's algorithms do
    """
    if not is_untouched(policy, _ACTING_WITH_VALUES if values else _ACTING) or any(forward_hooks([policy])):
        return False
    if not policy.share_features_extractor:
        return True
    # forward() and evaluate_actions() call the body as a whole, and the extractor by its first name
    body = policy.mlp_extractor
    whole = type(body) is MlpExtractor and "forward" not in vars(body) and not any(forward_hooks([body]))
    return whole and policy.features_extractor is policy.pi_features_extractor is policy.vf_features_extractor
