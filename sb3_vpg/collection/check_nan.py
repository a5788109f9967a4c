"""
Numbers from the environment that nothing can be learned from: NaN, infinite, or so huge that their squares overflow.

They are found before anything is computed from them, and named: environment, step, quantity. The look costs one product of
each array with itself, which is small and a number if all of its entries are; only where it is not, they are looked at one
by one. ``VecNormalize`` averages over all environments, so that one NaN in one of them makes NaN of them all in the same
step: what it was given is looked at in each step.

Observations are looked at where SB3's own layers compute with them. A features extractor or a policy of the user's may know
how to read NaN: there it passes, and what counts is what comes out, the distribution over actions and the losses.

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
from sb3_vpg.vec_env.vec_normalize import are_statistics_finite, normalizers

LARGEST = 1e18
"""Numbers that are not smaller in magnitude are huge: their squares, which a critic's loss takes, come near float32's end."""
Index = tuple[int, ...]
_FORWARDS = {"forward", "forward_actor", "forward_critic"}


def first_invalid(numbers: np.ndarray, limit: float = LARGEST) -> Index | None:
    """
    :param numbers: of any shape; whole numbers are sound
    :param limit: sound numbers are smaller in magnitude
    :return: where the first unsound one is; None if there is none
    """
    if numbers.dtype.kind != "f" or float(np.vdot(numbers, numbers)) < limit * limit:
        return None
    # Many that are moderately large have a large product, too
    unsound = ~(np.abs(numbers) < np.float64(limit))
    position = int(unsound.argmax())
    return tuple(map(int, np.unravel_index(position, numbers.shape))) if unsound.flat[position] else None


def read_by_sb3(policy: Any, observations: Any) -> Any:
    """
    :param policy: any
    :param observations: an array, or a dict of arrays
    :return: those of them that SB3's own layers compute with; an empty dict where there are none
    """
    extractors = _sb3s_extractors(policy) if acts_as_sb3(policy) else []
    if not isinstance(observations, dict):
        return observations if extractors else {}
    read: set[str] = set()
    for one in extractors:
        parts = one.extractors.items() if _is_combined(one) else dict.fromkeys(observations, one).items()
        read.update(key for key, part in parts if _is_sb3s(part))
    return {key: array for key, array in observations.items() if key in read}


def _sb3s_extractors(policy: Any) -> list[Any]:
    """:return: the features extractors that are SB3's own and lead into a linear layer; none where a hook may intervene"""
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


def _is_sb3s(extractor: Any) -> bool:
    """:return: whether it hands on, or computes with, each number of an observation, as SB3's own extractors do"""
    return type(extractor) in (NatureCNN, nn.Flatten) or only_flattens(extractor)


def _is_combined(extractor: Any) -> bool:
    """:return: whether each key of a dict goes through a part of its own, which may be the user's"""
    return getattr(type(extractor), "forward", None) is CombinedExtractor.forward


def _judged(policy: Any, observations: Any) -> Any:
    """:return: what of them is not sound and should be, with more around it; an empty dict if all is well"""
    arrays = [array for _, array in _named(observations) if isinstance(array, np.ndarray)]
    return read_by_sb3(policy, observations) if any(first_invalid(array) is not None for array in arrays) else {}


def check_rollout(buffer: RolloutBuffer, last_obs: Any, policy: Any, reward: str = "reward") -> None:
    """
    :param buffer: filled
    :param last_obs: what followed its last row, (N, *shape) or a dict of such
    :param policy: which reads the observations
    :param reward: what to call the buffer's rewards
    :raises UnsoundNumberError: for the earliest unsound observation or reward
    """
    found = []
    for quantity, array in ((reward, buffer.rewards), *_named(_judged(policy, buffer.observations))):
        rows = _by_row(buffer, array)
        index = None if rows is None else first_invalid(rows)
        if rows is not None and index is not None:
            # A row holds the observation before a step, and the reward of the step
            step = index[0] + (quantity == reward)
            found.append(UnsoundNumberError(_entry(quantity, index[2:]), rows[index], index[1], step))
    for quantity, array in _named(_judged(policy, last_obs)):
        index = first_invalid(array)
        if index is not None:
            found.append(UnsoundNumberError(_entry(quantity, index[1:]), array[index], index[0], buffer.pos))
    if found:
        raise min(found, key=lambda error: error.step)


def check_terminal(observations: Any, rows: tuple[int, ...], envs: tuple[int, ...], policy: Any) -> None:
    """
    :param observations: last ones of n episodes that a time limit has ended, (n, *shape) or a dict of such
    :param rows: in which they ended
    :param envs: whose they are
    :param policy: which reads them
    :raises UnsoundNumberError: for an unsound one
    """
    for quantity, array in _named(_judged(policy, observations), "terminal observation"):
        index = first_invalid(array)
        if index is not None:
            episode = index[0]
            name = _entry(quantity, index[1:])
            raise UnsoundNumberError(name, array[index], envs[episode], rows[episode] + 1)


