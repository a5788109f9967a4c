"""A bound on what torch allocates while a model is built from settings that a stranger chose."""

from collections.abc import Callable
from typing import Any

import torch as th
from torch.overrides import TorchFunctionMode

_SLACK = 2**24
_CALL = 2**11
_MAKERS = frozenset((th.empty, th.zeros, th.ones, th.full, th.rand, th.randn, th.randint, th.eye, th.arange, th.linspace))


class TooLargeError(ValueError):
    """The settings ask for more than the weights of the file fill."""


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
