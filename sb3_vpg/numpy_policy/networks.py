"""
Plain networks read in place: the layers of an SB3 policy as NumPy sees them, on the memory of its parameters.

A small network costs NumPy a quarter of what it costs torch, whose price at this size is the calls and not the numbers.
The arrays are the parameters' own memory, so a step of an optimiser or ``p.data.add_()`` shows at once; a parameter whose
memory has been exchanged, or a module, is noticed by ``is_current``.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import MlpExtractor
from torch import nn

from sb3_vpg.numpy_policy.eligibility import children, forward_hooks, is_read_in_place, only_flattens, parameters

Array = npt.NDArray[Any]
_ACTIVATIONS: dict[type[nn.Module], Callable[[Array, Array], Any]] = {
    nn.Tanh: np.tanh,
    nn.ReLU: lambda x, out: np.maximum(x, 0.0, out=out),
    nn.Identity: lambda x, out: None,
}
"""From the input into the output, which is the same memory."""


def _through_tanh(y: Array, gradient: Array) -> Array:
    # On the memory of the output, which is not needed any more
    np.multiply(y, y, out=y)
    np.subtract(1.0, y, out=y)
    y *= gradient
    return y


_BACKWARD: dict[type[nn.Module], Callable[[Array, Array], Array]] = {
    nn.Tanh: _through_tanh,
    nn.ReLU: lambda y, gradient: gradient * (y > 0),
    nn.Identity: lambda y, gradient: gradient,
}
"""From an activation's output and the gradient by it to the gradient by its input."""
_LONGEST_TABLE = 1000
N_ROWS = 1024
"""So many at a time, since their activations fit into the processor's cache: a third of the time of many more."""


class NumpyNetwork:
    """
    Observations to outputs: flatten, linear layers, activations.

    :param policy: whose observations it takes
    :param extractor: the one that flattens them
    :param holders: the modules that hold the layers, and each other
    :param layers: what happens to the flat observation, in its order
    """

    def __init__(
        self, policy: ActorCriticPolicy, extractor: nn.Module, holders: list[nn.Module], layers: list[nn.Module]
    ) -> None:
        self._layers = layers
        self._policy, self._extractor = policy, extractor
        self._input_of = policy.observation_space, policy.normalize_images
        self._flatten = _flattening(policy.observation_space)
        self._dtype = np.dtype(np.float32)
        self._held = [(children(holder), list(children(holder).values())) for holder in holders]
        modules = [*holders, *layers]
        self._hooks = forward_hooks(modules)
        # A ``forward`` of the object's own would be one more entry
        self._own = [vars(one) for one in modules]
        self._n_own = sum(map(len, self._own))
        self._modules, self._kinds = modules, [*map(type, modules)]
        self._pointers = []
        self._steps: list[tuple[Array | None, Any]] = []
        for layer in layers:
            if not isinstance(layer, nn.Linear):
                self._steps.append((None, _ACTIVATIONS[type(layer)]))
                continue
            held = parameters(layer)
            self._pointers += [(held, name, None if p is None else p.data_ptr()) for name, p in held.items()]
            bias = None if layer.bias is None else layer.bias.detach().numpy()
            self._steps.append((layer.weight.detach().numpy().T, bias))
            self._dtype = layer.weight.detach().numpy().dtype

    def is_current(self) -> bool:
        """:return: whether it still reads what the policy would compute with: the same modules and memory, no hook"""
        for modules, held in self._held:
            if [*modules.values()] != held:
                return False
        for held_there, name, pointer in self._pointers:
            parameter = held_there.get(name)
            if (None if parameter is None else parameter.data_ptr()) != pointer:
                return False
        return not any(self._hooks)

    def is_bypassed(self) -> bool:
        """:return: whether a module may have been given a ``forward`` or a setting of its own since"""
        if self._n_own != sum(map(len, self._own)) or self._kinds != [*map(type, self._modules)]:
            return True
        space, normalizes = self._input_of
        if self._policy.observation_space is not space or self._policy.normalize_images != normalizes:
            return True
        return not only_flattens(self._extractor)

    def __call__(self, observations: Array) -> Array:
        """
        :param observations: shape (n, …), as environments and rollout buffers have them
        :return: shape (n, K)
        """
        if len(observations) <= N_ROWS:
            return self._run(observations)
        starts = range(0, len(observations), N_ROWS)
        return np.concatenate([self._run(observations[start : start + N_ROWS]) for start in starts])

    @property
    def linear_layers(self) -> list[nn.Linear]:
        """Those with parameters, in their order."""
        return [layer for layer in self._layers if isinstance(layer, nn.Linear)]

    def trace(self, observations: Array) -> list[Array]:
        """:return: the input of each linear layer, the output of the activation before it; and the output of the network"""
        passed = [self._input(observations)]
        for weight, then in self._steps:
            if weight is None:
                then(passed[-1], passed[-1])
                continue
            passed.append(passed[-1].dot(weight))
            if then is not None:
                passed[-1] += then
        return passed

    def backward(self, passed: list[Array], gradient: Array) -> list[Array]:
        """
        The chain rule, from the output back.

        :param passed: what ``trace`` returned; its memory is used up
        :param gradient: of the loss by the output, shape (n, K)
        :return: of the loss by each parameter of the linear layers: weight, bias, weight, …
        """
        parts: list[Array] = []
        entry = len(passed) - 1
        for layer, (weight, _) in zip(reversed(self._layers), reversed(self._steps), strict=True):
            if weight is None:
                gradient = _BACKWARD[type(layer)](passed[entry], gradient)
                continue
            entry -= 1
            parts = [gradient.T.dot(passed[entry]), *([] if layer.bias is None else [gradient.sum(axis=0)]), *parts]
            if entry > 0:
                gradient = gradient.dot(weight.T)
        return parts

    def _run(self, observations: Array) -> Array:
        x = self._input(observations)
        for weight, then in self._steps:
            if weight is None:
                then(x, x)
                continue
            x = x.dot(weight)
            if then is not None:
                x += then
        return x

    def _input(self, observations: Array) -> Array:
        x = self._flatten(observations)
        return x if x.dtype == self._dtype else x.astype(self._dtype)


