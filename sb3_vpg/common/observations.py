"""Batches of observations: arrays, or dicts of arrays."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def n_observations(observations: Any) -> int:
    """:return: the length of a batch"""
    return len(next(iter(observations.values())) if isinstance(observations, dict) else observations)


def take(observations: Any, indices: Any) -> Any:
    """:return: these rows of an array or tensor, or of each entry of a dict"""
    if isinstance(observations, dict):
        return {key: value[indices] for key, value in observations.items()}
    return observations[indices]


def put(batch: Any, indices: np.ndarray, rows: Any) -> None:
    """Write rows into a batch, shape (len(indices), *shape) or a dict of such arrays."""
    if isinstance(batch, Mapping):
        for key, part in batch.items():
            part[indices] = rows[key]
    else:
        batch[indices] = rows


def unstack(rows: Any) -> list[Any]:
    """:return: a list of single observations"""
    if isinstance(rows, Mapping):
        return [dict(zip(rows, row, strict=True)) for row in zip(*rows.values(), strict=True)]
    return list(rows)


def stacked(observations: Sequence[Any]) -> Any:
    """:return: a batch of single observations: an array, shape (n, *shape), or a dict of such arrays"""
    if isinstance(observations[0], dict):
        return {key: np.stack([observation[key] for observation in observations]) for key in observations[0]}
    return np.stack(observations)
