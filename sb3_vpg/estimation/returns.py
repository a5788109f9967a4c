"""
Episodes of a rollout, and the returns and advantages of their steps, in NumPy.

Shapes: T steps, N environments, E episodes, M steps of the longest episode. The end of a name gives the array's dimensions:
``x_TN`` has the layout of a rollout buffer; ``x_EM`` has one row per episode, with zeros after the episode's end. Arrays of
other shapes are refused with a ``ValueError``.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Bools = npt.NDArray[np.bool_]


def check_shapes(**arrays: npt.NDArray[Any]) -> None:
    """
    Check the dimensions of arrays, since NumPy would broadcast different ones and give wrong numbers without an error.

    :param arrays: each under a name whose end gives its dimensions, one letter each, such as ``rewards_TN``
    :raises ValueError: if an array has another number of dimensions than letters, or if a letter stands for two sizes
    """
    sizes: dict[str, int] = {}
    for name, array in arrays.items():
        letters = name.rpartition("_")[2]
        if array.ndim != len(letters):
            raise ValueError(f"{name} must have the shape ({', '.join(letters)}), but has {array.shape}")
        for letter, size in zip(letters, array.shape, strict=True):
            if sizes.setdefault(letter, size) != size:
                raise ValueError(f"{name} must have {letter}={sizes[letter]}, but has the shape {array.shape}")


@dataclass(frozen=True)
class Episodes:
    """
    The episodes of a rollout. An episode that the rollout cuts at its first or last row counts as a complete one.

    :param rows: row in the buffer of each counted step, shape (n,), environment by environment
    :param envs: its environment, shape (n,)
    :param episodes: its episode, shape (n,), counted from 0 in the same order
    :param times: its time within the episode, shape (n,)
    :param lengths_E: steps of each episode
    """

    rows: npt.NDArray[np.intp]
    envs: npt.NDArray[np.intp]
    episodes: npt.NDArray[np.intp]
    times: npt.NDArray[np.intp]
    lengths_E: npt.NDArray[np.intp]

    @classmethod
    def of(cls, starts_TN: Floats, counted_TN: Bools) -> "Episodes":
        """
        :param starts_TN: nonzero where a step is the first of its episode
        :param counted_TN: True for the steps to keep. In each environment the steps left out come after all kept episodes
        """
        check_shapes(starts_TN=starts_TN, counted_TN=counted_TN)
        begins_NT = starts_TN.T.astype(bool)
        begins_NT[:, 0] = True
        # Environment by environment, so that the steps of an episode are neighbours
        envs, rows = np.nonzero(counted_TN.T)
        first = np.flatnonzero(begins_NT[envs, rows])
        lengths_E = np.diff(np.append(first, len(rows)))
        episodes = np.repeat(np.arange(len(first)), lengths_E)
        times = np.arange(len(rows)) - np.repeat(first, lengths_E)
        return cls(rows, envs, episodes, times, lengths_E)

    @classmethod
    def of_lengths(cls, lengths_E: npt.NDArray[np.intp]) -> "Episodes":
        """Return episodes of these lengths that are in no buffer, each in a row and an environment of its own."""
        episodes = np.repeat(np.arange(len(lengths_E)), lengths_E)
        times = np.arange(lengths_E.sum()) - np.repeat(np.cumsum(lengths_E) - lengths_E, lengths_E)
        return cls(times, episodes, episodes, times, lengths_E)

    @property
    def alive_EM(self) -> Bools:
        """True for the steps of each episode, False after its end."""
        return np.arange(self.lengths_E.max()) < self.lengths_E[:, None]

    def gather(self, x_TN: Floats) -> Floats:
        """Return ``x_EM`` of ``x_TN``."""
        return self.filled(x_TN[self.rows, self.envs])

    def filled(self, x_n: Floats) -> Floats:
        """Return ``x_EM`` of one number for each counted step, episode by episode."""
        x_EM = np.zeros((len(self.lengths_E), self.lengths_E.max()))
        x_EM[self.episodes, self.times] = x_n
        return x_EM

    def scatter(self, x_EM: Floats, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        """Return ``x_TN`` of this shape, zero at the steps that were left out."""
        x_TN = np.zeros(shape, dtype=np.float32)
        x_TN[self.rows, self.envs] = x_EM[self.episodes, self.times]
        return x_TN


def returns_to_go(rewards_EM: Floats, gamma: float) -> Floats:
    """
    Return ``G_t = r_t + gamma * r_(t+1) + gamma^2 * r_(t+2) + …`` to the end of the episode (Williams 1992).

    :return: ``G_EM``
    """
    check_shapes(rewards_EM=rewards_EM)
    returns_EM = np.zeros_like(rewards_EM)
    return_E: Floats = np.zeros(len(rewards_EM))
    for time in reversed(range(rewards_EM.shape[1])):
        return_E = rewards_EM[:, time] + gamma * return_E
        returns_EM[:, time] = return_E
    return returns_EM


def gae(
    rewards_TN: Floats, values_TN: Floats, continues_TN: Floats, last_values_N: Floats, gamma: float, lam: float
) -> Floats:
    """
    Return the generalised advantage estimate (Schulman et al. 2015, https://arxiv.org/abs/1506.02438):
    ``A_t = delta_t + gamma * lam * A_(t+1)`` with ``delta_t = r_t + gamma * V_(t+1) - V_t``, where ``A_(t+1)`` and
    ``V_(t+1)`` are 0 after the end of an episode.

    :param rewards_TN: rewards
    :param values_TN: ``V_t``
    :param continues_TN: 1 where the next row belongs to the same episode, else 0
    :param last_values_N: value of the observation after the last row
    :return: ``A_TN``
    """
    check_shapes(rewards_TN=rewards_TN, values_TN=values_TN, continues_TN=continues_TN, last_values_N=last_values_N)
    next_values_TN = np.concatenate([values_TN[1:], last_values_N[None]])
    advantages_TN: Floats = rewards_TN + gamma * continues_TN * next_values_TN - values_TN
    # Each pass doubles the number of rows that are summed, so there is no loop over the rows
    decays_TN, ahead = gamma * lam * continues_TN, 1
    while ahead < len(rewards_TN):
        advantages_TN[:-ahead] += decays_TN[:-ahead] * advantages_TN[ahead:]
        decays_TN[:-ahead] = decays_TN[:-ahead] * decays_TN[ahead:]
        ahead *= 2
    return advantages_TN


def total_returns(rewards_EM: Floats, gamma: float) -> Floats:
    """
    Return ``R = r_0 + gamma * r_1 + …`` for every step of the episode: the return-to-go from the first step.

    :return: ``R_EM``, constant along a row, also after the episode's end
    """
    returns_EM = returns_to_go(rewards_EM, gamma)
    return np.broadcast_to(returns_EM[:, :1], returns_EM.shape)
