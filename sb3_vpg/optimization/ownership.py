"""
Find the critic's parameters by autograd. A parameter on which a log-probability or an entropy depends is the actor's; one on
which only the value depends is the critic's. Names do not matter, so any ``ActorCriticPolicy`` works unchanged.

The policy is evaluated on members of the observation space, or, if it cannot evaluate those, on the first rollout. Of a
policy that chooses its layers by the observation, only the layers that were used are assigned.
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

from sb3_vpg.common.observations import stacked
from sb3_vpg.common.random_state import copy_streams, restore_streams
from sb3_vpg.optimization.graph import drop_graph
from sb3_vpg.optimization.steps import Steps

Owned = tuple[set[th.Tensor], set[th.Tensor]]
"""Parameters on which the actions depend, and parameters on which only the value depends."""


def owners(policy: ActorCriticPolicy, steps: Steps) -> Owned:
    """
    Return the actor's parameters and the critic's.

    :param policy: not changed, including frozen parameters, buffers and random streams
    :param steps: on which it is evaluated
    """
    parameters = [parameter for parameter in policy.parameters() if parameter.is_floating_point()]
    with _probing(policy), th.enable_grad():
        values, log_prob, entropy = steps.evaluate_actions(policy)
        actor = _reached([log_prob] if entropy is None else [log_prob, entropy], parameters)
        return actor, _reached([values], parameters) - actor


def owners_by_probe(policy: ActorCriticPolicy, steps_class: type[Steps]) -> Owned | None:
    """
    Call ``owners`` with members of the policy's spaces: those nearest to zero, or random ones if that fails.

    :return: None if the policy can evaluate neither
    """
    for make in (_zeros, _samples):
        try:
            observations = obs_as_tensor(stacked(make(policy.observation_space)), policy.device)
            # SB3 counts discrete actions from 0, even if the space does not
            members = stacked(make(policy.action_space)) - getattr(policy.action_space, "start", 0)
            actions = th.as_tensor(members, dtype=th.float32, device=policy.device)
            return owners(policy, steps_class(observations, actions.reshape(2, get_action_dim(policy.action_space))))
        except Exception:
            # The user's policy may accept only observations that the environment returns
            continue
    return None


@contextmanager
def _probing(policy: ActorCriticPolicy) -> Iterator[None]:
    """Set eval mode, so batch statistics stay, and unfreeze all parameters, so gradients reach them. Undo both at the end."""
    frozen = [parameter for parameter in policy.parameters() if parameter.is_floating_point() and not parameter.requires_grad]
    buffers = [
        (module, name, value, value.clone())
        for module in policy.modules()
        for name, value in module.named_buffers(recurse=False)
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
    """Return the member of the space that is nearest to zero, twice."""
    zero = _nearest_to_zero(space)
    if not space.contains(zero):
        raise ValueError(f"{zero} is not a member of {space}")
    return [zero, zero]


def _samples(space: spaces.Space[Any]) -> list[Any]:
    """Return two random members, the same in each call. They are drawn from a copy, to keep the space's random state."""
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
