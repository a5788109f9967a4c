"""
The actor of a policy with memory: the states of its LSTMs go from step to step, and begin anew with each episode.

N environments, K layers of an LSTM, H units.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch as th
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from stable_baselines3.common.utils import obs_as_tensor

from sb3_vpg.collection.actors import NO_KEYWORDS, invalid_distribution_errors
from sb3_vpg.common.world import SINGLE_PROCESS, World
from sb3_vpg.numpy_policy.networks import Array
from sb3_vpg.optimization.sequence_steps import acts_as_contrib


class RecurrentActor:
    """
    Acts as ``RecurrentPPO`` does: actions, log-probabilities and values are those of ``policy(observations, states, starts)``.
    Without a critic, its values and its LSTM are not computed.

    :param policy: a recurrent policy
    :param states: of its LSTMs before the first step, shapes (K, N, H)
    :param starts: function that returns whether an episode starts with the present observations, shape (N,)
    :param sde_sample_freq: number of steps after which gSDE draws new noise; -1: once per rollout
    :param has_critic: whether values are needed
    """

    defers_values = False

    def __init__(
        self,
        policy: RecurrentActorCriticPolicy,
        states: RNNStates,
        starts: Callable[[], Any],
        sde_sample_freq: int,
        has_critic: bool,
    ) -> None:
        self.policy: Any = policy
        self.states = self.states_before = states
        self.starts, self.sde_sample_freq = starts, sde_sample_freq
        self.needs_values = has_critic or not acts_as_contrib(policy)
        self.callback_locals = {"lstm_states": lambda: self.states, "episode_starts": self._starts}
        """What callbacks find in ``locals`` during a step, beside values and log-probabilities, as with ``RecurrentPPO``."""
        self._log_probs: list[th.Tensor] = []
        self._values: list[th.Tensor] = []

    def start(self, rng: np.random.Generator, world: World = SINGLE_PROCESS) -> None:
        self._log_probs, self._values = [], []

    @property
    def n_steps(self) -> int:
        """Number of steps for which it has chosen actions."""
        return len(self._log_probs)

    def fits(self) -> bool:
        return self.needs_values or acts_as_contrib(self.policy)

    def act(self, observations: Any, keywords: Mapping[str, Array] = NO_KEYWORDS) -> Array:
        n_steps, policy, starts = self.n_steps, self.policy, self._starts()
        self.states_before = self.states
        with th.no_grad(), invalid_distribution_errors():
            tensors: Any = obs_as_tensor(observations, policy.device)
            if policy.use_sde and (n_steps == 0 or (self.sde_sample_freq > 0 and n_steps % self.sde_sample_freq == 0)):
                policy.reset_noise(len(starts))
            if self.needs_values:
                actions, values, log_probs, self.states = policy(tensors, self.states, starts)
                self._values.append(values.clone())
            else:
                distribution, states = policy.get_distribution(tensors, self.states.pi, starts)
                actions = distribution.get_actions(deterministic=False)
                log_probs = distribution.log_prob(actions)
                actions = actions.reshape((-1, *policy.action_space.shape))
                self.states = RNNStates(states, self.states.vf)
            self._log_probs.append(log_probs.clone())
        sampled: Array = actions.cpu().numpy()
        return sampled

    def latest(self, observations: Any) -> tuple[th.Tensor, th.Tensor]:
        values = self._values[-1] if self._values else th.as_tensor(self.values(observations))[:, None]
        return values, self._log_probs[-1]

    def log_probs(self) -> Array:
        log_probs: Array = th.stack([one.flatten() for one in self._log_probs]).cpu().numpy()
        return log_probs

    def rollout_values(self, observations: Any, rows: slice) -> Array:
        values: Array = th.cat([one.flatten() for one in self._values[rows]]).cpu().numpy()
        return values

    def values(self, observations: Any) -> Array:
        """Return the values of the observations that follow the last step, shape (N,)."""
        with th.no_grad():
            tensors: Any = obs_as_tensor(observations, self.policy.device)
            values: Array = self.policy.predict_values(tensors, self.states.vf, self._starts()).flatten().cpu().numpy()
            return values

    def terminal_values(self, observations: Sequence[Any], envs: Sequence[int]) -> Array:
        """Return the value of the last observation of each episode that ends in these environments after the last step."""
        parts, no_start = [], th.zeros(1, device=self.policy.device)
        with th.no_grad():
            for observation, env in zip(observations, envs, strict=True):
                states = tuple(state[:, env : env + 1].contiguous() for state in self.states.vf)
                tensors = self.policy.obs_to_tensor(observation)[0]
                parts.append(self.policy.predict_values(tensors, states, no_start).flatten())
        values: Array = th.cat(parts).cpu().numpy()
        return values

    def _starts(self) -> th.Tensor:
        return th.as_tensor(np.asarray(self.starts(), dtype=np.float32), device=self.policy.device)
