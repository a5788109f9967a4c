"""Observations and infos of gymnasium's vector environments in the form that SB3's ``VecEnv`` returns."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

Batch = np.ndarray | dict[str, np.ndarray]
"""Observations of all environments: (n_envs, *shape), or a dict of such arrays."""


def own_observations(space: spaces.Space[Any], observations: Any, copy: bool) -> Batch:
    """
    :param space: of one environment
    :param observations: of all environments or of one, also as arrays of another library
    :param copy: True if the environment may write to this memory later
    :return: arrays of the space's types to which the environment does not write
    """
    if isinstance(space, spaces.Dict):
        return {key: _array(observations[key], part.dtype, copy) for key, part in space.spaces.items()}
    return _array(observations, space.dtype, copy)


def _array(values: Any, dtype: Any, copy: bool) -> np.ndarray:
    return np.array(values, dtype=dtype) if copy else np.asarray(values, dtype=dtype)


def split_infos(info: Mapping[str, Any], indices: Iterable[int]) -> dict[int, dict[str, Any]]:
    """
    Split the infos of a vector environment into one dict per environment. An environment gets its entry of ``key`` if the mask
    ``_key`` is True for it, or if there is no mask. A value without entries per environment goes to all. Nested dicts are
    split in the same way.

    :param info: as ``VectorEnv.step`` and ``reset`` return it
    :param indices: environments that may get infos
    :return: by index of the environment, for those that get any
    """
    indices = list(indices) if info else []
    split: dict[int, dict[str, Any]] = {}
    for key, value in info.items():
        if _is_mask(info, key):
            continue
        mask = info.get(f"_{key}")
        receivers = indices if mask is None else [index for index in indices if mask[index]]
        parts = split_infos(value, receivers) if isinstance(value, Mapping) else None
        for index in receivers:
            entry = _entry(value, index) if parts is None else parts.get(index, {})
            split.setdefault(index, {})[key] = entry
    return split


def _is_mask(info: Mapping[str, Any], key: str) -> bool:
    """:return: True if ``key`` is ``_x``, gymnasium's mask of the entry ``x``; not for an environment's own entry ``_x``"""
    return key.startswith("_") and key[1:] in info and getattr(info[key], "dtype", None) == np.bool_


def _entry(value: Any, index: int) -> Any:
    if not isinstance(value, (np.ndarray, list, tuple)):
        return value
    entry = value[index]
    if isinstance(entry, np.generic):
        # gymnasium has put the plain numbers of the environments into an array
        return entry.item()
    return entry.copy() if isinstance(entry, np.ndarray) else entry
