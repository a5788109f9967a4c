"""VPG with action masks, for environments that do not allow each action at each step."""

from collections.abc import Mapping
from functools import wraps
from typing import Any, ClassVar

import numpy as np
import torch as th
from gymnasium import spaces
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import MaybeCallback, RolloutBufferSamples
from stable_baselines3.common.vec_env import VecEnv
from typing_extensions import Self

from sb3_vpg.collection.actors import NO_KEYWORDS
from sb3_vpg.collection.buffers import BufferClasses, full_batch, in_batch_order
from sb3_vpg.collection.masked_buffers import MASKED_BUFFERS
from sb3_vpg.common.arguments import flag
from sb3_vpg.common.observations import n_observations
from sb3_vpg.exceptions import ActionMaskError, ForbiddenActionError
from sb3_vpg.maskable_policies import MASKABLE_ALIASES, check_maskable_policy
from sb3_vpg.numpy_policy.maskable import support_maskable
from sb3_vpg.optimization.steps import Steps
from sb3_vpg.vec_env.action_masks import MaskReader, checked_masks
from sb3_vpg.vec_env.env_checks import check_policy_supports
from sb3_vpg.vpg import VPG

support_maskable()
_ENVIRONMENT_ADVICE = "Correct action_masks() of the environment: see docs/action_masks.md"
_POLICY_ADVICE = "forward() and get_distribution() of a policy must apply action_masks"


class MaskableVPG(VPG):
    """
    VPG for environments that allow only some actions at each step. It takes sb3_contrib's policies, wrappers, callbacks and
    evaluation, as ``MaskablePPO`` does (Huang and Ontañón 2020, https://arxiv.org/abs/2006.14171).

    An environment says which actions it allows in a method ``action_masks()``: True for each allowed action of a ``Discrete``
    space; for ``MultiDiscrete`` one entry for each choice of each dimension, in their order; for ``MultiBinary`` two for each
    bit, that of 0 first. Actions that are not allowed have probability 0: they are never sampled, and log-probabilities,
    entropies and gradients are those of the distribution over the others.

    :param policy: ``"MlpPolicy"``, ``"CnnPolicy"``, ``"MultiInputPolicy"`` or any subclass of sb3_contrib's
        ``MaskableActorCriticPolicy``
    :param env: with ``Discrete``, ``MultiDiscrete`` or ``MultiBinary`` actions; see ``VPG``

    Other parameters: see ``VPG``; ``use_sde`` has no meaning for these actions.

    :raises ValueError: if an argument is out of range, or if MaskableVPG cannot train the policy
    :raises TypeError: for an unknown keyword
    """

    policy_reads_only_observations = False
    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = MASKABLE_ALIASES
    buffer_classes: ClassVar[BufferClasses] = MASKED_BUFFERS
    action_spaces: ClassVar[tuple[type[spaces.Space[Any]], ...]] = (spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)
    policy: MaskableActorCriticPolicy  # type: ignore[assignment]  # as in sb3_contrib, no ActorCriticPolicy
    _check_policy_class = staticmethod(check_maskable_policy)
    _use_masking = True
    _mask_reader: MaskReader | None = None

    def _setup_model(self) -> None:
        chosen = self.policy_class
        check_policy_supports(chosen, self.policy_kwargs or {}, self.observation_space)

        @wraps(chosen, updated=())
        def build(*args: Any, use_sde: bool, **kwargs: Any) -> BasePolicy:
            # SB3 passes use_sde, which sb3_contrib's policies do not take
            return chosen(*args, **kwargs)

        self.policy_class = build  # type: ignore[assignment]  # SB3 only calls it
        try:
            super()._setup_model()
        finally:
            self.policy_class = chosen

    def _get_policy_from_name(self, policy_name: str) -> type[BasePolicy]:
        if policy_name not in self.policy_aliases:
            check_maskable_policy(policy_name)
        return self.policy_aliases[policy_name]

    def _policy_keywords(self, env: VecEnv, n_steps: int) -> Mapping[str, np.ndarray]:
        if not self._use_masking:
            return NO_KEYWORDS
        if self._mask_reader is None or self._mask_reader.env is not env:
            self._mask_reader = MaskReader(env)
        try:
            return {"action_masks": self._mask_reader.read()}
        except ActionMaskError as error:
            raise self._mask_error(error, n_steps, _ENVIRONMENT_ADVICE) from None

    def _mask_error(self, error: ActionMaskError, n_steps: int, advice: str) -> ValueError:
        where = f"{error}, at step {n_steps + 1} of this rollout (timestep {self.num_timesteps:,})"
        return self._training_error(where, advice, ActionMaskError)

    def collect_rollouts(
        self, env: VecEnv, callback: BaseCallback, rollout_buffer: RolloutBuffer, n_rollout_steps: int
    ) -> bool:
        """See ``VPG.collect_rollouts``. Raises ActionMaskError for wrong masks, and if the policy ignores them."""
        try:
            return super().collect_rollouts(env, callback, rollout_buffer, n_rollout_steps)
        except ForbiddenActionError as error:
            raise self._mask_error(error, rollout_buffer.pos, _POLICY_ADVICE) from None

    def _steps(self, buffer: RolloutBuffer, rollout: RolloutBufferSamples | None = None) -> Steps:
        rollout, keywords = rollout or full_batch(buffer), {}
        if self._use_masking:
            masks = in_batch_order(buffer, buffer.action_masks)  # type: ignore[attr-defined]  # one of MASKED_BUFFERS
            keywords["action_masks"] = th.as_tensor(masks, device=self.device) > 0
        return self.steps_class(rollout.observations, rollout.actions, keywords)

    def learn(  # type: ignore[override]  # use_masking stands where sb3_contrib has it
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 10,
        tb_log_name: str = "MaskableVPG",
        reset_num_timesteps: bool = True,
        use_masking: bool = True,
        progress_bar: bool = False,
    ) -> Self:
        """
        See ``VPG.learn``.

        :param use_masking: read the environment's masks; False: all actions are allowed
        :raises ValueError: also if the environment has no masks
        :raises ActionMaskError: if a mask is wrong, or if the policy chooses an action that is not allowed: the error names
            the environment and the step
        """
        self._use_masking = flag("use_masking", use_masking)
        if self._use_masking and self.env is not None:
            self._mask_reader = MaskReader(self.env)
        return super().learn(total_timesteps, callback, log_interval, tb_log_name, reset_num_timesteps, progress_bar)

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        action_masks: np.ndarray | None = None,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """
        See ``VPG.predict``.

        :param action_masks: True for allowed actions, shape (N, M), as ``get_action_masks(env)`` of sb3_contrib returns them;
            None: all are allowed
        :raises ValueError: also for masks of another shape, or that allow no action
        """
        masks = None
        if action_masks is not None:
            is_vectorized = self.policy.is_vectorized_observation(observation)
            n_envs = n_observations(observation) if is_vectorized else 1
            masks = checked_masks(action_masks, n_envs, self.action_space)
        actions = self._predict_by_numpy(observation, deterministic, masks)
        if actions is not None:
            return actions, state
        return self.policy.predict(observation, state, episode_start, deterministic, action_masks=masks)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_use_masking", "_mask_reader"]