def numpy_network(policy: ActorCriticPolicy, head: str) -> NumpyNetwork | None:
    """
    :param policy: any
    :param head: ``"action_net"`` or ``"value_net"``
    :return: the network that ends there, if it is made of parts that NumPy knows, lies on the CPU and has no hooks
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
    if not is_read_in_place([*holders, *layers]) or any(forward_hooks(policy.modules())):
        return None
    return NumpyNetwork(policy, extractor, holders, layers)


def _are_known(layers: list[nn.Module]) -> bool:
    # The first is linear, so that no activation works in place on an observation
    known = all(type(layer) in (nn.Linear, *_ACTIVATIONS) for layer in layers) and type(layers[0]) is nn.Linear
    # An activation's slope is read off its output, which the next one would overwrite
    known = known and all(nn.Linear in (type(one), type(other)) for one, other in pairwise(layers))
    held = [parameter for layer in layers for parameter in layer.parameters()]
    on_cpu = all(p.device.type == "cpu" and p.layout is th.strided and p.dtype is held[0].dtype for p in held)
    return known and on_cpu and held[0].dtype in (th.float32, th.float64)


def _is_plain(space: spaces.Space[Any], normalize_images: bool) -> bool:
    if isinstance(space, spaces.Box):
        return not (normalize_images and is_image_space(space))
    # Of whole numbers there is a table, whose size is the square of theirs
    if isinstance(space, spaces.Discrete):
        return int(space.n) <= _LONGEST_TABLE
    if isinstance(space, spaces.MultiDiscrete):
        return int(space.nvec.max()) <= _LONGEST_TABLE
    return isinstance(space, spaces.MultiBinary)


def _flattening(space: spaces.Space[Any]) -> Callable[[Array], Array]:
    """:return: what SB3's ``preprocess_obs`` and ``FlattenExtractor`` do to observations of the space"""
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
    """:raises ValueError: for a number that has no row"""
    try:
        # As unsigned numbers, so that a negative one is out of bounds instead of counting from the end
        found: Array = rows[x.astype(np.intp).astype(np.uint32)]
    except IndexError:
        raise ValueError(f"an observation between {x.min()} and {x.max()} is outside of {space}, counted from 0") from None
    return found
