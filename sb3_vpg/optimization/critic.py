"""
The critic's fit: steps of gradient descent on the squared error between its values and the returns.

``TorchCriticFit`` fits every critic. ``NumpyCriticFit`` fits plain networks with Adam, several times as fast where batches
are small: it writes the same derivative out, and the same step of Adam, without the price of the many calls. Its weights
agree with torch's to rounding, and which of the two runs is decided by ``regression``.
"""

from collections.abc import Iterable
from math import isfinite, sqrt
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch as th
from stable_baselines3.common.policies import ActorCriticPolicy
from torch.nn import functional as F
from torch.optim import Optimizer

from sb3_vpg.exceptions import NotFiniteError
from sb3_vpg.numpy_policy.eligibility import acts_as_sb3, is_plain_adam, is_watched_backward
from sb3_vpg.numpy_policy.networks import N_ROWS, NumpyNetwork, numpy_network
from sb3_vpg.optimization.optimizers import trainable_parameters
from sb3_vpg.optimization.updates import evaluate_values, take_step

Array = npt.NDArray[Any]
Batch = tuple[Any, ...]
"""Observations, returns and actions of some steps, as tensors; only policies with a way of their own need the actions."""
_MOMENTS = ("exp_avg", "exp_avg_sq")


class CriticFit(Protocol):
    """What the fit asks for."""

    def run(self, batches: Iterable[Batch]) -> list[float]:
        """
        :param batches: one for each step
        :return: the loss of each step, before it
        :raises NotFiniteError: if a loss or a gradient is not finite; the step is not taken then
        """


class TorchCriticFit:
    """
    :param policy: its values are fitted: ``predict_values``, or what ``evaluate_actions`` says where that may be another one
    :param optimizer: the critic's
    :param max_grad_norm: bound on the norm of the gradient
    """

    def __init__(self, policy: ActorCriticPolicy, optimizer: Optimizer, max_grad_norm: float) -> None:
        self.policy, self.optimizer, self.max_grad_norm = policy, optimizer, max_grad_norm

    def run(self, batches: Iterable[Batch]) -> list[float]:
        # Batch statistics may be the policy's as well: they have seen this rollout once, and stay
        for module in self.policy.modules():
            module.training = module.training and not any(True for _ in module.buffers(recurse=False))
        apart, losses = acts_as_sb3(self.policy, values=True), []
        for observations, returns, *actions in batches:
            if apart or not actions:
                values = self.policy.predict_values(observations)
            else:
                values = evaluate_values(self.policy, observations, *actions)
            loss = F.mse_loss(returns, values.flatten())
            take_step(self.optimizer, loss, self.max_grad_norm, "critic")
            losses.append(loss.item())
        return losses


