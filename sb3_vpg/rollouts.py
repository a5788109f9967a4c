"""Collection where SB3's own loop does not fit: whole episodes, and baselines that must not see a value estimate."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.utils import obs_as_tensor
from stable_baselines3.common.vec_env import VecEnv

from sb3_vpg.buffers import EpisodeBuffer
from sb3_vpg.estimators import Estimator


def collect(
    self: OnPolicyAlgorithm,
    estimator: Estimator,
    env: VecEnv,
    callback: BaseCallback,
    rollout_buffer: RolloutBuffer,
    n_rollout_steps: int,
    compute_advantages: Callable[[], None],
) -> bool:
    """
    Like ``OnPolicyAlgorithm.collect_rollouts`` with the same callbacks, and these differences:

    * with ``estimator.n_episodes``, every environment is reset first and plays that many whole episodes; what it plays
      while others finish theirs is taken, counted in ``num_timesteps`` and masked;
    * without a critic, no value is computed and nothing is added to a reward at a time-out.

    :return: False if a callback stopped the collection
    :raises ValueError: if an environment does not finish its episodes
    """
    quota = estimator.n_episodes
    self.policy.set_training_mode(False)
    rollout_buffer.reset()
    callback.on_rollout_start()
    if quota is not None:
        # After the callback, which may have set another task
        self._last_obs = env.reset()  # type: ignore[assignment]  # SB3 declares None
        self._last_episode_starts = np.ones(env.num_envs, dtype=bool)

    n_steps = 0
    finished = np.zeros(env.num_envs, dtype=int)
    while (finished < quota).any() if quota is not None else n_steps < n_rollout_steps:
        counted = np.ones(env.num_envs, dtype=bool) if quota is None else finished < quota
        actions, values, log_probs = _act(self, n_steps, estimator.has_critic)
        clipped_actions = _executable(self, actions)
        new_obs, rewards, dones, infos = env.step(clipped_actions)
        self.num_timesteps += env.num_envs

        callback.update_locals(locals())
        if not callback.on_step():
            return False

        self._update_info_buffer([info for info, counts in zip(infos, counted, strict=True) if counts], dones[counted])
        n_steps += 1
        if estimator.has_critic:
            _bootstrap_time_outs(self, rewards, dones, infos)
        transition = (self._last_obs, actions, rewards, self._last_episode_starts, values, log_probs)
        _store(rollout_buffer, counted, transition)
        self._last_obs = new_obs  # type: ignore[assignment]  # SB3 declares None
        self._last_episode_starts = dones
        finished += dones

    if isinstance(rollout_buffer, EpisodeBuffer):
        rollout_buffer.close()
    compute_advantages()
    callback.update_locals(locals())
    callback.on_rollout_end()
    return True


def _store(buffer: RolloutBuffer, counted: np.ndarray, transition: Any) -> None:
    if isinstance(buffer, EpisodeBuffer):
        buffer.add_counted(counted, *transition)
    else:
        buffer.add(*transition)


def _act(self: OnPolicyAlgorithm, n_steps: int, with_values: bool) -> tuple[np.ndarray, th.Tensor, th.Tensor]:
    """:return: sampled actions, their values (zero where nobody asks for them) and log-probabilities"""
    if self.use_sde and (n_steps == 0 or (self.sde_sample_freq > 0 and n_steps % self.sde_sample_freq == 0)):
        self.policy.reset_noise(self.n_envs)
    with th.no_grad():
        observations = obs_as_tensor(self._last_obs, self.device)  # type: ignore[arg-type]  # SB3 declares None
        if with_values:
            actions, values, log_probs = self.policy(observations)
        else:
            distribution = self.policy.get_distribution(observations)
            actions = distribution.get_actions()
            log_probs = distribution.log_prob(actions)
            values = th.zeros(self.n_envs)
            actions = actions.reshape((-1, *self.action_space.shape))  # type: ignore[misc]  # a shape is never None here
    return actions.cpu().numpy(), values, log_probs


def _executable(self: OnPolicyAlgorithm, actions: np.ndarray) -> np.ndarray:
    """What the environment gets: continuous actions scaled or clipped into its bounds, as in SB3's loop."""
    if not isinstance(self.action_space, spaces.Box):
        return actions
    if self.policy.squash_output:
        return self.policy.unscale_action(actions)
    clipped: np.ndarray = np.clip(actions, self.action_space.low, self.action_space.high)
    return clipped


def _bootstrap_time_outs(self: OnPolicyAlgorithm, rewards: np.ndarray, dones: np.ndarray, infos: list[dict[str, Any]]) -> None:
    """Where a time limit ended the episode, the value of its last observation stands for what would have followed."""
    for index in np.flatnonzero(dones):
        if infos[index].get("TimeLimit.truncated", False) and infos[index].get("terminal_observation") is not None:
            observation, _ = self.policy.obs_to_tensor(infos[index]["terminal_observation"])
            with th.no_grad():
                rewards[index] += self.gamma * self.policy.predict_values(observation)[0].item()
