"""Removes autograd's graph from a policy, since a policy that holds one can be neither copied nor pickled."""

from collections import deque
from contextlib import suppress
from functools import lru_cache, partial
from typing import Any

import torch as th
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.policies import ActorCriticPolicy

from sb3_vpg.common.libraries import is_library

_LONGEST = 1000
"""Longer containers are data of the user, and are not searched."""
_NO_TENSORS = {int, float, bool, str, type(None), type}
_CONTAINERS = (dict, list, deque, set)
_IMMUTABLE = (tuple, frozenset)
_HOLDERS = (*_IMMUTABLE, *_CONTAINERS, Distribution, th.distributions.Distribution)
_OF_EVERY_MODULE = vars(th.nn.Module()).keys()
"""Attributes that torch gives every module; only the buffers among them may hold results of a call."""


def drop_graph(policy: ActorCriticPolicy) -> None:
    """
    Detach the tensors that the policy's modules and its distribution keep from their last call. In SB3's loop the next step,
    under ``no_grad``, replaces them; ours may not call these modules.
    """
    seen: set[int] = set()
    for module in policy.modules():
        held = vars(module)
        names = [name for name, value in held.items() if name not in _OF_EVERY_MODULE and type(value) not in _NO_TENSORS]
        for name in names if not held.get("_buffers") else [*names, "_buffers"]:
            held[name] = _detached(held[name], seen)


def _detached(value: Any, seen: set[int], depth: int = 10) -> Any:
    """
    :param value: anything
    :param seen: ids of the objects that were searched already
    :param depth: levels of containers to search
    :return: the value, in which tensors were replaced in place; a new tuple or frozenset if an item was replaced
    """
    cls: Any = type(value)
    if cls in _NO_TENSORS:
        return value
    if isinstance(value, th.Tensor):
        return value if value.grad_fn is None else value.detach()
    if depth == 0 or not _may_hold_tensors(cls) or (cls in _CONTAINERS and not value):
        return value
    # An object of the user's class may not allow assignment; then it stays as it is
    with suppress(Exception):
        if isinstance(value, _IMMUTABLE):
            return _detached_immutable(value, seen, depth - 1)
        if id(value) not in seen:
            seen.add(id(value))
            _detach_items(value, seen, depth - 1)
            if cls not in _CONTAINERS:
                _detach_attributes(value, seen, depth - 1)
    return value


@lru_cache(maxsize=1000)
def _may_hold_tensors(cls: Any) -> bool:
    """Return whether objects of the class are searched: containers, distributions, and objects of the user's classes."""
    is_users = all(one is object or not is_library(one.__module__) for one in cls.__mro__)
    return is_users or issubclass(cls, _HOLDERS)


def _detached_immutable(value: Any, seen: set[int], depth: int) -> Any:
    if len(value) > _LONGEST:
        return value
    items = [_detached(item, seen, depth) for item in value]
    if all(new is item for new, item in zip(items, value, strict=True)):
        return value
    # A named tuple is built by _make; tuple and torch's return types (of max, for example) take one iterable
    return getattr(type(value), "_make", type(value))(items)


def _detach_items(value: Any, seen: set[int], depth: int) -> None:
    if not isinstance(value, _CONTAINERS) or len(value) > _LONGEST:
        return
    if isinstance(value, set):
        items = [_detached(item, seen, depth) for item in value]
        value.clear()
        value.update(items)
        return
    for key, item in list(value.items() if isinstance(value, dict) else enumerate(value)):
        if (new := _detached(item, seen, depth)) is not item:
            value[key] = new


def _detach_attributes(value: Any, seen: set[int], depth: int) -> None:
    if isinstance(value, partial):
        args, keywords = (_detached(part, seen, depth) for part in (value.args, value.keywords))
        value.__setstate__((value.func, args, keywords, vars(value)))  # type: ignore[attr-defined]  # missing in typeshed
    slots = [getattr(cls, "__slots__", ()) for cls in type(value).__mro__]
    names = [*getattr(value, "__dict__", ()), *(name for own in slots for name in ([own] if isinstance(own, str) else own))]
    for name in names[:_LONGEST]:
        item = getattr(value, name, None)
        if (new := _detached(item, seen, depth)) is not item:
            # Also for a frozen data class
            object.__setattr__(value, name, new)
