"""What modules remember of autograd's graph, which keeps a policy from being copied."""

from typing import Any

import torch as th
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.policies import ActorCriticPolicy

_LONGEST = 1000
_NO_TENSORS = {int, float, bool, str, type(None), type}
_OF_EVERY_MODULE = vars(th.nn.Module()).keys() - {"_buffers"}


def drop_graph(policy: ActorCriticPolicy) -> None:
    """
    Detach what the policy's modules and its distribution remember of their last call, since a policy that holds a graph
    cannot be deep-copied or pickled. SB3's loop writes over it at the next step.
    """
    for module in policy.modules():
        held = vars(module)
        for name in held.keys() - _OF_EVERY_MODULE:
            held[name] = _detached(held[name])


def _detached(value: Any, depth: int = 4) -> Any:
    """:return: the value, a dict, list or distribution with its tensors exchanged in place; a tuple anew if need be"""
    cls = type(value)
    if cls in _NO_TENSORS:
        return value
    if isinstance(value, th.Tensor):
        return value if value.grad_fn is None else value.detach()
    if cls in (dict, list, tuple):
        # Long ones are data of the user's
        if depth == 0 or len(value) > _LONGEST:
            return value
        items = list(value.items()) if cls is dict else list(enumerate(value))
        changed = {key: new for key, item in items if (new := _detached(item, depth - 1)) is not item}
        if cls is tuple:
            return tuple(changed.get(key, item) for key, item in items) if changed else value
        for key, new in changed.items():
            value[key] = new
    elif isinstance(value, (Distribution, th.distributions.Distribution)):
        _detached(vars(value), depth)
    return value
