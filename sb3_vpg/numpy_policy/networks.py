"""
The networks of SB3's policies, computed with NumPy on the memory of their parameters.

A small network takes NumPy a quarter of torch's time, most of which is the overhead of calls. The arrays share the memory of
the parameters, so they follow each step of an optimiser and ``p.data.add_()``. ``is_current`` notices when a parameter's
memory or a module has been replaced.
"""

from collections.abc import Callable
from itertools import chain, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import MlpExtractor
from torch import nn

from sb3_vpg.numpy_policy.eligibility import can_be_read_in_place, children, forward_hooks, only_flattens, parameters

Array = npt.NDArray[Any]
_ACTIVATIONS: dict[type[nn.Module], Callable[[Array, Array], Any]] = {
    nn.Tanh: np.tanh,
    # With a row of zeros: with a single 0, NumPy takes three times as long
    nn.ReLU: lambda x, out: np.maximum(x, np.zeros(x.shape[1], x.dtype), out=out),
    nn.Identity: lambda x, out: None,
}
"""Functions of input and output array, which may be the same array."""


def _through_tanh(y: Array, gradient: Array) -> Array:
    # In the memory of the output, which is no longer needed
    np.multiply(y, y, out=y)
    np.subtract(1.0, y, out=y)
    y *= gradient
    return y


_BACKWARD: dict[type[nn.Module], Callable[[Array, Array], Array]] = {
    nn.Tanh: _through_tanh,
    nn.ReLU: lambda y, gradient: gradient * (y > 0),
    nn.Identity: lambda y, gradient: gradient,
}
"""Functions of an activation's output and the gradient with respect to it; they return that with respect to its input."""
_LONGEST_TABLE = 1000
N_ROWS = 1024
"""Rows computed at a time: their activations fit into the processor's cache, which takes a third of the time of more rows."""


class NumpyNetwork:
    """
    From observations to outputs: flatten, then linear layers and activations.

    :param policy: the policy that has the network
    :param extractor: its features extractor, which flattens observations
    :param holders: the modules that contain the layers, and one another
    :param layers: linear layers and activations, in their order
    """

    def __init__(
        self, policy: ActorCriticPolicy, extractor: nn.Module, holders: list[nn.Module], layers: list[nn.Module]
    ) -> None:
        self._layers = layers
        self._policy, self._extractor = policy, extractor
        self._input_of = policy.observation_space, policy.normalize_images
        self._flatten = _flattening(policy.observation_space)
        self._dtype = np.dtype(np.float32)
        # Views of torch's dicts, in which replaced modules and parameters appear
        self._children = [children(holder).values() for holder in holders]
        self._built_children = [*chain.from_iterable(self._children)]
        modules = [*holders, *layers]
        self._hooks = forward_hooks(modules)
        # Replacing the forward method of an object adds an entry to its __dict__
        self._attributes = [vars(one) for one in modules]
        self._n_attributes = sum(map(len, self._attributes))
        self._modules, self._types = modules, [*map(type, modules)]
        # (transposed weight, bias) of a linear layer, or (None, function) of an activation
        self._steps: list[tuple[Array | None, Any]] = []
        for layer in layers:
            if not isinstance(layer, nn.Linear):
                self._steps.append((None, _ACTIVATIONS[type(layer)]))
                continue
            bias = None if layer.bias is None else layer.bias.detach().numpy()
            self._steps.append((layer.weight.detach().numpy().T, bias))
            self._dtype = layer.weight.detach().numpy().dtype
        self._parameters = [parameters(layer).values() for layer in self.linear_layers]
        self._tensors = [None if p is None else p.detach() for p in chain.from_iterable(self._parameters)]
        self._pointers = [None if p is None else p.data_ptr() for p in self._tensors]

    def is_current(self) -> bool:
        """Return whether modules and memory are still those of the policy, and no module has a hook."""
        if [*chain.from_iterable(self._children)] != self._built_children or any(self._hooks):
            return False
        return [None if p is None else p.data_ptr() for p in chain.from_iterable(self._parameters)] == self._pointers

    def is_bypassed(self) -> bool:
        """
        Return whether the policy may compute something else with the same modules and memory, because a method, a setting or
        the shape or strides of a parameter have been replaced since.
        """
        if self._n_attributes != sum(map(len, self._attributes)) or self._types != [*map(type, self._modules)]:
            return True
        space, normalizes = self._input_of
        if self._policy.observation_space is not space or self._policy.normalize_images != normalizes:
            return True
        for tensor, parameter in zip(self._tensors, chain.from_iterable(self._parameters), strict=False):
            # is_current notices other memory
            same_memory = tensor is not None and parameter is not None and tensor.data_ptr() == parameter.data_ptr()
            if same_memory and not tensor.is_set_to(parameter):
                return True
        return not only_flattens(self._extractor)

    def can_be_kept(self) -> bool:
        """Return whether ``numpy_network`` would build the same network again."""
        return self.is_current() and not self.is_bypassed() and can_be_read_in_place(self._modules)

    def __call__(self, observations: Array) -> Array:
        """
        :param observations: shape (n, *observation_space.shape)
        :return: outputs, shape (n, K)
        """
        if len(observations) <= N_ROWS:
            return self.trace(observations)[-1]
        starts = range(0, len(observations), N_ROWS)
        return np.concatenate([self.trace(observations[start : start + N_ROWS])[-1] for start in starts])

    @property
    def linear_layers(self) -> list[nn.Linear]:
        """The linear layers, in their order."""
        return [layer for layer in self._layers if isinstance(layer, nn.Linear)]

    @property
    def parameters(self) -> list[th.Tensor]:
        """The parameters of the linear layers: weight, bias, weight, …"""
        # By name: a layer may hold its bias first, or more parameters
        held = [parameter for layer in self.linear_layers for parameter in (layer.weight, layer.bias)]
        return [parameter for parameter in held if parameter is not None]

    def trace(self, observations: Array) -> list[Array]:
        """Return the input of each linear layer, in their order, and then the output of the network."""
        x = self._input(observations)
        passed = [x]
        for weight, bias_or_activation in self._steps:
            if weight is None:
                bias_or_activation(x, x)
                continue
            x = x.dot(weight)
            if bias_or_activation is not None:
                x += bias_or_activation
            passed.append(x)
        return passed

    def backward(self, passed: list[Array], gradient: Array) -> list[Array]:
        """
        Backpropagation.

        :param passed: result of ``trace``; it is overwritten
        :param gradient: of the loss with respect to the output, shape (n, K)
        :return: gradient of the loss with respect to each parameter of the linear layers: weight, bias, weight, …
        """
        parts: list[Array] = []
        entry, ones = len(passed) - 1, np.ones(len(gradient), gradient.dtype)
        for layer, (weight, _) in zip(reversed(self._layers), reversed(self._steps), strict=True):
            if weight is None:
                gradient = _BACKWARD[type(layer)](passed[entry], gradient)
                continue
            entry -= 1
            # A product with ones takes a third of the time of sum
            parts = [gradient.T.dot(passed[entry]), *([] if layer.bias is None else [ones.dot(gradient)]), *parts]
            if entry > 0:
                gradient = gradient.dot(weight.T)
        return parts

    def _input(self, observations: Array) -> Array:
        x = self._flatten(observations)
        return x if x.dtype == self._dtype else x.astype(self._dtype)


