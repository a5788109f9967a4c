"""
Whether a policy's modules may be called later, and with other observations beside, and still say the same.

Torch's and SB3's own modules may, in eval mode. A features extractor of the user's may keep a counter or running statistics,
draw random numbers, or compare the observations of a batch. So a copy of it is tried.
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

from sb3_vpg.common.observations import n_observations
from sb3_vpg.common.random_state import copy_streams, restore_streams

_LIBRARIES = {"torch", "stable_baselines3", "sb3_contrib", "sb3_vpg"}


Tried = tuple[list[nn.Module], bool]
"""Modules of a policy, and whether they are pure."""


def try_modules(policy: ActorCriticPolicy, observations: Any, before: Tried | None, verbose: int) -> Tried:
    """
    As ``are_pure``, for modules that have not been tried yet.

    :param before: what this function returned before; None at first
    :param verbose: 1 tells the user that modules are not pure
    """
    modules = list(policy.modules())
    if before is not None and before[0] == modules:
        return before
    policy.set_training_mode(False)
    is_pure = are_pure(policy, observations)
    if verbose and not is_pure:
        print("The policy is called at each step, as by A2C: one of its modules would return something else if called later")
    return modules, is_pure


def are_pure(policy: ActorCriticPolicy, observations: Any) -> bool:
    """
    :param policy: one whose methods are SB3's own, in eval mode
    :param observations: of N environments, with which a copy of its modules is tried
    :return: False where a call changes what a module remembers or draws random numbers, where the outputs for an observation
        depend on those beside it, and where the copy cannot be made or tried
    """
    if all(_is_known(one) for one in list(policy.modules())[1:]):
        return True
    streams = copy_streams()
    try:
        return _says_the_same(policy, obs_as_tensor(observations, policy.device))
    except Exception:
        # If the module itself cannot compute this, it will say so when the policy acts
        return False
    finally:
        restore_streams(streams)


def _is_known(module: nn.Module) -> bool:
    if isinstance(module, _BatchNorm) and module.running_mean is None:
        return False
    return type(module).__module__.partition(".")[0] in _LIBRARIES and "forward" not in vars(module)


def _says_the_same(policy: ActorCriticPolicy, observations: Any) -> bool:
    extractors = policy.pi_features_extractor, policy.vf_features_extractor
    parts = pickle.loads(_frozen([*extractors, policy.mlp_extractor, policy.action_net, policy.value_net])).var
    before = _frozen([parts, copy_streams()])
    outputs = _outputs(policy, parts, observations)
    if _frozen([parts, copy_streams()]) != before:
        return False
    try:
        beside = _outputs(policy, parts, _with(observations, th.zeros_like))
    except Exception:
        # It may refuse what no environment shows it
        beside = _outputs(policy, parts, _with(observations, lambda rows: rows[:1]))
    n_rows = n_observations(observations)
    return all(
        th.allclose(more[:n_rows], one, rtol=1e-3, atol=1e-4 * max(1.0, float(one.abs().max())), equal_nan=True)
        for one, more in zip(outputs, beside, strict=True)
    )


def _outputs(policy: ActorCriticPolicy, parts: Any, observations: Any) -> list[th.Tensor]:
    actor, critic, body, action_net, value_net = parts
    with th.no_grad():
        features = [BaseModel.extract_features(policy, observations, one) for one in (actor, critic)]
        return [action_net(body.forward_actor(features[0])), value_net(body.forward_critic(features[1]))]


def _with(observations: Any, more: Callable[[th.Tensor], th.Tensor]) -> Any:
    """:return: the observations, and below them what ``more`` makes of them"""
    if isinstance(observations, dict):
        return {key: _with(one, more) for key, one in observations.items()}
    return th.cat([observations, more(observations)])


def _frozen(value: Any) -> bytes:
    """:return: all that is remembered in there; functions and classes of a script are no obstacle"""
    return pickle.dumps(CloudpickleWrapper(value))
