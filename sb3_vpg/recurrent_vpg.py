"""``VPG`` for policies with memory, as ``RecurrentPPO`` of sb3_contrib is for PPO."""

from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch as th
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import MaybeCallback, RolloutBufferSamples
from stable_baselines3.common.vec_env import VecEnv
from typing_extensions import Self

from sb3_vpg.collection.actors import Actor
from sb3_vpg.collection.buffers import SB3_BUFFERS, BufferClasses, by_environment, counted_steps, full_batch
from sb3_vpg.collection.recurrent_actor import RecurrentActor
from sb3_vpg.estimation.returns import Episodes
from sb3_vpg.optimization.sequence_steps import SequenceSteps, initial_states
from sb3_vpg.optimization.steps import Steps
from sb3_vpg.recurrent_policies import RECURRENT_ALIASES, check_recurrent_policy
from sb3_vpg.vpg import VPG

LstmStates = tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]
"""Hidden and cell states of the actor's LSTM and of the critic's, shapes (n_lstm_layers, n_envs, lstm_hidden_size)."""


class RecurrentVPG(VPG):
    """
    ``VPG`` for policies with LSTMs, which remember what they have seen in an episode. The policies are those of sb3_contrib's
    ``RecurrentPPO``, and so are their arguments in ``policy_kwargs``, to which ``forget_gate_bias`` is added.

    Paper: Wierstra et al. 2010, https://doi.org/10.1093/jigpal/jzp049 (recurrent policy gradients).

    The gradient goes through time. With ``n_episodes``, the sequences are whole episodes, so that no gradient is cut. With
    ``n_steps``, a sequence that continues an episode begins with the states that the last rollout left, as in
    ``RecurrentPPO``: computed with older weights, and without a gradient to earlier steps.

    The critic's steps change nothing that the policy reads: of a shared LSTM (``shared_lstm=True``) only the policy's gradient
    is used. A minibatch of the critic holds whole sequences, as many as have up to ``batch_size`` steps together, but at least
    one.

    :param policy: ``"MlpLstmPolicy"``, ``"CnnLstmPolicy"``, ``"MultiInputLstmPolicy"`` or a subclass of sb3_contrib's
        ``RecurrentActorCriticPolicy``

    Other parameters: see ``VPG``; a ``rollout_buffer_class`` of your own is refused.

    :raises ValueError: if an argument is out of range, or if RecurrentVPG cannot train the policy
    :raises TypeError: for an unknown keyword
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = RECURRENT_ALIASES
    # A user's class knows no sequences
    buffer_classes: ClassVar[BufferClasses] = SB3_BUFFERS._replace(allows_others=False)
    steps_class: ClassVar[type[Steps]] = SequenceSteps
    policy_reads_only_observations: ClassVar[bool] = False
    _check_policy_class = staticmethod(check_recurrent_policy)
    _last_lstm_states: LstmStates | None = None
    _first_states: RNNStates
    _recurrent_actor: RecurrentActor | None = None

    def _setup_model(self) -> None:
        super()._setup_model()
        self._last_lstm_states = _as_arrays(initial_states(self.policy, self.n_envs))

    def _choose_actor(self) -> Actor:
        self._keep_first_states()
        policy: Any = self.policy
        starts = partial(getattr, self, "_last_episode_starts")
        options = (self.sde_sample_freq, self._estimator.has_critic)
        self._recurrent_actor = RecurrentActor(policy, self._first_states, starts, *options)
        return self._recurrent_actor

    def _keep_first_states(self) -> None:
        """Keep the states with which the rollout begins: those that the last one left, zeros where an episode begins."""
        self._first_states = initial_states(self.policy, self.n_envs)
        last, starts = self._last_lstm_states, self._last_episode_starts
        if last is None or starts is None or last[0][0].shape != self._first_states.pi[0].shape:
            return
        continues = ~np.asarray(starts, dtype=bool)[None, :, None]
        kept = [tuple(th.as_tensor(np.where(continues, part, 0.0), device=self.device) for part in pair) for pair in last]
        self._first_states = RNNStates(*(tuple(part.float() for part in pair) for pair in kept))

    def collect_rollouts(
        self, env: VecEnv, callback: BaseCallback, rollout_buffer: RolloutBuffer, n_rollout_steps: int
    ) -> bool:
        """See ``VPG.collect_rollouts``. Also keeps the states that the rollout leaves, for the next one."""
        try:
            return super().collect_rollouts(env, callback, rollout_buffer, n_rollout_steps)
        finally:
            actor, self._recurrent_actor = self._recurrent_actor, None
            if actor is not None:
                # After a step that is not completed, the last observation is still the one before
                is_completed = rollout_buffer.pos == actor.n_steps
                self._last_lstm_states = _as_arrays(actor.states if is_completed else actor.states_before)

    def _steps(self, buffer: RolloutBuffer, rollout: RolloutBufferSamples | None = None) -> Steps:
        rollout = rollout or full_batch(buffer)
        episodes = Episodes.of(buffer.episode_starts, counted_steps(buffer))
        rows = by_environment(buffer, th.arange(len(rollout.actions))).numpy()
        return SequenceSteps.from_rollout(rollout.observations, rollout.actions, episodes, rows, self._first_states)

    def learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 10,
        tb_log_name: str = "RecurrentVPG",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> Self:
        """See ``VPG.learn``."""
        return super().learn(total_timesteps, callback, log_interval, tb_log_name, reset_num_timesteps, progress_bar)

    def _excluded_save_params(self) -> list[str]:
        # Of one rollout. The states that the last rollout left are saved: a checkpoint needs them
        return [*super()._excluded_save_params(), "_first_states", "_recurrent_actor"]


def _as_arrays(states: RNNStates) -> LstmStates:
    """Return the states as arrays, which a model's file can hold."""
    actor, critic = (tuple(part.detach().cpu().numpy().copy() for part in pair) for pair in states)
    return actor, critic
