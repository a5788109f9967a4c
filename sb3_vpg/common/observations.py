"""Observations in bulk: arrays, or dicts of arrays."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def n_observations(observations: Any) -> int:
    """:return: how many there are in an array, or in each array of a dict"""
    return len(next(iter(observations.values())) if isinstance(observations, dict) else observations)


def take(observations: Any, indices: Any) -> Any:
    """:return: these rows of an array or tensor, or of each entry of a dict of them"""
    if isinstance(observations, dict):
        return {key: value[indices] for key, value in observations.items()}
    return observations[indices]


def put(batch: Any, indices: np.ndarray, rows: Any) -> None:
    """Write rows, shape (len(indices), *shape) or a dict of such, into a batch."""
    if isinstance(batch, Mapping):
        for key, part in batch.items():
            part[indices] = rows[key]
    else:
        batch[indices] = rows


def unstack(rows: Any) -> list[Any]:
    """:return: the rows one by one; of a dict, a dict each"""
    if isinstance(rows, Mapping):
        return [dict(zip(rows, row, strict=True)) for row in zip(*rows.values(), strict=True)]
    return list(rows)


def stacked(observations: Sequence[Any]) -> Any:
    """:return: single observations as one array, shape (n, *shape), or as a dict of such"""
    if isinstance(observations[0], dict):
        return {key: np.stack([one[key] for one in observations]) for key in observations[0]}
    return np.stack(observations)
