"""The actor that calls the policy at each step, as SB3's loop does: for gSDE and policies that override SB3's methods."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.utils import obs_as_tensor

from sb3_vpg.collection.actors import NO_KEYWORDS, invalid_distribution_errors, values_of
from sb3_vpg.common.observations import n_observations
from sb3_vpg.common.world import SINGLE_PROCESS, World
from sb3_vpg.numpy_policy.eligibility import acts_as_sb3
from sb3_vpg.numpy_policy.networks import Array
from sb3_vpg.vec_env.action_masks import check_allowed


class StepwiseActor:
    """
    Supports every policy: actions, log-probabilities and values are those of ``policy(observations)``, as in SB3's loop. If
    the policy's methods are SB3's own, the values are computed later.

    :param policy: any policy
    :param sde_sample_freq: number of steps after which gSDE draws new noise; -1: once per rollout
    :param has_critic: whether values are needed
    :param are_pure: whether the policy's modules return the same later, see ``sb3_vpg.collection.pure_modules``
    """

    def __init__(self, policy: ActorCriticPolicy, sde_sample_freq: int, has_critic: bool, are_pure: bool) -> None:
        self.policy = policy
        self.sde_sample_freq = sde_sample_freq
        self.has_critic = has_critic
        self.are_pure = are_pure

    def start(self, rng: np.random.Generator, world: World = SINGLE_PROCESS) -> None:
        self.defers_values = self._may_defer()
        self._log_probs: list[th.Tensor] = []
        self._values: list[th.Tensor] = []

    def fits(self) -> bool:
        return self._may_defer() is self.defers_values

    def _may_defer(self) -> bool:
        """Return whether values may be computed after the rollout, or not at all."""
        return self.are_pure and acts_as_sb3(self.policy, values=self.has_critic)

    def act(self, observations: Any, keywords: Mapping[str, Array] = NO_KEYWORDS) -> Array:
        n_steps, policy = len(self._log_probs), self.policy
        with th.no_grad(), invalid_distribution_errors():
            tensors: Any = obs_as_tensor(observations, policy.device)
            use_sde = getattr(policy, "use_sde", False)
            if use_sde and (n_steps == 0 or (self.sde_sample_freq > 0 and n_steps % self.sde_sample_freq == 0)):
                policy.reset_noise(n_observations(observations))
            if self.defers_values:
                distribution = policy.get_distribution(tensors, **keywords)
                actions = distribution.get_actions(deterministic=False)
                log_probs = distribution.log_prob(actions)
                actions = actions.reshape((-1, *policy.action_space.shape))  # type: ignore[misc]  # never None here
            else:
                actions, values, log_probs = policy(tensors, **keywords)
                self._values.append(values.clone())
            self._log_probs.append(log_probs.clone())
        sampled: Array = actions.cpu().numpy()
        if "action_masks" in keywords:
            check_allowed(sampled, keywords["action_masks"], policy)
        return sampled

    def latest(self, observations: Any) -> tuple[th.Tensor, th.Tensor]:
        if not self.defers_values:
            return self._values[-1], self._log_probs[-1]
        with th.no_grad():
            tensors: Any = obs_as_tensor(observations, self.policy.device)
            return self.policy.predict_values(tensors), self._log_probs[-1]

    def log_probs(self) -> Array:
        log_probs: Array = th.stack([one.flatten() for one in self._log_probs]).cpu().numpy()
        return log_probs

    def rollout_values(self, observations: Any, rows: slice) -> Array:
        if self.defers_values:
            return self.values(observations)
        values: Array = th.cat([one.flatten() for one in self._values[rows]]).cpu().numpy()
        return values

    def values(self, observations: Any) -> Array:
        return values_of(self.policy, observations)

    def terminal_values(self, observations: Sequence[Any], envs: Sequence[int]) -> Array:
        # One at a time and with obs_to_tensor, as in SB3's loop, because the policy may override it
        with th.no_grad():
            tensors = [self.policy.obs_to_tensor(one)[0] for one in observations]
            values: Array = th.cat([self.policy.predict_values(one).flatten() for one in tensors]).cpu().numpy()
            return values
