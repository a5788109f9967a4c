"""
The critic's values of a rollout. SB3's loop computes them at each step; here, one batch does when the rollout is complete.

The values are the same as long as the critic's weights do not change during the rollout. Whoever changes the weights calls
``catch_up`` before and ``note_weights`` after. Any other change raises an error.

N environments, T steps.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import MlpExtractor
from torch.nn.parameter import is_lazy

from sb3_vpg.collection.actors import Actor, LeanActor
from sb3_vpg.collection.agreement import TimeOut
from sb3_vpg.collection.buffers import flat_observations
from sb3_vpg.collection.check_nan import check_terminal
from sb3_vpg.common.observations import stacked, take
from sb3_vpg.numpy_policy.networks import Array


class LateValues:
    """
    The values of one rollout, log-probabilities included.

    :param actor: acts in the rollout
    :param buffer: the rollout buffer
    :param has_critic: whether values are needed
    """

    def __init__(self, actor: Actor, buffer: RolloutBuffer, has_critic: bool) -> None:
        self.actor, self.buffer, self.has_critic = actor, buffer, has_critic
        self.gathers = isinstance(actor, LeanActor) and actor.gathers(has_critic)
        """Whether each process of torchrun makes the whole update; then ``write`` leaves time-outs to ``bootstrap``."""
        self._time_outs: list[TimeOut] = []
        self._n_rows = 0
        self._parts: list[Array] = []
        self._bootstraps: list[tuple[list[int], list[int], Array]] = []
        self._shown: list[tuple[int, Mapping[str, Any]]] = []
        self.note_weights()

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy of the model, or a model from a file, is not in the middle of a rollout
        return type(None), ()

    def note_weights(self) -> None:
        """Compute the values of later steps with the present weights."""
        tensors = _critic_tensors(self.actor.policy) if self.has_critic and self.actor.defers_values else []
        self._weights = [(one, None if is_lazy(one) else one.detach().clone()) for one in tensors]

    def catch_up(self) -> None:
        """
        Compute the values of all steps so far, including a step that is in progress.

        :raises ValueError: if the weights have changed since ``note_weights``
        """
        if self.has_critic:
            self._check_weights()
            self._compute_rows(min(self.buffer.pos + 1, self.buffer.buffer_size))
            self._compute_time_outs()

    def add_time_out(self, row: int, env: int, observation: Any) -> None:
        """
        Note an episode that a time limit has ended.

        :param row: of its last step
        :param env: index of its environment
        :param observation: its last observation
        """
        self._time_outs.append((row, env, observation))
        if not self.actor.defers_values:
            # Modules that change when they are called are called in the order of SB3's loop
            self.catch_up()

    def remember(self, shown: Mapping[str, Any]) -> None:
        """:param shown: tensors of this step that a callback has read, and may have written to, as with SB3's loop"""
        self._shown.append((self.buffer.pos, shown))

    def write(self) -> None:
        """
        Write log-probabilities and values into the full buffer. At a time-out, add the discounted value of the last
        observation to the reward, as SB3's loop does.

        :raises ValueError: if the weights have changed since ``note_weights``
        :raises UnsoundNumberError: if the last observation of an episode is NaN, infinite or huge
        """
        buffer = self.buffer
        buffer.log_probs = self.actor.log_probs().astype(np.float32, copy=False)
        if self.has_critic:
            self._check_weights()
            self._compute_rows(buffer.pos)
            if not self.gathers:
                self._compute_time_outs()
            buffer.values = np.concatenate(self._parts).astype(np.float32, copy=False).reshape(buffer.rewards.shape)
            for rows, envs, values in self._bootstraps:
                buffer.rewards[rows, envs] += buffer.gamma * values
        for row, shown in self._shown:
            if "log_probs" in shown:
                buffer.log_probs[row] = shown["log_probs"].cpu().numpy()
            if "values" in shown and self.has_critic:
                buffer.values[row] = shown["values"].flatten().cpu().numpy()

    def time_outs(self) -> list[TimeOut]:
        """
        Return the time-outs whose values are needed and not yet computed.

        :raises UnsoundNumberError: see ``write``
        """
        if not self.has_critic or not self._time_outs:
            return []
        rows, envs, observations = zip(*self._time_outs, strict=True)
        check_terminal(stacked(observations), rows, envs, self.actor.policy)
        return self._time_outs

    def bootstrap(self, buffer: RolloutBuffer, time_outs: Sequence[TimeOut]) -> None:
        """
        Add the discounted values of last observations to the rewards.

        :param buffer: has the rewards; the rollout of all processes
        :param time_outs: of all processes
        """
        if time_outs:
            rows, envs, observations = zip(*time_outs, strict=True)
            buffer.rewards[list(rows), list(envs)] += buffer.gamma * self.actor.terminal_values(observations, envs)

    def _compute_rows(self, end: int) -> None:
        """Compute the values of the rows before ``end``."""
        if end > self._n_rows:
            n_envs = self.buffer.n_envs
            observations = take(flat_observations(self.buffer), slice(self._n_rows * n_envs, end * n_envs))
            self._parts.append(self.actor.rollout_values(observations, slice(self._n_rows, end)))
            self._n_rows = end

    def _compute_time_outs(self) -> None:
        """Compute the values of the time-outs so far."""
        if self.time_outs():
            rows, envs, observations = zip(*self._time_outs, strict=True)
            self._bootstraps.append((list(rows), list(envs), self.actor.terminal_values(observations, envs)))
            self._time_outs.clear()

    def _check_weights(self) -> None:
        if not self._weights:
            return
        present = _critic_tensors(self.actor.policy)
        replaced = len(present) != len(self._weights) or any(
            one is not noted for one, (noted, _) in zip(present, self._weights, strict=True)
        )
        if replaced or not all(old is None or _equal(one, old) for one, old in self._weights):
            raise ValueError(
                "the critic's weights were changed in the middle of a rollout, and the values of its earlier steps are not "
                "computed yet: change them with model.set_parameters(), or in _on_rollout_end()"
            )


def _critic_tensors(policy: ActorCriticPolicy) -> list[th.Tensor]:
    """Return the parameters and buffers that SB3's ``predict_values`` depends on."""
    body: Any = policy.mlp_extractor
    hidden = body.value_net if type(body) is MlpExtractor else body
    parts: list[th.nn.Module] = [policy.vf_features_extractor, hidden, policy.value_net]
    return [one for part in parts for one in (*part.parameters(), *part.buffers())]


def _equal(one: th.Tensor, other: th.Tensor) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype or one.layout is not other.layout:
        return False
    if one.layout is not th.strided:
        # torch cannot compare sparse tensors
        one, other = one.to_dense(), other.to_dense()
    # NaN is not equal to itself
    return th.equal(one, other) or bool(((one == other) | (one.isnan() & other.isnan())).all())
