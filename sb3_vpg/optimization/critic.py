"""The critic's fit: gradient descent on the mean squared error between its values and the returns."""

from collections.abc import Iterable
from itertools import accumulate
from math import isfinite, sqrt
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.policies import ActorCriticPolicy
from torch.nn import functional as F
from torch.optim import Optimizer

from sb3_vpg.exceptions import NotFiniteError
from sb3_vpg.numpy_policy.eligibility import acts_as_sb3, is_plain_adam, is_watched_backward
from sb3_vpg.numpy_policy.networks import N_ROWS, Array, NumpyNetwork, numpy_network
from sb3_vpg.optimization.optimizers import trainable_parameters
from sb3_vpg.optimization.updates import evaluate_values, take_step

Batch = tuple[Any, ...]
"""Tensors of some steps: observations, returns and actions. Only ``evaluate_values`` needs the actions."""
_MOMENTS = ("exp_avg", "exp_avg_sq")


class TorchCriticFit:
    """
    Fits every critic.

    :param policy: whose values are fitted: those of ``predict_values``, or those of ``evaluate_actions`` if they may differ
    :param optimizer: the critic's
    :param max_grad_norm: bound on the norm of the gradient
    """

    def __init__(self, policy: ActorCriticPolicy, optimizer: Optimizer, max_grad_norm: float) -> None:
        self.policy, self.optimizer, self.max_grad_norm = policy, optimizer, max_grad_norm

    def run(self, batches: Iterable[Batch]) -> list[float]:
        """
        Take one step per batch.

        :return: the loss of each batch before its step
        :raises NotFiniteError: if a loss or a gradient is not finite; the step is not taken then
        """
        # Eval mode for batch norm: the actor may share its statistics, and the policy's step has updated them already
        for module in self.policy.modules():
            module.training = module.training and not any(True for _ in module.buffers(recurse=False))
        values_alone, losses = acts_as_sb3(self.policy, values=True), []
        for observations, returns, *actions in batches:
            if values_alone or not actions:
                values = self.policy.predict_values(observations)
            else:
                values = evaluate_values(self.policy, observations, *actions)
            loss = F.mse_loss(returns, values.flatten())
            take_step(self.optimizer, loss, self.max_grad_norm, "critic")
            losses.append(loss.item())
        return losses


