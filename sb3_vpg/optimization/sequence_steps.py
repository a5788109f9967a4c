"""
The steps of a rollout as sequences, on which a recurrent policy is evaluated.

A sequence is an episode, or the part of one within the rollout. None is cut to fit into a minibatch. Shorter sequences are
padded to the length of the longest, and what the policy returns for the padding is dropped.

n steps, S sequences, L steps of the longest, K layers of the LSTM, H units.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch as th
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from stable_baselines3.common.distributions import Distribution
from typing_extensions import Self

from sb3_vpg.common.observations import take
from sb3_vpg.estimation.returns import Episodes
from sb3_vpg.optimization.steps import Steps, needs_no_values
from sb3_vpg.policies import original

_CONTRIBS = (
    "forward",
    "evaluate_actions",
    "get_distribution",
    "predict_values",
    "extract_features",
    "_process_sequence",
    "_get_action_dist_from_latent",
)


class SequenceSteps(Steps):
    """
    Steps that a policy reads in sequences, each from the states of the LSTMs before its first step.

    :param observations: see ``Steps``; likewise ``actions``
    :param sequences: of each step the number of its sequence, shape (n,); the steps of a sequence are in the order of time.
        None: each step is a sequence of its own
    :param times: of each step the time in its sequence, counted from 0, shape (n,)
    :param states: of the actor's and the critic's LSTM before the first step of each sequence, shapes (K, S, H); None: zeros
    """

    def __init__(
        self,
        observations: Any,
        actions: th.Tensor,
        sequences: th.Tensor | None = None,
        times: th.Tensor | None = None,
        states: RNNStates | None = None,
    ) -> None:
        super().__init__(observations, actions)
        self.sequences = th.arange(len(actions), device=actions.device) if sequences is None else sequences
        self.times = th.zeros_like(self.sequences) if times is None else times
        self.states = states
        shape = int(self.sequences.max()) + 1, int(self.times.max()) + 1
        # The place of each step in the padded batch, and the step whose inputs fill each place: the first, for padding
        self._places = self.sequences * shape[1] + self.times
        self._padded = th.zeros(shape[0] * shape[1], dtype=th.long, device=actions.device)
        self._padded[self._places] = th.arange(len(actions), device=actions.device)

    @classmethod
    def from_rollout(
        cls, observations: Any, actions: th.Tensor, episodes: Episodes, rows: np.ndarray, states: RNNStates
    ) -> Self:
        """
        :param observations: of the rollout's n steps; likewise ``actions``
        :param episodes: of the rollout
        :param rows: index among the n steps of each step of ``episodes``, shape (n,)
        :param states: with which the rollout began in each of N environments, shapes (K, N, H); zeros where an episode began
        """
        order = np.argsort(rows)
        sequences, times = (th.as_tensor(part[order], device=actions.device) for part in (episodes.episodes, episodes.times))
        first = np.flatnonzero(episodes.times == 0)
        # Only the first sequence of an environment may be the rest of an episode
        begun = th.as_tensor(episodes.rows[first] == 0, device=actions.device)[:, None]
        envs = th.as_tensor(episodes.envs[first], device=actions.device)
        return cls(observations, actions, sequences, times, _each(states, lambda one: one[:, envs].where(begun, 0.0)))

    def take(self, rows: th.Tensor) -> Self:
        """Return the steps of whole sequences."""
        chosen, sequences = th.unique(self.sequences[rows], return_inverse=True)
        states = None if self.states is None else _each(self.states, lambda state: state[:, chosen])
        return type(self)(take(self.observations, rows), self.actions[rows], sequences, self.times[rows], states)

    def minibatch_indices(self, size: int, rng: np.random.Generator, rows: np.ndarray | None = None) -> Iterator[th.Tensor]:
        """Yield the indices of all steps in random minibatches of whole sequences: as many as have up to ``size`` steps."""
        assert rows is None, "recurrent policies are refused under torchrun"
        lengths = self.sequences.bincount().tolist()
        part: list[int] = []
        n_steps = 0
        for sequence in rng.permutation(len(lengths)).tolist():
            if part and n_steps + lengths[sequence] > size:
                yield self._rows(part)
                part, n_steps = [], 0
            part.append(sequence)
            n_steps += lengths[sequence]
        yield self._rows(part)

    def evaluate_actions(self, policy: Any) -> tuple[th.Tensor, th.Tensor, th.Tensor | None]:
        """See ``Steps.evaluate_actions``; of each step, without the padding."""
        inputs, states, starts = self._inputs(policy)
        values, log_prob, entropy = policy.evaluate_actions(inputs, self._actions(policy)[self._padded], states, starts)
        return values[self._places], log_prob[self._places], None if entropy is None else entropy[self._places]

    def _log_prob_and_entropy(self, policy: Any, has_critic: bool) -> tuple[th.Tensor, th.Tensor | None]:
        if not needs_no_values(policy, has_critic, acts_as_contrib(policy)):
            _, log_prob, entropy = self.evaluate_actions(policy)
            return log_prob, entropy
        inputs, states, starts = self._inputs(policy)
        distribution: Distribution = policy.get_distribution(inputs, states.pi, starts)[0]
        log_prob, entropy = distribution.log_prob(self._actions(policy)[self._padded]), distribution.entropy()
        return log_prob[self._places], None if entropy is None else entropy[self._places]

    def values(self, policy: Any) -> th.Tensor:
        """See ``Steps.values``."""
        if not acts_as_contrib(policy):
            return self.evaluate_actions(policy)[0].flatten()
        inputs, states, starts = self._inputs(policy)
        values: th.Tensor = policy.predict_values(inputs, states.vf, starts)
        return values.flatten()[self._places]

    def _rows(self, sequences: list[int]) -> th.Tensor:
        return th.isin(self.sequences, th.tensor(sequences, device=self.sequences.device)).nonzero()[:, 0]

    def _inputs(self, policy: Any) -> tuple[Any, RNNStates, th.Tensor]:
        """Return observations, states and episode starts as contrib's policies take them, with padding."""
        n_sequences = int(self.sequences.max()) + 1
        states = initial_states(policy, n_sequences) if self.states is None else self.states
        # The states are those before each sequence, so no step is marked as the start of an episode, which would set them to
        # zero. Without such marks, contrib calls the LSTM once for all steps
        return take(self.observations, self._padded), states, th.zeros(len(self._padded), device=self._padded.device)


def acts_as_contrib(policy: Any) -> bool:
    """Return whether ``get_distribution`` and ``predict_values`` agree with ``forward``, because all are contrib's own."""
    policy = original(policy)
    own = all(getattr(type(policy), name) is getattr(RecurrentActorCriticPolicy, name) for name in _CONTRIBS)
    return own and vars(policy).keys().isdisjoint(_CONTRIBS)


def initial_states(policy: Any, n_sequences: int) -> RNNStates:
    """Return the states of the LSTMs where episodes begin: zeros, shapes (K, n_sequences, H)."""
    n_layers, _, n_units = policy.lstm_hidden_state_shape
    zeros = th.zeros(n_layers, n_sequences, n_units, device=policy.device)
    return RNNStates((zeros, zeros), (zeros, zeros))


def _each(states: RNNStates, change: Callable[[th.Tensor], th.Tensor]) -> RNNStates:
    return RNNStates(*(tuple(change(one).contiguous() for one in pair) for pair in states))