def invalid_observation(env: VecEnv, observations: Any, step: int, policy: Any) -> UnsoundNumberError | None:
    """
    What a policy cannot act on may be the environment's fault.

    :param env: the one that is learned from
    :param observations: what the policy was shown
    :param step: steps of the rollout before
    :param policy: itself
    :return: the error to raise if an observation is unsound; None if it is the policy's fault
    """
    layers = normalizers(env)
    for layer in layers[-1:]:
        found = _unsound_raw(layer, step, _raw_names(layers, policy))
        if found is not None:
            return found
    for quantity, array in _named(_judged(policy, observations)):
        index = first_invalid(array)
        if index is not None:
            return UnsoundNumberError(_entry(quantity, index[1:]), array[index], index[0], step)
    return None


def raw_check(env: VecEnv, policy: Any) -> Callable[[int], None] | None:
    """
    :param env: the one that is learned from
    :param policy: which reads the observations
    :return: a function to call after each step, with its number, from 1: it raises ``UnsoundNumberError`` if ``VecNormalize``
        was given a number that is NaN or infinite, or too large for its statistics. None without a ``VecNormalize``
    """
    layers = normalizers(env)
    if not layers:
        return None
    innermost, vdot, names = layers[-1], np.vdot, _raw_names(layers, policy)

    def check(step: int) -> None:
        observations, rewards = innermost.old_obs, innermost.old_reward
        # Each step pays for it. Where all rewards enter the statistics, these tell
        sound = isfinite(innermost.ret_rms.var if innermost.training else vdot(rewards, rewards))
        if type(observations) is np.ndarray:
            sound = sound and (not names or isfinite(vdot(observations, observations)))
        else:
            sound = sound and all(isfinite(vdot(observations[name], observations[name])) for name in names)
        found = None if sound else _unsound_raw(innermost, step, names)
        if found is not None:
            raise found

    return check


class _CheckedSteps:
    """
    Stands before an environment, which stays as it is: callbacks pickle a ``VecNormalize`` while it is stepped.

    :param env: to step
    :param check: called after each step, with its number, from 1
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
    """:return: the environment with ``raw_check`` in each ``step``, for a loop that is not ours"""
    check = raw_check(env, policy)
    checked: Any = env if check is None else _CheckedSteps(env, check)
    return checked  # type: ignore[no-any-return]  # as good as one, for who steps it


def _raw_names(layers: Sequence[VecNormalize], policy: Any) -> frozenset[str]:
    """
    :return: the keys of raw observations that are looked at before they are normalised, because they enter statistics or
        because SB3's own layers read them; of one array, some name or none
    """
    names: set[str] = set()
    space = layers[-1].observation_space
    every = list(space.spaces) if isinstance(space, spaces.Dict) else [""]
    for layer in layers:
        keys = layer.norm_obs_keys or every
        if layer.norm_obs:
            names.update(keys if layer.training else read_by_sb3(policy, dict.fromkeys(keys)))
    return frozenset(names.intersection(every))


def _unsound_raw(normalizer: VecNormalize, step: int, names: frozenset[str]) -> UnsoundNumberError | None:
    # It clips what is large, but neither NaN nor an infinity that has entered its statistics
    seen: Any = normalizer.old_obs
    seen = {name: seen[name] for name in names} if isinstance(seen, dict) else seen if names else {}
    raw = [part for part in (("reward", normalizer.old_reward), *_named(seen)) if part[1].size]
    for quantity, array in raw:
        index = first_invalid(array, limit=inf)
        if index is not None:
            return UnsoundNumberError(_entry(quantity, index[1:]), array[index], index[0], step)
    if are_statistics_finite([normalizer]):
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
    """:return: the name of one number in an array of that name"""
    if not index:
        return quantity
    return f"{quantity} (entry {index[0] if len(index) == 1 else index})"


def _by_row(buffer: RolloutBuffer, array: Any) -> np.ndarray | None:
    """:return: with shape (T, N, ...); None where a buffer of the user's keeps something else there"""
    n_rows, n_envs = buffer.buffer_size, buffer.n_envs
    if not isinstance(array, np.ndarray) or array.shape[:2] == (n_rows, n_envs):
        return array if isinstance(array, np.ndarray) else None
    if buffer.generator_ready and len(array) == n_rows * n_envs:
        # A callback has read it, which laid it out environment by environment
        return array.reshape(n_envs, n_rows, *array.shape[1:]).swapaxes(0, 1)
    return None
