"""Bounds on what a stranger's file may ask for: how deep its values lie, and what torch allocates for its settings."""

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch as th
from torch.overrides import TorchFunctionMode

from sb3_vpg.exceptions import TooLargeError

MAX_DEPTH = 300
"""How many lists and objects of a value may lie inside of each other. Python's own limit changes from release to release."""
_SLACK = 2**24
_CALL = 2**11
_MAKERS = frozenset((th.empty, th.zeros, th.ones, th.full, th.rand, th.randn, th.randint, th.eye, th.arange, th.linspace))


def is_too_deep(value: Any, limit: int = MAX_DEPTH) -> bool:
    """
    :param value: of the types of JSON
    :param limit: how many lists and objects may lie inside of each other
    :return: whether there are more
    """
    level = [value]
    for _ in range(limit):
        parents = [item.values() if isinstance(item, dict) else item for item in level if isinstance(item, (dict, list))]
        level = [item for parent in parents for item in parent]
    return any(isinstance(item, (dict, list)) for item in level)


def loads(content: bytes) -> Any:
    """
    :param content: JSON
    :return: what it says
    :raises ValueError: if it is none, or lies too deep
    """
    with suppress(RecursionError):
        value = json.loads(content)
        # One more: the object that gives the values their names
        if not is_too_deep(value, MAX_DEPTH + 1):
            return value
    raise ValueError(f"it holds values inside of values, more than {MAX_DEPTH} deep")


class LimitedMemory(TorchFunctionMode):
    """
    Within this context, of this thread alone, new tensors together take a few times as much as the file's weights, which they
    are to hold, and no setting can fill the memory. Each is weighed before it is made; each also counts as two kilobytes, so
    that millions of empty ones end as early.

    :param stored: bytes of the weights
    :raises TooLargeError: at the tensor that goes beyond
    """

    def __init__(self, stored: int) -> None:
        super().__init__()
        self.left = 4 * stored + _SLACK

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _MAKERS and kwargs.get("out") is None:
            weighed = func(*args, **{**kwargs, "device": "meta", "pin_memory": False})
            self.left -= weighed.numel() * weighed.element_size() + _CALL
            if self.left < 0:
                raise TooLargeError("its settings ask for larger networks than it has weights")
        return func(*args, **kwargs)
