"""
Checks of the environment's numbers. A number is invalid if it is NaN, infinite, or so huge that its square overflows.

An invalid number is reported with its quantity, environment and step, before anything is computed from it. The check takes
one dot product per array, which is finite and small if all entries are; only otherwise are the entries checked one by one.
``VecNormalize`` averages over all environments, so one NaN makes all observations NaN in the same step. Therefore its input
is checked at each step.

An observation is checked only if SB3's own layers read it. A user's features extractor or policy may have a use for NaN;
then only its results are checked: the distribution over actions and the losses.

N environments, T steps.
"""

from collections.abc import Callable, Sequence
from itertools import count
from math import inf, isfinite
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.torch_layers import CombinedExtractor, MlpExtractor, NatureCNN
from stable_baselines3.common.vec_env import VecEnv, VecNormalize
from torch import nn

from sb3_vpg.exceptions import UnsoundNumberError
from sb3_vpg.numpy_policy.eligibility import acts_as_sb3, forward_hooks, only_flattens
from sb3_vpg.policies import RECURRENT_POLICY, contrib_base
from sb3_vpg.vec_env.vec_normalize import are_statistics_finite, normalizers

LARGEST = 1e18
"""Limit of the magnitude of valid numbers. The critic's loss squares them, and float32 ends near 1e38."""
Index = tuple[int, ...]
_FORWARDS = {"forward", "forward_actor", "forward_critic"}


def first_invalid(numbers: np.ndarray, limit: float = LARGEST) -> Index | None:
    """
    :param numbers: array of any shape; integers are valid
    :param limit: valid numbers are smaller in magnitude
    :return: index of the first invalid number; None if there is none
    """
    if numbers.dtype.kind != "f" or float(np.vdot(numbers, numbers)) < limit * limit:
        return None
    # The product is also large for many moderately large numbers
    invalid = ~(np.abs(numbers) < np.float64(limit))
    position = int(invalid.argmax())
    return tuple(map(int, np.unravel_index(position, numbers.shape))) if invalid.flat[position] else None


def read_by_sb3(policy: Any, observations: Any) -> Any:
    """
    :param policy: any policy
    :param observations: an array, or a dict of arrays
    :return: the observations that SB3's own layers read; an empty dict if there are none
    """
    extractors = _sb3s_extractors(policy) if acts_as_sb3(policy) else _extractors_before_lstm(policy)
    if not isinstance(observations, dict):
        return observations if extractors else {}
    read: set[str] = set()
    for one in extractors:
        parts = one.extractors.items() if _is_combined(one) else dict.fromkeys(observations, one).items()
        read.update(key for key, part in parts if _is_sb3s(part))
    return {key: array for key, array in observations.items() if key in read}


def _sb3s_extractors(policy: Any) -> list[Any]:
    """Return SB3's own features extractors that are followed by a linear layer; none if a module has hooks."""
    body = policy.mlp_extractor
    changed = any(_FORWARDS & vars(one).keys() or any(forward_hooks([one])) for one in policy.modules())
    if changed or type(body) is not MlpExtractor:
        return []
    actor = (policy.pi_features_extractor, body.policy_net, policy.action_net)
    critic = (policy.vf_features_extractor, body.value_net, policy.value_net)
    return [
        extractor
        for extractor, hidden, head in (actor, critic)
        if (_is_sb3s(extractor) or _is_combined(extractor))
        and type(hidden) is nn.Sequential
        and type(next(hidden.children(), head)) is nn.Linear
    ]


def _extractors_before_lstm(policy: Any) -> list[Any]:
    """Return SB3's own features extractors that are followed by contrib's LSTM; none if a module has hooks."""
    if contrib_base(type(policy), RECURRENT_POLICY) is None:
        return []
    # Imports sb3_contrib, which takes time
    from sb3_vpg.optimization.sequence_steps import acts_as_contrib

    if not acts_as_contrib(policy):
        return []
    changed = any("forward" in vars(one) or any(forward_hooks([one])) for one in policy.modules())
    extractor = policy.pi_features_extractor
    return [extractor] if not changed and (_is_sb3s(extractor) or _is_combined(extractor)) else []


