"""The policy's step, in torch or in NumPy. NumPy is faster for small networks, where most of torch's time is overhead."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch as th
from stable_baselines3.common.policies import ActorCriticPolicy

from sb3_vpg.common.world import SINGLE_PROCESS, World
from sb3_vpg.estimation.diagnostics import Part, part_gradients
from sb3_vpg.numpy_policy.distributions import NumpyDistribution, is_supported, numpy_distribution
from sb3_vpg.numpy_policy.networks import N_ROWS, Array, NumpyNetwork, numpy_network
from sb3_vpg.numpy_policy.softmax import masked
from sb3_vpg.optimization.numpy_adam import NumpyAdam, check_and_clip, flattened, numpy_adam
from sb3_vpg.optimization.optimizers import trainable_parameters
from sb3_vpg.optimization.steps import Steps, needs_no_values
from sb3_vpg.optimization.updates import finite_numbers, take_step


class PolicyBatch(NamedTuple):
    """
    The steps that the policy learns from.

    :param steps: n of them
    :param advantages: of these steps, shape (n,)
    """

    steps: Steps
    advantages: th.Tensor


@dataclass(frozen=True)
class PolicyUpdate:
    """
    What the log shows of a step.

    :param policy_gradient_loss: minus the mean of advantage times log-probability
    :param entropy_loss: minus the mean of the entropy
    :param grad_norm: norm of the gradient before clipping
    """

    policy_gradient_loss: float
    entropy_loss: float
    grad_norm: float


class TorchPolicyStep:
    """
    The step in torch, for any policy.

    :param policy: its optimiser is the actor's
    :param batch: the steps to learn from
    :param max_grad_norm: bound on the norm of the gradient
    :param has_critic: whether the value network learns too; its batch norm must then see the rollout
    :param world: the processes whose gradients are summed; the batch is this one's
    """

    def __init__(
        self,
        policy: ActorCriticPolicy,
        batch: PolicyBatch,
        max_grad_norm: float,
        has_critic: bool,
        world: World = SINGLE_PROCESS,
    ) -> None:
        self.optimizer, self.max_grad_norm, self.world = policy.optimizer, max_grad_norm, world
        log_prob, self._entropy = batch.steps.evaluate(policy, has_critic)
        self._losses = -(batch.advantages * log_prob)

    def part_gradients(self, parts: Sequence[Part]) -> list[th.Tensor]:
        """
        :param parts: of the batch of all processes, with the rows of this one
        :return: for each part, the gradient of its loss without the entropy, shape (n_parameters,), of this process's rows;
            the order of the parameters is that of the optimiser in torch, and network first in NumPy
        """
        return part_gradients(self._losses, parts, trainable_parameters(self.optimizer))

    def run(self, n_terms: int, ent_coef: float) -> PolicyUpdate:
        """
        Take the step.

        :param n_terms: number of terms in the mean: of steps, or of episodes, of all processes
        :param ent_coef: weight of the entropy
        :return: losses and norm of the gradient before the step
        :raises NotFiniteError: if the loss or the gradient is not finite; the caller restores the weights
        """
        policy_loss, entropy_loss = self._losses.sum() / n_terms, -self._entropy.sum() / n_terms
        loss = policy_loss + ent_coef * entropy_loss if ent_coef else policy_loss
        losses = [loss, policy_loss, entropy_loss]
        norm, (loss, *shown) = take_step(self.optimizer, losses, self.max_grad_norm, self.world)
        ((_, grad_norm),) = finite_numbers([(loss, norm)], "policy")
        policy_number, entropy_number = th.stack(shown).tolist()
        return PolicyUpdate(policy_number, entropy_number, grad_norm)


class NumpyPolicyStep:
    """
    The same step as ``TorchPolicyStep``, to rounding.

    :param network: the actor's; it shares the memory of the parameters
    :param distribution: of the policy
    :param adam: of the parameters of both
    :param batch: the steps to learn from
    :param max_grad_norm: bound on the norm of the gradient
    :param world: the processes whose gradients are summed; the batch is this one's
    """

    def __init__(
        self,
        network: NumpyNetwork,
        distribution: NumpyDistribution,
        adam: NumpyAdam,
        batch: PolicyBatch,
        max_grad_norm: float,
        world: World = SINGLE_PROCESS,
    ) -> None:
        self.network, self.distribution, self.adam, self.max_grad_norm = network, distribution, adam, max_grad_norm
        self.world, steps = world, batch.steps
        self._arrays = [steps.observations.numpy(), steps.actions.numpy(), batch.advantages.numpy()]
        # The masks of the actions, if there are any
        self._arrays += [array.numpy() for array in steps.keywords.values()]

    def part_gradients(self, parts: Sequence[Part]) -> list[th.Tensor]:
        """See ``TorchPolicyStep.part_gradients``."""
        with np.errstate(all="ignore"):
            results = [self._loss([array[rows.numpy()] for array in self._arrays], n_terms) for rows, n_terms in parts]
        return [th.from_numpy(gradient) for _, _, gradient in results]

    def run(self, n_terms: int, ent_coef: float) -> PolicyUpdate:
        """See ``TorchPolicyStep.run``."""
        # An overflow is refused as a number that is not finite
        with np.errstate(all="ignore"):
            *losses, gradient = self._loss(self._arrays, n_terms, ent_coef)
            (policy_loss, entropy_loss), gradient = self.world.all_reduce_gradient(losses, gradient)
            norm = check_and_clip(gradient, self.max_grad_norm, policy_loss + ent_coef * entropy_loss, "policy")
            self.adam.load()
            self.adam.step(gradient)
            self.adam.store(gradient)
        return PolicyUpdate(policy_loss, entropy_loss, norm)

    def _loss(self, arrays: Sequence[Array], n_terms: int, ent_coef: float = 0.0) -> tuple[float, float, Array]:
        """Return the loss of the policy, that of the entropy, and the gradient of their weighted sum."""
        observations, actions_nA, advantages_n, *masks = arrays
        weights_n = advantages_n / np.float32(n_terms)
        policy_loss, entropy_sum, gradient = 0.0, 0.0, np.empty(0)
        for start in range(0, max(1, len(weights_n)), N_ROWS):
            rows = slice(start, start + N_ROWS)
            activations = self.network.trace(observations[rows])
            outputs = masked(activations[-1], masks[0][rows]) if masks else activations[-1]
            terms = self.distribution.terms(outputs, actions_nA[rows], weights_n[rows], ent_coef / n_terms)
            flat = flattened([*self.network.backward(activations, terms.gradient), *terms.own_gradients])
            gradient = flat if start == 0 else gradient + flat
            policy_loss -= float(weights_n[rows].dot(terms.log_prob))
            entropy_sum += float(terms.entropy.sum())
        return policy_loss, -entropy_sum / n_terms, gradient


def policy_step(
    policy: ActorCriticPolicy,
    batch: PolicyBatch,
    max_grad_norm: float,
    has_critic: bool,
    network: NumpyNetwork | None = None,
    world: World = SINGLE_PROCESS,
) -> TorchPolicyStep | NumpyPolicyStep:
    """
    Return ``NumpyPolicyStep`` if it computes the same, else ``TorchPolicyStep``.

    :param policy: its optimiser is the actor's
    :param batch: the steps to learn from
    :param max_grad_norm: bound on the norm of the gradient
    :param has_critic: whether the value network learns too; its batch norm must then see the rollout
    :param network: the actor's, if it has been built already
    :param world: the processes whose gradients are summed; the batch is this one's
    """
    known_inputs = batch.steps.keywords.keys() <= {"action_masks"}
    if known_inputs and needs_no_values(policy, has_critic) and is_supported(policy.action_dist):
        network = network or numpy_network(policy, "action_net")
        if network is not None:
            distribution: Any = numpy_distribution(policy)
            adam = _adam_of(policy, network, distribution)
            if adam is not None:
                return NumpyPolicyStep(network, distribution, adam, batch, max_grad_norm, world)
    return TorchPolicyStep(policy, batch, max_grad_norm, has_critic, world)


def _adam_of(policy: ActorCriticPolicy, network: NumpyNetwork, distribution: NumpyDistribution) -> NumpyAdam | None:
    n_outputs = network.linear_layers[-1].out_features
    if any(parameter.shape != (n_outputs,) for parameter in distribution.parameters):
        # One standard deviation for several actions, for example
        return None
    parameters: list[th.Tensor] = [*network.parameters, *distribution.parameters]
    return numpy_adam(policy, policy.optimizer, parameters)
