"""
Find the critic's parameters by autograd. A parameter on which a log-probability or an entropy depends is the actor's; one on
which only the value depends is the critic's. Names do not matter, so any ``ActorCriticPolicy`` works unchanged.

The question is put with observations: members of the observation space, and where the policy cannot evaluate those, the
first rollout. A policy that chooses its layers by the observation is judged by the layers that it used there.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.preprocessing import get_action_dim
from stable_baselines3.common.utils import obs_as_tensor

from sb3_vpg.common.random_state import copy_streams, restore_streams
from sb3_vpg.optimization.graph import drop_graph

Owned = tuple[set[th.Tensor], set[th.Tensor]]
"""Parameters on which the actions depend, and those on which the value alone depends."""


def owners(policy: ActorCriticPolicy, observations: Any, actions: th.Tensor) -> Owned:
    """
    :param policy: any; it is left as it was, frozen parameters, buffers and random streams included
    :param observations: of n steps, as the rollout buffer hands them over
    :param actions: of n steps, likewise, shape (n, A)
    :return: parameters of the actor, and of the critic alone
    """
    if isinstance(policy.action_space, spaces.Discrete):
        actions = actions.long().flatten()
    parameters = [parameter for parameter in policy.parameters() if parameter.is_floating_point()]
    with _probing(policy), th.enable_grad():
        values, log_prob, entropy = policy.evaluate_actions(observations, actions)
        actor = _reached([log_prob] if entropy is None else [log_prob, entropy], parameters)
        return actor, _reached([values], parameters) - actor


def owners_by_probe(policy: ActorCriticPolicy) -> Owned | None:
    """
    :return: what ``owners`` finds with members of the policy's spaces: zeros as far as the bounds allow them, or else
        samples. None if the policy can evaluate neither
    """
    for make in (_zeros, _samples):
        try:
            observations = obs_as_tensor(_batch(make(policy.observation_space)), policy.device)
            actions = th.as_tensor(_batch(_counted_from_zero(policy.action_space, make)), device=policy.device)
            return owners(policy, observations, actions.float().reshape(2, get_action_dim(policy.action_space)))
        except Exception:
            # The policy is the user's, and may need what only the environment knows
            continue
    return None


@contextmanager
def _probing(policy: ActorCriticPolicy) -> Iterator[None]:
    """Eval mode, so that no batch statistics move; and no parameter frozen, so that ownership is not a matter of that."""
    frozen = [parameter for parameter in policy.parameters() if parameter.is_floating_point() and not parameter.requires_grad]
    buffers = [
        (one, name, value, value.clone()) for one in policy.modules() for name, value in one.named_buffers(recurse=False)
    ]
    training, streams = policy.training, copy_streams()
    policy.set_training_mode(False)
    for parameter in frozen:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)
        with th.no_grad():
            for module, name, value, before in buffers:
                value.copy_(before)
                setattr(module, name, value)
        drop_graph(policy)
        policy.set_training_mode(training)
        restore_streams(streams)


def _reached(outputs: Sequence[th.Tensor], parameters: Sequence[th.Tensor]) -> set[th.Tensor]:
    total = sum(output.sum() for output in outputs)
    if not isinstance(total, th.Tensor) or not total.requires_grad:
        return set()
    gradients = th.autograd.grad(total, parameters, retain_graph=True, allow_unused=True)
    return {parameter for parameter, gradient in zip(parameters, gradients, strict=True) if gradient is not None}


def _zeros(space: spaces.Space[Any]) -> list[Any]:
    """:return: the member of the space that is nearest to zero, twice"""
    zero = _nearest_to_zero(space)
    if not space.contains(zero):
        raise ValueError(f"{zero} is no member of {space}")
    return [zero, zero]


def _samples(space: spaces.Space[Any]) -> list[Any]:
    """:return: two members, the same ones each time; from a copy, so that the space's own stream does not move"""
    copied = deepcopy(space)
    copied.seed(0)
    return [copied.sample(), copied.sample()]


def _nearest_to_zero(space: spaces.Space[Any]) -> Any:
    if isinstance(space, spaces.Dict):
        return {key: _nearest_to_zero(subspace) for key, subspace in space.items()}
    low: Any = 0
    high: Any = 0
    if isinstance(space, spaces.Box):
        low, high = space.low, space.high
    elif isinstance(space, spaces.Discrete):
        low, high = space.start, space.start + space.n - 1
    elif isinstance(space, spaces.MultiDiscrete):
        low, high = space.start, space.start + space.nvec - 1
    return np.clip(np.zeros(space.shape or (), dtype=space.dtype), low, high).astype(space.dtype)[()]


def _counted_from_zero(space: spaces.Space[Any], make: Any) -> list[Any]:
    """:return: two actions as policies know them: SB3's count a choice from 0, wherever the space begins"""
    start = space.start if isinstance(space, (spaces.Discrete, spaces.MultiDiscrete)) else 0
    return [action - start for action in make(space)]


def _batch(members: list[Any]) -> Any:
    if isinstance(members[0], dict):
        return {key: np.stack([member[key] for member in members]) for key in members[0]}
    return np.stack(members)
