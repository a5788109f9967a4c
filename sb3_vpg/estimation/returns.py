"""
The mathematics of the policy gradient in NumPy: no environment, no network.

Shapes: T steps, N environments, E episodes, M steps of the longest one. ``x_TN`` is laid out as a rollout buffer is, and
``x_EM`` has an episode per row, from its first step, with zeros behind its end.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Episodes:
    """
    Where the steps of a rollout belong. What a rollout cuts at its first or last row counts as an episode of its own.

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
        :param counted_TN: the steps to keep; the others must not begin before an episode that is kept ends
        """
        begins_NT = starts_TN.T.astype(bool)
        begins_NT[:, 0] = True
        # Environment by environment, so that the steps of an episode stand in a row
        envs, rows = np.nonzero(counted_TN.T)
        first = np.flatnonzero(begins_NT[envs, rows])
        lengths_E = np.diff(np.append(first, len(rows)))
        episodes = np.repeat(np.arange(len(first)), lengths_E)
        times = np.arange(len(rows)) - np.repeat(first, lengths_E)
        return cls(rows, envs, episodes, times, lengths_E)

    @property
    def alive_EM(self) -> Bools:
        """True up to the end of each episode."""
        return np.arange(self.lengths_E.max()) < self.lengths_E[:, None]

    def gather(self, x_TN: Floats) -> Floats:
        """:return: ``x_EM``"""
        x_EM = np.zeros((len(self.lengths_E), self.lengths_E.max()))
        x_EM[self.episodes, self.times] = x_TN[self.rows, self.envs]
        return x_EM

    def scatter(self, x_EM: Floats, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        """:return: ``x_TN`` of this shape, zero at the steps that do not count"""
        x_TN = np.zeros(shape, dtype=np.float32)
        x_TN[self.rows, self.envs] = x_EM[self.episodes, self.times]
        return x_TN


def returns_to_go(rewards_EM: Floats, gamma: float) -> Floats:
    """
    Williams 1992: ``G_t = r_t + gamma * r_(t+1) + gamma^2 * r_(t+2) + …`` to the end of the episode.

    :return: ``G_EM``
    """
    returns_EM = np.zeros_like(rewards_EM)
    following_E: Floats = np.zeros(len(rewards_EM))
    for time in reversed(range(rewards_EM.shape[1])):
        following_E = rewards_EM[:, time] + gamma * following_E
        returns_EM[:, time] = following_E
    return returns_EM


def gae(rewards_TN: Floats, values_TN: Floats, goes_on_TN: Floats, last_values_N: Floats, gamma: float, lam: float) -> Floats:
    """
    Schulman et al. 2015, https://arxiv.org/abs/1506.02438: ``A_t = delta_t + gamma * lam * A_(t+1)`` with
    ``delta_t = r_t + gamma * V_(t+1) - V_t``, where what follows the end of an episode is worth nothing.

    :param rewards_TN: rewards
    :param values_TN: ``V_t``
    :param goes_on_TN: 1 where the next row belongs to the same episode, else 0
    :param last_values_N: value of what follows the last row
    :return: ``A_TN``
    """
    following_TN = np.concatenate([values_TN[1:], last_values_N[None]])
    advantages_TN: Floats = rewards_TN + gamma * goes_on_TN * following_TN - values_TN
    # Each pass doubles how far ahead a row has looked, so that there is no loop over the rows
    decays_TN, ahead = gamma * lam * goes_on_TN, 1
    while ahead < len(rewards_TN):
        advantages_TN[:-ahead] += decays_TN[:-ahead] * advantages_TN[ahead:]
        decays_TN[:-ahead] = decays_TN[:-ahead] * decays_TN[ahead:]
        ahead *= 2
    return advantages_TN


def total_returns(rewards_EM: Floats, gamma: float) -> Floats:
    """
    ``R = r_0 + gamma * r_1 + …`` at every step of the episode: the return-to-go from the first step.

    :return: ``R_EM``, constant along a row, also behind the end
    """
    returns_EM = returns_to_go(rewards_EM, gamma)
    return np.broadcast_to(returns_EM[:, :1], returns_EM.shape)
