"""
Two optimisers out of one policy: the actor's and the critic's.

Whose parameter is it? Autograd knows: what the log-probability or the entropy of an action depends on is the actor's,
and what only the value depends on is the critic's. No name is read, so any ``ActorCriticPolicy`` works unchanged.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.preprocessing import get_action_dim
from stable_baselines3.common.utils import obs_as_tensor
from torch.distributions import Distribution
from torch.optim import Optimizer


def split_optimizer(policy: ActorCriticPolicy, vf_learning_rate: float) -> Optimizer | None:
    """
    Take the critic's parameters out of ``policy.optimizer`` and give them an optimiser of their own, of the same class
    and with the same options, group by group.

    :param policy: a fresh policy, whose optimiser has not stepped yet
    :param vf_learning_rate: the critic's first step size
    :return: the critic's optimiser, or None where nothing belongs to the critic alone
    :raises ValueError: if no parameter belongs to the actor
    """
    actor = _actor_parameters(policy)
    if not actor:
        raise ValueError(f"{type(policy).__name__} has nothing to train: no parameter reaches its log-probabilities")
    critic_groups = []
    for group in policy.optimizer.param_groups:
        critic = [parameter for parameter in group["params"] if parameter not in actor]
        group["params"] = [parameter for parameter in group["params"] if parameter in actor]
        if critic:
            critic_groups.append({**group, "params": critic, "lr": vf_learning_rate})
        for parameter in critic:
            # Some optimisers, such as Adagrad, make their state at once
            policy.optimizer.state.pop(parameter, None)
    policy.optimizer.param_groups[:] = [group for group in policy.optimizer.param_groups if group["params"]]
    if not critic_groups:
        return None
    return type(policy.optimizer)(critic_groups, lr=vf_learning_rate)  # type: ignore[call-arg]  # every subclass has lr


def trainable_parameters(optimizer: Optimizer) -> list[th.Tensor]:
    """:return: what the optimiser holds and the user has not frozen"""
    return [parameter for group in optimizer.param_groups for parameter in group["params"] if parameter.requires_grad]


def _actor_parameters(policy: ActorCriticPolicy) -> set[th.Tensor]:
    """
    Evaluate two all-zero observations and look at what the gradient of log-probability and entropy reaches. Parameters
    that neither actor nor critic uses in this probe count as the actor's, where the policy itself had put them.
    """
    parameters = [parameter for parameter in policy.parameters() if parameter.is_floating_point()]
    observations = obs_as_tensor(_zeros(policy.observation_space), policy.device)
    # As the rollout buffer would hand them over
    actions = th.zeros((2, get_action_dim(policy.action_space)), device=policy.device)
    if isinstance(policy.action_space, spaces.Discrete):
        actions = actions.long().flatten()
    with _probing(policy), th.enable_grad():
        values, log_prob, entropy = policy.evaluate_actions(observations, actions)
        reached = _reached([log_prob] if entropy is None else [log_prob, entropy], parameters)
        only_critic = _reached([values], parameters) - reached
        # Once more without a graph: the policy keeps its last distribution, and a graph in it could not be deep-copied
        with th.no_grad():
            policy.evaluate_actions(observations, actions)
    return {parameter for parameter in policy.parameters() if reached and parameter not in only_critic}


@contextmanager
def _probing(policy: ActorCriticPolicy) -> Iterator[None]:
    """
    Eval mode, so that no batch statistics move; no parameter frozen, so that ownership is not a matter of that; and
    distributions unchecked, because a policy may well make NaN of zeros.
    """
    frozen = [parameter for parameter in policy.parameters() if parameter.is_floating_point() and not parameter.requires_grad]
    training, validate = policy.training, Distribution._validate_args
    policy.set_training_mode(False)
    Distribution.set_default_validate_args(False)
    for parameter in frozen:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        Distribution.set_default_validate_args(validate)
        for parameter in frozen:
            parameter.requires_grad_(False)
        policy.set_training_mode(training)


def _reached(outputs: Sequence[th.Tensor], parameters: Sequence[th.Tensor]) -> set[th.Tensor]:
    total = sum(output.sum() for output in outputs)
    if not isinstance(total, th.Tensor) or not total.requires_grad:
        return set()
    gradients = th.autograd.grad(total, parameters, retain_graph=True, allow_unused=True)
    return {parameter for parameter, gradient in zip(parameters, gradients, strict=True) if gradient is not None}


def _zeros(space: spaces.Space[Any]) -> Any:
    """:return: two all-zero elements of the space, in the form of a batch of observations"""
    if isinstance(space, spaces.Dict):
        return {key: _zeros(subspace) for key, subspace in space.items()}
    return np.zeros((2, *(space.shape or ())), dtype=space.dtype)