class NumpyCriticFit:
    """
    Fits a plain network with Adam, several times as fast for small batches, because NumPy's calls cost less than torch's. The
    weights are those of ``TorchCriticFit``, to rounding.

    :param network: the critic's; it shares the memory of the parameters
    :param optimizer: Adam with these parameters in one group
    :param max_grad_norm: bound on the norm of the gradient
    """

    def __init__(self, network: NumpyNetwork, optimizer: th.optim.Adam, max_grad_norm: float) -> None:
        self.network, self.optimizer, self.max_grad_norm = network, optimizer, max_grad_norm
        self.parameters = [parameter for layer in network.linear_layers for parameter in layer.parameters()]
        self.views: list[Array] = [parameter.detach().numpy() for parameter in self.parameters]
        ends = [*accumulate(view.size for view in self.views)]
        self.slices = [slice(end - view.size, end) for end, view in zip(ends, self.views, strict=True)]

    def run(self, batches: Iterable[Batch]) -> list[float]:
        """See ``TorchCriticFit.run``."""
        state = [self.optimizer.state[parameter] for parameter in self.parameters]
        moments = [self._moment(state, name) for name in _MOMENTS]
        n_before = float(state[0]["step"]) if state[0] else 0.0
        losses: list[float] = []
        # If it raises, rollback_unless_finite restores the weights, and the moments are unchanged
        gradient = self._descend(batches, moments, n_before, losses)
        self._store(state, moments, n_before + len(losses))
        # Callbacks may log the gradient of the last step, which torch leaves here
        for parameter, part in zip(self.parameters, self._parts(gradient), strict=True):
            parameter.grad = th.from_numpy(part.copy())
        return losses

    def _descend(self, batches: Iterable[Batch], moments: list[Array], n_before: float, losses: list[float]) -> Array:
        """Take the steps, and return the clipped gradient of the last one."""
        gradient = np.zeros_like(moments[0])
        # An overflow is refused as a number that is not finite
        with np.errstate(all="ignore"):
            for observations, returns, *_ in batches:
                loss, gradient = self._gradient(observations.numpy(), returns.numpy())
                _check_and_clip(gradient, self.max_grad_norm, loss)
                self._step(gradient, moments, n_before + len(losses) + 1)
                losses.append(loss)
        return gradient

    def _parts(self, flat: Array) -> list[Array]:
        """Return the part of each parameter, in its shape."""
        return [flat[rows].reshape(view.shape) for rows, view in zip(self.slices, self.views, strict=True)]

    def _moment(self, state: list[dict[str, Any]], name: str) -> Array:
        """Return Adam's moment of this name for all parameters, concatenated; zero before the first step."""
        parts = [entry[name].numpy() if entry else np.zeros_like(view) for entry, view in zip(state, self.views, strict=True)]
        return np.concatenate([part.ravel() for part in parts])

    def _gradient(self, observations: Array, returns: Array) -> tuple[float, Array]:
        """Return the mean squared error and its gradient with respect to all parameters, concatenated."""
        total, gradient = 0.0, np.empty(0)
        for start in range(0, len(returns), N_ROWS):
            rows = slice(start, start + N_ROWS)
            activations = self.network.trace(observations[rows])
            errors = activations[-1][:, 0] - returns[rows]
            total += float(np.vdot(errors, errors))
            parts = self.network.backward(activations, (2.0 / len(returns)) * errors[:, None])
            flat = np.concatenate([part.ravel() for part in parts])
            gradient = flat if start == 0 else gradient + flat
        return total / len(returns), gradient

    def _step(self, gradient: Array, moments: list[Array], n_steps: float) -> None:
        """Take a step of Adam (Kingma & Ba 2015, https://arxiv.org/abs/1412.6980), in torch's order of operations."""
        group = self.optimizer.param_groups[0]
        (beta1, beta2), (mean, square) = group["betas"], moments
        mean += (1.0 - beta1) * (gradient - mean)
        square *= beta2
        square += (1.0 - beta2) * gradient * gradient
        scale = np.sqrt(square)
        scale /= sqrt(1.0 - beta2**n_steps)
        scale += group["eps"]
        step = mean / scale
        step *= float(group["lr"]) / (1.0 - beta1**n_steps)
        for view, part in zip(self.views, self._parts(step), strict=True):
            view -= part

    def _store(self, state: list[dict[str, Any]], moments: list[Array], n_steps: float) -> None:
        """Write the moments into the optimiser's state, from where they are saved and torch can continue."""
        for name, flat in zip(_MOMENTS, moments, strict=True):
            for entry, part in zip(state, self._parts(flat), strict=True):
                entry[name] = th.from_numpy(part.copy())
        for entry in state:
            entry["step"] = th.tensor(n_steps, dtype=th.float32)


def critic_fit(
    policy: ActorCriticPolicy, optimizer: Optimizer, max_grad_norm: float, network: NumpyNetwork | None = None
) -> TorchCriticFit | NumpyCriticFit:
    """
    Return ``NumpyCriticFit`` if it computes the same, else ``TorchCriticFit``.

    :param policy: whose critic is fitted
    :param optimizer: the critic's
    :param max_grad_norm: bound on the norm of the gradient
    :param network: the critic's, if it has been built already
    """
    if not acts_as_sb3(policy, values=True):
        return TorchCriticFit(policy, optimizer, max_grad_norm)
    network = network or numpy_network(policy, "value_net")
    if network is None or not is_plain_adam(optimizer):
        return TorchCriticFit(policy, optimizer, max_grad_norm)
    fit = NumpyCriticFit(network, optimizer, max_grad_norm)
    state = [optimizer.state.get(parameter, {}) for parameter in fit.parameters]
    computes_the_same = (
        # The optimiser holds exactly the network's parameters, each once and none frozen
        sorted(map(id, trainable_parameters(optimizer))) == sorted(map(id, fit.parameters))
        # All parameters have taken the same number of steps
        and len({float(entry.get("step", 0.0)) for entry in state}) == 1
        and all(not entry or entry.keys() >= {"step", *_MOMENTS} for entry in state)
        and not is_watched_backward(policy.modules(), fit.parameters)
    )
    return fit if computes_the_same else TorchCriticFit(policy, optimizer, max_grad_norm)


def _check_and_clip(gradient: Array, max_grad_norm: float, loss: float) -> None:
    """Clip the gradient in place. Raises NotFiniteError if the loss or the gradient's norm is not finite."""
    norm = sqrt(float(np.vdot(gradient, gradient)))
    for quantity, number in (("loss", loss), ("gradient norm", norm)):
        if not isfinite(number):
            raise NotFiniteError(f"the {quantity} of the critic is {number}")
    if norm > max_grad_norm:
        gradient *= max_grad_norm / (norm + 1e-6)
