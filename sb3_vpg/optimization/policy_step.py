"""The policy's step, in torch or in NumPy. NumPy is faster for small networks, where most of torch's time is overhead."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.policies import ActorCriticPolicy
from torch.optim import Optimizer

from sb3_vpg.numpy_policy.distributions import NumpyDistribution, is_supported, numpy_distribution
from sb3_vpg.numpy_policy.networks import N_ROWS, NumpyNetwork, numpy_network
from sb3_vpg.optimization.numpy_adam import NumpyAdam, check_and_clip, flattened, numpy_adam
from sb3_vpg.optimization.updates import needs_no_values, take_step


@dataclass(frozen=True)
class PolicyStep:
    """
    What the log shows of a step.

    :param policy_gradient_loss: minus the mean of advantage times log-probability
    :param entropy_loss: minus the mean of the entropy
    :param grad_norm: norm of the gradient before clipping
    """

    policy_gradient_loss: float
    entropy_loss: float
    grad_norm: float


def torch_policy_step(
    optimizer: Optimizer, losses: th.Tensor, entropy: th.Tensor, n_terms: int, ent_coef: float, max_grad_norm: float
) -> PolicyStep:
    """
    Take the step in torch.

    :param optimizer: the actor's
    :param losses: minus advantage times log-probability of each step, with their graph
    :param entropy: of each step, with its graph
    :param n_terms: number of terms in the mean: of steps, or of episodes
    :param ent_coef: weight of the entropy
    :param max_grad_norm: bound on the norm of the gradient
    :return: losses and norm of the gradient before the step
    :raises NotFiniteError: if the loss or the gradient is not finite; no step is taken then
    """
    policy_loss, entropy_loss = losses.sum() / n_terms, -entropy.sum() / n_terms
    loss = policy_loss + ent_coef * entropy_loss if ent_coef else policy_loss
    norm = take_step(optimizer, loss, max_grad_norm, "policy")
    return PolicyStep(policy_loss.item(), entropy_loss.item(), norm)


class NumpyPolicyStep:
    """
    Takes the step that torch would take, to rounding.

    :param network: the actor's; it shares the memory of the parameters
    :param distribution: of the policy
    :param adam: of the parameters of both
    :param max_grad_norm: bound on the norm of the gradient
    """

    def __init__(self, network: NumpyNetwork, distribution: NumpyDistribution, adam: NumpyAdam, max_grad_norm: float) -> None:
        self.network, self.distribution, self.adam, self.max_grad_norm = network, distribution, adam, max_grad_norm

    def run(self, observations: Any, actions: th.Tensor, advantages: th.Tensor, n_terms: int, ent_coef: float) -> PolicyStep:
        """
        Take the step.

        :param observations: of n steps, shape (n, *observation_space.shape)
        :param actions: of these steps, as the rollout buffer holds them, shape (n, A)
        :param advantages: of these steps, shape (n,)
        :param n_terms: number of terms in the mean: of steps, or of episodes
        :param ent_coef: weight of the entropy
        :return: losses and norm of the gradient before the step
        :raises NotFiniteError: if the loss or the gradient is not finite; no step is taken then
        """
        x, actions_nA, weights_n = observations.numpy(), actions.numpy(), advantages.numpy() / np.float32(n_terms)
        log_prob_loss, entropy_sum, gradient = 0.0, 0.0, np.empty(0)
        # An overflow is refused as a number that is not finite
        with np.errstate(all="ignore"):
            for start in range(0, len(weights_n), N_ROWS):
                rows = slice(start, start + N_ROWS)
                activations = self.network.trace(x[rows])
                terms = self.distribution.terms(activations[-1], actions_nA[rows], weights_n[rows], ent_coef / n_terms)
                flat = flattened([*self.network.backward(activations, terms.gradient), *terms.own_gradients])
                gradient = flat if start == 0 else gradient + flat
                log_prob_loss -= float(weights_n[rows].dot(terms.log_prob))
                entropy_sum += float(terms.entropy.sum())
            entropy_loss = -entropy_sum / n_terms
            norm = check_and_clip(gradient, self.max_grad_norm, log_prob_loss + ent_coef * entropy_loss, "policy")
            self.adam.load()
            self.adam.step(gradient)
            self.adam.store(gradient)
        return PolicyStep(log_prob_loss, entropy_loss, norm)


def numpy_policy_step(
    policy: ActorCriticPolicy, max_grad_norm: float, has_critic: bool, network: NumpyNetwork | None = None
) -> NumpyPolicyStep | None:
    """
    Return ``NumpyPolicyStep`` if it computes the same as torch, else None.

    :param policy: its optimiser is the actor's
    :param max_grad_norm: bound on the norm of the gradient
    :param has_critic: whether the value network learns too, so that its batch norm must see the rollout
    :param network: the actor's, if it has been built already
    """
    if not (needs_no_values(policy, has_critic) and is_supported(policy.action_dist)):
        return None
    network = network or numpy_network(policy, "action_net")
    if network is None:
        return None
    distribution: Any = numpy_distribution(policy)
    n_outputs = network.linear_layers[-1].out_features
    if any(parameter.shape != (n_outputs,) for parameter in distribution.parameters):
        # One standard deviation for several actions, for example
        return None
    parameters: list[th.Tensor] = [*network.parameters, *distribution.parameters]
    adam = numpy_adam(policy, policy.optimizer, parameters)
    return None if adam is None else NumpyPolicyStep(network, distribution, adam, max_grad_norm)
