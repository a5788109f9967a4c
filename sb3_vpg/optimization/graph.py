"""What modules remember of autograd's graph, which keeps a policy from being copied."""

from collections import deque
from contextlib import suppress
from typing import Any

import torch as th
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.policies import ActorCriticPolicy

_LONGEST = 1000
_NO_TENSORS = {int, float, bool, str, type(None), type}
_CONTAINERS = (dict, list, deque)
_HOLDERS = (tuple, *_CONTAINERS, Distribution, th.distributions.Distribution)
# Their objects are walked by nobody: spaces, optimisers, environments, models
_LIBRARIES = {"builtins", "torch", "numpy", "gymnasium", "stable_baselines3", "sb3_contrib", "sb3_vpg"}
_OF_EVERY_MODULE = vars(th.nn.Module()).keys() - {"_buffers"}


def drop_graph(policy: ActorCriticPolicy) -> None:
    """
    Detach what the policy's modules and its distribution remember of their last call, since a policy that holds a graph
    cannot be deep-copied or pickled. SB3's loop writes over it at the next step.
    """
    seen: set[int] = set()
    for module in policy.modules():
        held = vars(module)
        for name in held.keys() - _OF_EVERY_MODULE:
            held[name] = _detached(held[name], seen)


def _detached(value: Any, seen: set[int], depth: int = 4) -> Any:
    """
    :param value: anything
    :param seen: objects that need no second look
    :param depth: how many levels of containers are looked into
    :return: the value, with the tensors in it exchanged in place; a tuple anew if need be
    """
    cls = type(value)
    if cls in _NO_TENSORS:
        return value
    if isinstance(value, th.Tensor):
        return value if value.grad_fn is None else value.detach()
    holds = isinstance(value, _HOLDERS) or _is_of_no_library(cls)
    if depth == 0 or not holds:
        return value
    # The objects are the user's, and may refuse to be written to; then they stay as they are
    with suppress(Exception):
        if isinstance(value, tuple):
            return _detached_tuple(value, seen, depth - 1)
        if id(value) not in seen:
            seen.add(id(value))
            _detach_items(value, seen, depth - 1)
            _detach_attributes(value, seen, depth - 1)
    return value


def _is_of_no_library(cls: type) -> bool:
    """:return: whether only classes of the user's make up its objects, such as data classes"""
    return all(one is object or one.__module__.partition(".")[0] not in _LIBRARIES for one in cls.__mro__)


def _detached_tuple(value: Any, seen: set[int], depth: int) -> Any:
    if len(value) > _LONGEST:
        return value
    items = [_detached(item, seen, depth) for item in value]
    if all(new is item for new, item in zip(items, value, strict=True)):
        return value
    # A named tuple takes its items one by one; tuple, and what torch returns (of max, for example), all at once
    return getattr(type(value), "_make", type(value))(items)


def _detach_items(value: Any, seen: set[int], depth: int) -> None:
    # Long ones are data of the user's
    if not isinstance(value, _CONTAINERS) or len(value) > _LONGEST:
        return
    for key, item in list(value.items() if isinstance(value, dict) else enumerate(value)):
        if (new := _detached(item, seen, depth)) is not item:
            value[key] = new


def _detach_attributes(value: Any, seen: set[int], depth: int) -> None:
    slots = [getattr(cls, "__slots__", ()) for cls in type(value).__mro__]
    names = [*getattr(value, "__dict__", ()), *(name for own in slots for name in ([own] if isinstance(own, str) else own))]
    for name in names[:_LONGEST]:
        item = getattr(value, name, None)
        if (new := _detached(item, seen, depth)) is not item:
            # Also of a data class that is frozen
            object.__setattr__(value, name, new)
