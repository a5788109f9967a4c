"""The batches of gymnasium's vector environments, taken apart into what SB3 tells of each environment."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

Batch = np.ndarray | dict[str, np.ndarray]
"""Observations of all environments: (n_envs, *shape), or a dict of such arrays."""


def own_observations(space: spaces.Space[Any], observations: Any, copy: bool) -> Batch:
    """
    :param space: of one environment
    :param observations: as the vector environment returned them, also as arrays of another library
    :param copy: the environment may write to this memory later
    :return: arrays of the space's types that nobody else writes to
    """
    if isinstance(space, spaces.Dict):
        return {key: _array(observations[key], part.dtype, copy) for key, part in space.spaces.items()}
    return _array(observations, space.dtype, copy)


def own_observation(space: spaces.Space[Any], observation: Any) -> Any:
    """:return: a copy of one environment's observation, of the space's types"""
    return own_observations(space, observation, copy=True)


def _array(values: Any, dtype: Any, copy: bool) -> np.ndarray:
    return np.array(values, dtype=dtype) if copy else np.asarray(values, dtype=dtype)


def take(batch: Any, indices: np.ndarray) -> Any:
    """:return: a copy of some rows, shape (len(indices), *shape), or a dict of such copies"""
    return {key: part[indices] for key, part in batch.items()} if isinstance(batch, Mapping) else batch[indices]


def split_infos(info: Mapping[str, Any], indices: Iterable[int]) -> dict[int, dict[str, Any]]:
    """
    Hand out a vector environment's infos: of each ``key``, those environments get their entry that the mask ``_key`` names.
    Where there is no mask, everyone gets one; a value without entries goes to all. Dicts in dicts are handed out likewise.

    :param info: as ``VectorEnv.step`` and ``reset`` return it
    :param indices: environments that may be told something
    :return: from an environment's index to its own dict, for those who are told something
    """
    indices = list(indices) if info else []
    told: dict[int, dict[str, Any]] = {}
    for key, value in info.items():
        if _is_mask(info, key):
            continue
        named = info.get(f"_{key}")
        receivers = indices if named is None else [index for index in indices if named[index]]
        parts = split_infos(value, receivers) if isinstance(value, Mapping) else None
        for index in receivers:
            entry = _entry(value, index) if parts is None else parts.get(index, {})
            told.setdefault(index, {})[key] = entry
    return told


def _is_mask(info: Mapping[str, Any], key: str) -> bool:
    """An environment's own ``_key`` is none, unless it tells ``key`` as well, which gymnasium cannot keep apart either."""
    return key.startswith("_") and key[1:] in info and getattr(info[key], "dtype", None) == np.bool_


def _entry(value: Any, index: int) -> Any:
    if not isinstance(value, (np.ndarray, list, tuple)):
        return value
    entry = value[index]
    if isinstance(entry, np.generic):
        # What an environment told as a plain number, gymnasium put into an array
        return entry.item()
    return entry.copy() if isinstance(entry, np.ndarray) else entry