def _is_sb3s(extractor: Any) -> bool:
    """Return whether it is an extractor of SB3's that reads each number of an observation."""
    return type(extractor) in (NatureCNN, nn.Flatten) or only_flattens(extractor)


def _is_combined(extractor: Any) -> bool:
    """Return whether it has a separate extractor for each key of a dict, some of which may be the user's."""
    return getattr(type(extractor), "forward", None) is CombinedExtractor.forward


def _must_be_valid(policy: Any, observations: Any) -> Any:
    """Return the observations that must be valid, if there is an invalid number anywhere; else an empty dict."""
    arrays = [array for _, array in _named(observations) if isinstance(array, np.ndarray)]
    return read_by_sb3(policy, observations) if any(first_invalid(array) is not None for array in arrays) else {}


def check_rollout(buffer: RolloutBuffer, last_obs: Any, policy: Any, reward: str = "reward") -> None:
    """
    :param buffer: a full buffer
    :param last_obs: the observations after the last row, shape (N, *shape), or a dict of such arrays
    :param policy: the policy that reads the observations
    :param reward: name of the rewards in the error
    :raises UnsoundNumberError: for the earliest invalid observation or reward
    """
    found = []
    for quantity, array in ((reward, buffer.rewards), *_named(_must_be_valid(policy, buffer.observations))):
        rows = _by_row(buffer, array)
        index = None if rows is None else first_invalid(rows)
        if rows is not None and index is not None:
            # A row holds the observation before a step, and the reward of the step
            step = index[0] + (quantity == reward)
            found.append(UnsoundNumberError(_entry(quantity, index[2:]), rows[index], index[1], step))
    for quantity, array in _named(_must_be_valid(policy, last_obs)):
        index = first_invalid(array)
        if index is not None:
            found.append(UnsoundNumberError(_entry(quantity, index[1:]), array[index], index[0], buffer.pos))
    if found:
        raise min(found, key=lambda error: error.step)


def check_terminal(observations: Any, rows: tuple[int, ...], envs: tuple[int, ...], policy: Any) -> None:
    """
    :param observations: last observations of n episodes that a time limit ended, shape (n, *shape), or a dict of such arrays
    :param rows: the row of each
    :param envs: the environment of each
    :param policy: the policy that reads them
    :raises UnsoundNumberError: for an invalid observation
    """
    for quantity, array in _named(_must_be_valid(policy, observations), "terminal observation"):
        index = first_invalid(array)
        if index is not None:
            episode = index[0]
            name = _entry(quantity, index[1:])
            raise UnsoundNumberError(name, array[index], envs[episode], rows[episode] + 1)


def invalid_observation(env: VecEnv, observations: Any, step: int, policy: Any) -> UnsoundNumberError | None:
    """
    Find out whether an observation is why a policy has no valid distribution over actions.

    :param env: the environment that is learned from
    :param observations: input of the policy
    :param step: number of steps of the rollout before
    :param policy: the policy
    :return: the error to raise if an observation is invalid; None if all are valid
    """
    layers = normalizers(env)
    found = _invalid_input(layers[-1], step, _raw_names(layers, policy)) if layers else None
    if found is not None:
        return found
    for quantity, array in _named(_must_be_valid(policy, observations)):
        index = first_invalid(array)
        if index is not None:
            return UnsoundNumberError(_entry(quantity, index[1:]), array[index], index[0], step)
    return None


def raw_check(env: VecEnv, policy: Any) -> Callable[[int], None] | None:
    """
    :param env: the environment that is learned from
    :param policy: the policy that reads the observations
    :return: a function to call after each step with the number of the step, from 1. It raises ``UnsoundNumberError`` if the
        input of ``VecNormalize`` was NaN, infinite, or too large for its statistics. None without a ``VecNormalize``
    """
    layers = normalizers(env)
    if not layers:
        return None
    innermost, vdot, names = layers[-1], np.vdot, _raw_names(layers, policy)

    def check(step: int) -> None:
        observations, rewards = innermost.old_obs, innermost.old_reward
        # Fast, because it runs at each step. An invalid reward shows in the statistics if they are updated
        valid = isfinite(innermost.ret_rms.var if innermost.training else vdot(rewards, rewards))
        if type(observations) is np.ndarray:
            valid = valid and (not names or isfinite(vdot(observations, observations)))
        else:
            valid = valid and all(isfinite(vdot(observations[name], observations[name])) for name in names)
        found = None if valid else _invalid_input(innermost, step, names)
        if found is not None:
            raise found

    return check


