"""
A pretended GPU, so that tests of devices say something on a machine without one. Its tensors lie in the CPU's memory, but
behave as a GPU's where the two differ: they say that they are on ``cuda:0``, NumPy cannot read them, operations refuse to mix
them with tensors of the CPU, and each time that the CPU waits for one of their numbers is counted.
"""

from collections import Counter
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import torch as th
from torch.nn.utils import clip_grad
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

GPU = th.device("cuda", 0)
_DEVICE_OF, _IS_CUDA_OF = th.Tensor.device.__get__, th.Tensor.is_cuda.__get__
_GROUPS = "_group_tensors_by_device_and_dtype"
_FROM_DATA = (th.as_tensor, th.tensor)
_READS = {th.ops.aten._local_scalar_dense, th.ops.aten.equal, th.ops.aten.nonzero}
"""Operations whose result the CPU needs before it can go on."""
_MIXING = {th.ops.aten.copy_, th.ops.aten.index, th.ops.aten.index_put_, th.ops.aten._index_put_impl_}
"""Operations that may take tensors of two devices."""


def is_on_gpu(tensor: th.Tensor) -> bool:
    with th._C.DisableTorchFunction():
        return tensor.layout is th.strided and getattr(tensor.untyped_storage(), "is_on_gpu", False)


def _marked(tensor: th.Tensor, on_gpu: bool = True) -> th.Tensor:
    """Mark the memory, so that views and ``tensor.data`` are on the same device."""
    with th._C.DisableTorchFunction():
        if tensor.layout is th.strided:
            tensor.untyped_storage().is_on_gpu = on_gpu
    return tensor


def _tensors_in(value: Any) -> list[th.Tensor]:
    return [one for one in tree_leaves(value) if isinstance(one, th.Tensor)]


class PretendedGpu:
    """
    A context in which ``device="cuda"`` is the pretended GPU.

    ``counts``: how often the CPU waited for the GPU (``"reads"`` of a number, ``"from the GPU"`` for copies of tensors), and
    the copies ``"to the GPU"``.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.in_call = False  # of a function of torch that has an argument on the GPU
        self._stack = ExitStack()

    def __enter__(self) -> "PretendedGpu":
        self._stack.enter_context(patch.object(th.cuda, "is_available", lambda: True))
        self._stack.enter_context(patch.object(th, "load", _loaded(th.load)))
        self._stack.enter_context(patch.object(clip_grad, _GROUPS, _grouped(getattr(clip_grad, _GROUPS))))
        self._stack.enter_context(_Operations(self))
        self._stack.enter_context(_Functions(self))
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    @property
    def n_waits(self) -> int:
        return self.counts["reads"] + self.counts["from the GPU"]


def _grouped(group: Any) -> Any:
    """Tensors by device: written in C++, where the pretended GPU is not known."""

    def grouped(tensors: Any, *args: Any) -> Any:
        groups = group(tensors, *args)
        return {
            (GPU if is_on_gpu(held[0][0]) else device, dtype): (held, at) for (device, dtype), (held, at) in groups.items()
        }

    return grouped


def _loaded(load: Any) -> Any:
    def loaded(file: Any, map_location: Any = None, **kwargs: Any) -> Any:
        result = load(file, map_location="cpu", **kwargs)
        if map_location is not None and th.device(map_location).type == "cuda":
            for tensor in _tensors_in(result):
                _marked(tensor)
        return result

    return loaded


class _Functions(TorchFunctionMode):
    """What Python sees of a tensor: its device, and the ways to another device or to NumPy."""

    def __init__(self, gpu: PretendedGpu) -> None:
        super().__init__()
        self.gpu, self.counts = gpu, gpu.counts

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = dict(kwargs or {})
        if func == _DEVICE_OF and is_on_gpu(args[0]):
            return GPU
        if func == _IS_CUDA_OF:
            return is_on_gpu(args[0])
        if func in (th.Tensor.numpy, th.Tensor.__array__) and is_on_gpu(args[0]):
            raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy it to the CPU first")
        if func is th.Tensor.cpu:
            return self._moved(args[0], th.device("cpu"))
        if func is th.Tensor.to:
            other = args[1] if len(args) > 1 and isinstance(args[1], th.Tensor) else None
            if other is not None:
                return self._moved(args[0], GPU if is_on_gpu(other) else th.device("cpu"), other.dtype)
            device, dtype, *_ = th._C._nn._parse_to(*args[1:], **kwargs)
            return self._moved(args[0], device, dtype)
        if func is th.Tensor.tolist and is_on_gpu(args[0]):
            self.counts["from the GPU"] += 1
        if "device" in kwargs and func is not th._C._nn._parse_to:
            return self._created(func, args, kwargs)
        before, self.gpu.in_call = self.gpu.in_call, any(map(is_on_gpu, _tensors_in((args, kwargs))))
        try:
            return func(*args, **kwargs)
        finally:
            self.gpu.in_call = before

    def _created(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        device = None if kwargs["device"] is None else th.device(kwargs["device"])
        if device is None or device.type not in ("cpu", "cuda"):
            return func(*args, **kwargs)
        if func in _FROM_DATA and isinstance(args[0], th.Tensor):
            return self._moved(args[0], device, kwargs.get("dtype"))
        result = func(*args, **{**kwargs, "device": "cpu"})
        if device.type == "cpu":
            return result
        if func in _FROM_DATA:
            self.counts["to the GPU"] += 1
            # as_tensor shares the memory of an array
            result = result.clone()
        return _marked(result)

    def _moved(self, tensor: th.Tensor, device: th.device | None, dtype: th.dtype | None = None) -> th.Tensor:
        dtype = dtype or tensor.dtype
        to_gpu = is_on_gpu(tensor) if device is None else device.type == "cuda"
        if to_gpu is is_on_gpu(tensor):
            return tensor.to(dtype)
        self.counts["to the GPU" if to_gpu else "from the GPU"] += 1
        return _marked(tensor.to(dtype, copy=True), to_gpu)


class _Operations(TorchDispatchMode):
    """What operations do, in the backward pass, too: results are where the arguments are, which must be in one place."""

    def __init__(self, gpu: PretendedGpu) -> None:
        super().__init__()
        self.gpu, self.counts = gpu, gpu.counts

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        tensors, packet = _tensors_in((args, kwargs or {})), func.overloadpacket
        on_gpu = [one for one in tensors if is_on_gpu(one)]
        if not on_gpu:
            result = func(*args, **(kwargs or {}))
            if self.gpu.in_call and not tensors:
                # A function creates a tensor for its result, or the backward pass one for a gradient
                return _marked(result)
            return result
        elsewhere = [one for one in tensors if not is_on_gpu(one) and (one.dim() > 0 or packet in _MIXING)]
        if packet in _MIXING and elsewhere:
            self.counts["to the GPU" if is_on_gpu(args[0]) else "from the GPU"] += 1
        elif elsewhere:
            raise RuntimeError(f"Expected all tensors to be on the same device, but {func} has some on cuda:0 and some on cpu")
        self.counts["reads"] += packet in _READS
        result = func(*args, **(kwargs or {}))
        if packet not in _MIXING:
            for tensor in _tensors_in(result):
                _marked(tensor)
        elif packet is not th.ops.aten.copy_ and is_on_gpu(args[0]):
            _marked(result)
        return result