def numpy_network(policy: ActorCriticPolicy, head: str) -> NumpyNetwork | None:
    """
    :param policy: any policy
    :param head: ``"action_net"`` or ``"value_net"``, the last layer of the network
    :return: the network; None unless NumPy knows all its layers, they are on the CPU, and none has a hook
    """
    actor = head == "action_net"
    extractor: Any = getattr(policy, "pi_features_extractor" if actor else "vf_features_extractor", None)
    body: Any = policy.mlp_extractor
    if not only_flattens(extractor) or type(body) is not MlpExtractor:
        return None
    hidden = body.policy_net if actor else body.value_net
    if type(hidden) is not nn.Sequential:
        return None
    layers = [*hidden, getattr(policy, head)]
    if not _is_plain(policy.observation_space, policy.normalize_images) or not _are_known(layers):
        return None
    holders = [policy, body, hidden, extractor, extractor.flatten]
    if not can_be_read_in_place([*holders, *layers]) or any(forward_hooks([*holders, *layers])):
        return None
    return NumpyNetwork(policy, extractor, holders, layers)


def _are_known(layers: list[nn.Module]) -> bool:
    # The first must be linear, since an activation would overwrite the observation
    known = all(type(layer) in (nn.Linear, *_ACTIVATIONS) for layer in layers) and type(layers[0]) is nn.Linear
    # Activations must not be adjacent: the second would overwrite the output that the first needs for its gradient
    known = known and all(nn.Linear in (type(one), type(other)) for one, other in pairwise(layers))
    held = [parameter for layer in layers for parameter in layer.parameters()]
    on_cpu = all(p.device.type == "cpu" and p.layout is th.strided and p.dtype is held[0].dtype for p in held)
    return known and on_cpu and held[0].dtype in (th.float32, th.float64)


def _is_plain(space: spaces.Space[Any], normalize_images: bool) -> bool:
    if isinstance(space, spaces.Box):
        return not (normalize_images and is_image_space(space))
    # Integers are looked up in a one-hot table, whose size is the square of their number
    if isinstance(space, spaces.Discrete):
        return int(space.n) <= _LONGEST_TABLE
    if isinstance(space, spaces.MultiDiscrete):
        return int(space.nvec.max()) <= _LONGEST_TABLE
    return isinstance(space, spaces.MultiBinary)


def _flattening(space: spaces.Space[Any]) -> Callable[[Array], Array]:
    """Return a function that does what SB3's ``preprocess_obs`` and ``FlattenExtractor`` do to observations."""
    if isinstance(space, spaces.Discrete):
        rows = np.eye(int(space.n), dtype=np.float32)
        return lambda x: _looked_up(rows, x.reshape(-1), space)
    if isinstance(space, spaces.MultiDiscrete):
        tables = [np.eye(int(n), dtype=np.float32) for n in space.nvec.flat]
        return lambda x: _one_hot(tables, x.reshape(len(x), -1), space)
    return lambda x: x if x.ndim == 2 else x.reshape(len(x), -1)


def _one_hot(tables: list[Array], x: Array, space: spaces.Space[Any]) -> Array:
    columns = zip(tables, x.T, strict=True)
    return np.concatenate([_looked_up(rows, column, space) for rows, column in columns], axis=1)


def _looked_up(rows: Array, x: Array, space: spaces.Space[Any]) -> Array:
    """:raises ValueError: if a number has no row in the table"""
    try:
        # As unsigned integers, so that a negative one is out of bounds instead of an index from the end
        found: Array = rows[x.astype(np.intp).astype(np.uint32)]
    except IndexError:
        raise ValueError(f"observations between {x.min()} and {x.max()} are outside of {space}, counted from 0") from None
    return found
