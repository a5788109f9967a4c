"""Limits for untrusted files: how deep their JSON is nested, and how much memory torch allocates for their settings."""

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch as th
from torch.overrides import TorchFunctionMode

from sb3_vpg.exceptions import TooLargeError

MAX_DEPTH = 300
"""The most levels of nested lists and objects. Python's own limit changes from release to release."""
_SLACK_BYTES = 2**24
_BYTES_PER_CALL = 2**11
_FACTORIES = frozenset((th.empty, th.zeros, th.ones, th.full, th.rand, th.randn, th.randint, th.eye, th.arange, th.linspace))


def is_too_deep(value: Any, limit: int = MAX_DEPTH) -> bool:
    """:return: True if JSON has more than ``limit`` levels of nested lists and objects"""
    level = [value]
    for _ in range(limit):
        if not level:
            return False
        parents = [item.values() if isinstance(item, dict) else item for item in level if isinstance(item, (dict, list))]
        level = [item for parent in parents for item in parent]
    return any(isinstance(item, (dict, list)) for item in level)


def loads(content: bytes) -> Any:
    """As ``json.loads``. :raises ValueError: also for JSON that is nested too deep"""
    with suppress(RecursionError):
        value = json.loads(content)
        # One level more: the values are in an object by name
        if not is_too_deep(value, MAX_DEPTH + 1):
            return value
    raise ValueError(f"it is nested more than {MAX_DEPTH} deep")


class LimitedMemory(TorchFunctionMode):
    """
    Limit the memory of the tensors that this thread creates within the context to a few times the size of the file's weights.
    The size of a tensor is computed before it is created. Two kilobytes are added for each, which also limits the number of
    empty tensors.

    :param stored: bytes of the weights
    :raises TooLargeError: when a tensor would exceed the limit
    """

    def __init__(self, stored: int) -> None:
        super().__init__()
        self.bytes_left = 4 * stored + _SLACK_BYTES

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _FACTORIES and kwargs.get("out") is None:
            sized = func(*args, **{**kwargs, "device": "meta", "pin_memory": False})
            self.bytes_left -= sized.numel() * sized.element_size() + _BYTES_PER_CALL
            if self.bytes_left < 0:
                raise TooLargeError("its settings ask for larger networks than it has weights")
        return func(*args, **kwargs)
