"""
Whether a policy's modules are pure: called later and in a larger batch, they return the same for an observation.

Modules of torch and SB3 are pure in eval mode. A user's features extractor may keep a counter or running statistics, draw
random numbers, or compare the observations of a batch. So a copy of the policy's modules is called twice and compared.
"""

import pickle
from collections.abc import Callable
from typing import Any

import torch as th
from stable_baselines3.common.policies import ActorCriticPolicy, BaseModel
from stable_baselines3.common.utils import obs_as_tensor
from stable_baselines3.common.vec_env.base_vec_env import CloudpickleWrapper
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from sb3_vpg.common.libraries import is_library
from sb3_vpg.common.observations import n_observations
from sb3_vpg.common.random_state import copy_streams, restore_streams

Purity = tuple[list[nn.Module], bool]
"""The modules of a policy, and whether they are pure."""


def check_purity(policy: ActorCriticPolicy, observations: Any, before: Purity | None, verbose: int) -> Purity:
    """
    Call ``are_pure``, unless the result for the same modules is known.

    :param policy: see ``are_pure``
    :param observations: see ``are_pure``
    :param before: the result of the last call; None at first
    :param verbose: 1: print a message if the modules are not pure
    :return: the modules, and whether they are pure
    """
    modules = list(policy.modules())
    if before is not None and before[0] == modules:
        return before
    policy.set_training_mode(False)
    is_pure = are_pure(policy, observations)
    if verbose and not is_pure:
        print("The policy is called at each step, as in A2C, because a module of it may return other values if called later")
    return modules, is_pure


def are_pure(policy: ActorCriticPolicy, observations: Any) -> bool:
    """
    :param policy: a policy in eval mode whose methods are SB3's own
    :param observations: of N environments, as input for a copy of the modules
    :return: False if a call changes the state of a module or draws random numbers, if the outputs for an observation depend on
        the other observations, or if the modules cannot be copied or called
    """
    if all(_is_known(one) for one in list(policy.modules())[1:]):
        return True
    streams = copy_streams()
    try:
        return _returns_the_same(policy, obs_as_tensor(observations, policy.device))
    except Exception:
        # If the module itself fails, too, the user sees its error when the policy acts
        return False
    finally:
        restore_streams(streams)


def _is_known(module: nn.Module) -> bool:
    if isinstance(module, _BatchNorm) and module.running_mean is None:
        return False
    return is_library(type(module).__module__) and "forward" not in vars(module)


def _returns_the_same(policy: ActorCriticPolicy, observations: Any) -> bool:
    extractors = policy.pi_features_extractor, policy.vf_features_extractor
    parts = pickle.loads(_pickled([*extractors, policy.mlp_extractor, policy.action_net, policy.value_net])).var
    before = _pickled([parts, copy_streams()])
    outputs = _outputs(policy, parts, observations)
    if _pickled([parts, copy_streams()]) != before:
        return False
    try:
        extended = _outputs(policy, parts, _extended(observations, th.zeros_like))
    except Exception:
        # The module may not accept zeros
        extended = _outputs(policy, parts, _extended(observations, lambda rows: rows[:1]))
    n_rows = n_observations(observations)
    return all(
        th.allclose(more[:n_rows], one, rtol=1e-3, atol=1e-4 * max(1.0, float(one.abs().max())), equal_nan=True)
        for one, more in zip(outputs, extended, strict=True)
    )


def _outputs(policy: ActorCriticPolicy, parts: Any, observations: Any) -> list[th.Tensor]:
    actor, critic, body, action_net, value_net = parts
    with th.no_grad():
        features = [BaseModel.extract_features(policy, observations, one) for one in (actor, critic)]
        return [action_net(body.forward_actor(features[0])), value_net(body.forward_critic(features[1]))]


def _extended(observations: Any, more: Callable[[th.Tensor], th.Tensor]) -> Any:
    """Return the observations, followed by ``more(observations)``."""
    if isinstance(observations, dict):
        return {key: _extended(one, more) for key, one in observations.items()}
    return th.cat([observations, more(observations)])


def _pickled(value: Any) -> bytes:
    """Return the whole state of a value, also where it refers to functions and classes of the main script."""
    return pickle.dumps(CloudpickleWrapper(value))