class NumpyCriticFit:
    """
    :param network: the critic's, on the memory of its parameters
    :param optimizer: Adam with these parameters in a single group
    :param max_grad_norm: bound on the norm of the gradient
    """

    def __init__(self, network: NumpyNetwork, optimizer: th.optim.Adam, max_grad_norm: float) -> None:
        self.network, self.optimizer, self.max_grad_norm = network, optimizer, max_grad_norm
        self.parameters = [parameter for layer in network.linear_layers for parameter in layer.parameters()]
        self.views: list[Array] = [parameter.detach().numpy() for parameter in self.parameters]

    def run(self, batches: Iterable[Batch]) -> list[float]:
        state = [self.optimizer.state[parameter] for parameter in self.parameters]
        moments = [self._moment(state, name) for name in _MOMENTS]
        n_before = float(state[0]["step"]) if state[0] else 0.0
        losses: list[float] = []
        keeps_weights = True
        try:
            gradient = self._descend(batches, moments, n_before, losses)
        except NotFiniteError:
            # The weights will be those from before the fit, and so are the moments
            keeps_weights = False
            raise
        finally:
            if keeps_weights:
                self._remember(state, moments, n_before + len(losses))
        # Where torch leaves the gradient of its last step, for callbacks that log it
        for parameter, part in zip(self.parameters, self._parts(gradient), strict=True):
            parameter.grad = th.from_numpy(part.copy())
        return losses

    def _descend(self, batches: Iterable[Batch], moments: list[Array], n_before: float, losses: list[float]) -> Array:
        """:return: the gradient of the last step, bounded"""
        gradient = np.zeros_like(moments[0])
        # What overflows is refused by its number
        with np.errstate(all="ignore"):
            for observations, returns, *_ in batches:
                loss, gradient = self._gradient(observations.numpy(), returns.numpy())
                _bound(gradient, self.max_grad_norm, loss)
                self._step(gradient, moments, n_before + len(losses) + 1)
                losses.append(loss)
        return gradient

    def _parts(self, flat: Array) -> list[Array]:
        """:return: what belongs to each parameter, in its shape"""
        ends = np.cumsum([view.size for view in self.views])
        return [part.reshape(view.shape) for part, view in zip(np.split(flat, ends[:-1]), self.views, strict=True)]

    def _moment(self, state: list[dict[str, Any]], name: str) -> Array:
        """:return: Adam's running mean of that name, of all parameters; zero before the first step"""
        kept = [one[name].numpy() if one else np.zeros_like(view) for one, view in zip(state, self.views, strict=True)]
        return np.concatenate([moment.ravel() for moment in kept])

    def _gradient(self, observations: Array, returns: Array) -> tuple[float, Array]:
        """:return: mean squared error, and its gradient by all parameters, one after the other"""
        total, gradient = 0.0, np.zeros(sum(view.size for view in self.views), dtype=self.views[0].dtype)
        for start in range(0, len(returns), N_ROWS):
            rows = slice(start, start + N_ROWS)
            passed = self.network.trace(observations[rows])
            errors = passed[-1][:, 0] - returns[rows]
            total += float(np.vdot(errors, errors))
            parts = self.network.backward(passed, (2.0 / len(returns)) * errors[:, None])
            gradient += np.concatenate([part.ravel() for part in parts])
        return total / len(returns), gradient

    def _step(self, gradient: Array, moments: list[Array], n_steps: float) -> None:
        """Kingma & Ba 2015, https://arxiv.org/abs/1412.6980, in torch's order of operations."""
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
        start = 0
        for view in self.views:
            view -= step[start : start + view.size].reshape(view.shape)
            start += view.size

    def _remember(self, state: list[dict[str, Any]], moments: list[Array], n_steps: float) -> None:
        """Put the moments where the optimiser keeps them, so that it is saved, loaded and carried on as ever."""
        for name, flat in zip(_MOMENTS, moments, strict=True):
            for one, part in zip(state, self._parts(flat), strict=True):
                one[name] = th.from_numpy(part.copy())
        for one in state:
            one["step"] = th.tensor(n_steps, dtype=th.float32)


def critic_fit(policy: ActorCriticPolicy, optimizer: Optimizer, max_grad_norm: float) -> CriticFit:
    """
    :param policy: its critic is to be fitted
    :param optimizer: the critic's
    :param max_grad_norm: bound on the norm of the gradient
    :return: the faster way where it does the same
    """
    network = numpy_network(policy, "value_net") if acts_as_sb3(policy, values=True) else None
    if network is None or not is_plain_adam(optimizer):
        return TorchCriticFit(policy, optimizer, max_grad_norm)
    fitted = NumpyCriticFit(network, optimizer, max_grad_norm)
    # All of the network's parameters, none of them frozen, none twice, and no others
    complete = sorted(map(id, trainable_parameters(optimizer))) == sorted(map(id, fitted.parameters))
    # All have taken as many steps as the first
    state = [optimizer.state.get(parameter, {}) for parameter in fitted.parameters]
    complete = complete and len({float(one.get("step", 0.0)) for one in state}) == 1
    complete = complete and all(not one or one.keys() >= {"step", *_MOMENTS} for one in state)
    watched = is_watched_backward(policy.modules(), fitted.parameters)
    return fitted if complete and not watched else TorchCriticFit(policy, optimizer, max_grad_norm)


def _bound(gradient: Array, max_grad_norm: float, loss: float) -> None:
    norm = sqrt(float(np.vdot(gradient, gradient)))
    for quantity, number in (("loss", loss), ("gradient norm", norm)):
        if not isfinite(number):
            raise NotFiniteError(f"the {quantity} of the critic is {number}")
    if norm > max_grad_norm:
        gradient *= max_grad_norm / (norm + 1e-6)
