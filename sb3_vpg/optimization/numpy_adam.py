"""Adam in NumPy, on the memory of torch's parameters and with the state of torch's optimiser."""

from itertools import accumulate
from math import isfinite, sqrt
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.policies import ActorCriticPolicy
from torch.optim import Optimizer

from sb3_vpg.exceptions import NotFiniteError
from sb3_vpg.numpy_policy.eligibility import is_plain_adam, is_watched_backward
from sb3_vpg.numpy_policy.networks import Array
from sb3_vpg.optimization.optimizers import trainable_parameters

_MOMENTS = ("exp_avg", "exp_avg_sq")


class NumpyAdam:
    """
    Takes the steps of ``torch.optim.Adam``, whose calls cost more than the arithmetic of a small network. Call ``load``, then
    ``step`` any number of times, then ``store``. The optimiser's state changes only in ``store``.

    :param optimizer: Adam with one parameter group
    :param parameters: all of its parameters
    """

    def __init__(self, optimizer: th.optim.Adam, parameters: list[th.Tensor]) -> None:
        self.optimizer, self.parameters = optimizer, parameters
        self.views: list[Array] = [parameter.detach().numpy() for parameter in parameters]
        ends = [*accumulate(view.size for view in self.views)]
        self._slices = [slice(end - view.size, end) for end, view in zip(ends, self.views, strict=True)]

    def load(self) -> None:
        """Read the moments and the number of steps so far."""
        state = [self.optimizer.state[parameter] for parameter in self.parameters]
        self._moments = [self._moment(state, name) for name in _MOMENTS]
        self._n_steps = float(state[0]["step"]) if state[0] else 0.0
        self._change = np.empty_like(self._moments[0])
        self._changes = [*zip(self.views, self._parts(self._change), strict=True)]

    def _moment(self, state: list[dict[str, Any]], name: str) -> Array:
        """Return the moment of this name for all parameters, concatenated; zero before the first step."""
        parts = [entry[name].numpy() if entry else np.zeros_like(view) for entry, view in zip(state, self.views, strict=True)]
        return flattened(parts)

    def step(self, gradient: Array) -> None:
        """
        Take a step (Kingma & Ba 2015, https://arxiv.org/abs/1412.6980), in torch's order of operations.

        :param gradient: with respect to all parameters, concatenated
        """
        group = self.optimizer.param_groups[0]
        (beta1, beta2), (mean, square), change = map(float, group["betas"]), self._moments, self._change
        self._n_steps += 1.0
        mean += (1.0 - beta1) * (gradient - mean)
        square *= beta2
        square += (1.0 - beta2) * gradient * gradient
        np.sqrt(square, out=change)
        change /= sqrt(1.0 - beta2**self._n_steps)
        change += float(group["eps"])
        np.divide(mean, change, out=change)
        change *= float(group["lr"]) / (1.0 - beta1**self._n_steps)
        for view, part in self._changes:
            view -= part

    def store(self, gradient: Array) -> None:
        """
        Write the moments into the optimiser's state, so that they are saved and torch can continue.

        :param gradient: of the last step; it becomes the parameters' ``grad``, as in torch, since callbacks may log it
        """
        state = [self.optimizer.state[parameter] for parameter in self.parameters]
        for name, flat in zip(_MOMENTS, self._moments, strict=True):
            for entry, part in zip(state, self._parts(flat), strict=True):
                entry[name] = th.from_numpy(part.copy())
        for entry in state:
            entry["step"] = th.tensor(self._n_steps, dtype=th.float32)
        for parameter, part in zip(self.parameters, self._parts(gradient), strict=True):
            parameter.grad = th.from_numpy(part.copy())

    def _parts(self, flat: Array) -> list[Array]:
        """Return the part of each parameter, in its shape."""
        return [flat[rows].reshape(view.shape) for rows, view in zip(self._slices, self.views, strict=True)]


def numpy_adam(policy: ActorCriticPolicy, optimizer: Optimizer, parameters: list[th.Tensor]) -> NumpyAdam | None:
    """
    Return ``NumpyAdam``; None if it would not do the same as the optimiser, or if a hook observes the gradients.

    :param policy: the policy that has the parameters
    :param optimizer: the optimiser of these parameters
    :param parameters: the parameters whose gradient NumPy computes
    """
    # The optimiser must hold exactly these parameters, each once and none frozen
    if not is_plain_adam(optimizer) or sorted(map(id, trainable_parameters(optimizer))) != sorted(map(id, parameters)):
        return None
    state = [optimizer.state.get(parameter, {}) for parameter in parameters]
    is_regular = (
        # All parameters have taken the same number of steps
        len({float(entry.get("step", 0.0)) for entry in state}) == 1
        and all(not entry or entry.keys() >= {"step", *_MOMENTS} for entry in state)
        and not is_watched_backward(policy.modules(), parameters)
    )
    return NumpyAdam(optimizer, parameters) if is_regular else None


def check_and_clip(gradient: Array, max_grad_norm: float, loss: float, who: str) -> float:
    """
    Clip the gradient in place.

    :param gradient: the gradient with respect to all parameters, concatenated
    :param max_grad_norm: bound on its norm
    :param loss: the loss that has this gradient; it is only checked
    :param who: "policy" or "critic", for the error message
    :return: the norm before clipping
    :raises NotFiniteError: if the loss or the norm is not finite
    """
    norm = sqrt(float(np.vdot(gradient, gradient)))
    for quantity, number in (("loss", loss), ("gradient norm", norm)):
        if not isfinite(number):
            raise NotFiniteError(f"the {quantity} of the {who} is {number}")
    if norm > max_grad_norm:
        gradient *= max_grad_norm / (norm + 1e-6)
    return norm


def flattened(parts: list[Array]) -> Array:
    """Return the arrays as one flat array."""
    return np.concatenate([part.ravel() for part in parts])