class _CheckedSteps:
    """
    Wraps an environment without changing it, because callbacks may pickle a ``VecNormalize`` during a rollout.

    :param env: the environment
    :param check: called after each step with the number of the step, from 1
    """

    def __init__(self, env: VecEnv, check: Callable[[int], None]) -> None:
        self._env, self._check, self._numbers = env, check, count(1)

    def step(self, actions: np.ndarray) -> Any:
        result = self._env.step(actions)
        self._check(next(self._numbers))
        return result

    def __getattr__(self, name: str) -> Any:
        return getattr(self._env, name)


def checked_steps(env: VecEnv, policy: Any) -> VecEnv:
    """Return the environment with ``raw_check`` after each ``step``, for SB3's loop."""
    check = raw_check(env, policy)
    checked: Any = env if check is None else _CheckedSteps(env, check)
    return checked  # type: ignore[no-any-return]  # it forwards all attributes


def _raw_names(layers: Sequence[VecNormalize], policy: Any) -> frozenset[str]:
    """
    :return: the keys of observations to check before they are normalised, because they enter the statistics or because SB3's
        own layers read them. For an array: ``""`` if it is to be checked
    """
    names: set[str] = set()
    space = layers[-1].observation_space
    every = list(space.spaces) if isinstance(space, spaces.Dict) else [""]
    for layer in layers:
        keys = layer.norm_obs_keys or every
        if layer.norm_obs:
            names.update(keys if layer.training else read_by_sb3(policy, dict.fromkeys(keys)))
    return frozenset(names.intersection(every))


def _invalid_input(normalizer: VecNormalize, step: int, names: frozenset[str]) -> UnsoundNumberError | None:
    """Return the error for what ``raw_check`` finds in the last input of ``VecNormalize``; None if it is valid."""
    # VecNormalize clips large numbers, but neither NaN nor an infinity that has entered its statistics
    seen: Any = normalizer.old_obs
    seen = {name: seen[name] for name in names} if isinstance(seen, dict) else seen if names else {}
    raw = [part for part in (("reward", normalizer.old_reward), *_named(seen)) if part[1].size]
    for quantity, array in raw:
        index = first_invalid(array, limit=inf)
        if index is not None:
            return UnsoundNumberError(_entry(quantity, index[1:]), array[index], index[0], step)
    if are_statistics_finite(normalizer):
        return None
    quantity, array = max(raw, key=lambda part: float(np.abs(part[1]).max()))
    index = tuple(map(int, np.unravel_index(np.abs(array).argmax(), array.shape)))
    remark = ", too large for the statistics of VecNormalize,"
    return UnsoundNumberError(_entry(quantity, index[1:]), array[index], index[0], step, remark)


def _named(observations: Any, name: str = "observation") -> list[tuple[str, np.ndarray]]:
    if isinstance(observations, dict):
        return [(f"{name} {key!r}", array) for key, array in observations.items()]
    return [(name, observations)]


def _entry(quantity: str, index: Index) -> str:
    """Return the name of one number of an array."""
    if not index:
        return quantity
    return f"{quantity} (entry {index[0] if len(index) == 1 else index})"


def _by_row(buffer: RolloutBuffer, array: Any) -> np.ndarray | None:
    """Return an array of the buffer with shape (T, N, ...); None if a user's buffer has another layout."""
    n_rows, n_envs = buffer.buffer_size, buffer.n_envs
    if not isinstance(array, np.ndarray) or array.shape[:2] == (n_rows, n_envs):
        return array if isinstance(array, np.ndarray) else None
    if buffer.generator_ready and len(array) == n_rows * n_envs:
        # A callback has called get(), which reorders the arrays environment by environment
        return array.reshape(n_envs, n_rows, *array.shape[1:]).swapaxes(0, 1)
    return None
