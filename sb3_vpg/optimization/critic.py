"""The critic's fit: gradient descent on the mean squared error between its values and the returns."""

from collections.abc import Iterable

import numpy as np
import torch as th
from stable_baselines3.common.policies import ActorCriticPolicy
from torch.nn import functional as F
from torch.optim import Optimizer

from sb3_vpg.common.world import SINGLE_PROCESS, World
from sb3_vpg.numpy_policy.eligibility import acts_as_sb3
from sb3_vpg.numpy_policy.networks import N_ROWS, Array, NumpyNetwork, numpy_network
from sb3_vpg.optimization.numpy_adam import NumpyAdam, check_and_clip, flattened, numpy_adam
from sb3_vpg.optimization.steps import Steps
from sb3_vpg.optimization.updates import finite_numbers, take_step

Batch = tuple[Steps, th.Tensor]
"""Some steps and their returns."""


class TorchCriticFit:
    """
    Fits any critic, in torch.

    :param policy: its values are fitted: see ``Steps.values``
    :param optimizer: the critic's
    :param max_grad_norm: bound on the norm of the gradient
    :param world: the processes that have a part of each batch
    """

    def __init__(
        self, policy: ActorCriticPolicy, optimizer: Optimizer, max_grad_norm: float, world: World = SINGLE_PROCESS
    ) -> None:
        self.policy, self.optimizer, self.max_grad_norm, self.world = policy, optimizer, max_grad_norm, world

    def run(self, batches: Iterable[Batch]) -> list[float]:
        """
        Take one step per batch.

        :param batches: the parts of this process, in which there may be no steps
        :return: the loss of each batch before its step, over all processes
        :raises NotFiniteError: if a loss or a gradient is not finite; the caller restores the weights
        """
        # Eval mode for batch norm: the actor may share its statistics, and the policy's step has updated them already
        for module in self.policy.modules():
            module.training = module.training and not any(True for _ in module.buffers(recurse=False))
        taken = []
        for steps, returns in batches:
            values = steps.values(self.policy)
            # The mean over no steps would be NaN, but it has no weight
            loss = F.mse_loss(returns, values) if len(returns) else values.sum()
            norm, (loss,) = take_step(self.optimizer, [loss], self.max_grad_norm, self.world, len(returns))
            taken.append((loss, norm))
        return [loss for loss, _ in finite_numbers(taken, "critic")]


class NumpyCriticFit:
    """
    Fits a plain network with Adam, in NumPy. For small batches it is several times as fast as ``TorchCriticFit``, because
    NumPy's calls cost less than torch's. The weights are the same, to rounding.

    :param network: the critic's; it shares the memory of the parameters
    :param adam: of the network's parameters
    :param max_grad_norm: bound on the norm of the gradient
    :param world: the processes that have a part of each batch
    """

    def __init__(self, network: NumpyNetwork, adam: NumpyAdam, max_grad_norm: float, world: World = SINGLE_PROCESS) -> None:
        self.network, self.adam, self.max_grad_norm, self.world = network, adam, max_grad_norm, world

    def run(self, batches: Iterable[Batch]) -> list[float]:
        """See ``TorchCriticFit.run``."""
        losses: list[float] = []
        self.adam.load()
        gradient = np.zeros(sum(view.size for view in self.adam.views))
        # An overflow is refused as a number that is not finite. If it raises, rollback_unless_finite restores the weights
        with np.errstate(all="ignore"):
            for steps, returns in batches:
                loss, gradient = self._gradient(steps.observations.numpy(), returns.numpy())
                (loss,), gradient = self.world.all_reduce_gradient([loss], gradient, weight=len(returns))
                check_and_clip(gradient, self.max_grad_norm, loss, "critic")
                self.adam.step(gradient)
                losses.append(loss)
        self.adam.store(gradient)
        return losses

    def _gradient(self, observations: Array, returns: Array) -> tuple[float, Array]:
        """Return the mean squared error and its gradient with respect to all parameters, concatenated."""
        total, gradient, n_steps = 0.0, np.empty(0), max(1, len(returns))
        for start in range(0, n_steps, N_ROWS):
            rows = slice(start, start + N_ROWS)
            activations = self.network.trace(observations[rows])
            errors = activations[-1][:, 0] - returns[rows]
            total += float(np.vdot(errors, errors))
            flat = flattened(self.network.backward(activations, (2.0 / n_steps) * errors[:, None]))
            gradient = flat if start == 0 else gradient + flat
        return total / n_steps, gradient


def critic_fit(
    policy: ActorCriticPolicy,
    optimizer: Optimizer,
    max_grad_norm: float,
    network: NumpyNetwork | None = None,
    world: World = SINGLE_PROCESS,
) -> TorchCriticFit | NumpyCriticFit:
    """
    Return ``NumpyCriticFit`` if it computes the same, else ``TorchCriticFit``.

    :param policy: the policy whose critic is fitted
    :param optimizer: the critic's
    :param max_grad_norm: bound on the norm of the gradient
    :param network: the critic's, if it has been built already
    :param world: the processes that have a part of each batch
    """
    if acts_as_sb3(policy, values=True) and (network := network or numpy_network(policy, "value_net")) is not None:
        adam = numpy_adam(policy, optimizer, network.parameters)
        if adam is not None:
            return NumpyCriticFit(network, adam, max_grad_norm, world)
    return TorchCriticFit(policy, optimizer, max_grad_norm, world)
