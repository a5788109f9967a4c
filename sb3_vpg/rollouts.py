"""
Collection: SB3's ``collect_rollouts`` with as little per step as the next action needs.

Values, log-probabilities and the bootstraps at time-outs are computed once, when the rollout is complete. What comes of it
is the same as with SB3's loop: the distribution over actions, the contents of the buffer, the callbacks.
"""

from itertools import compress
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from sb3_vpg.actors import Actor, executable
from sb3_vpg.buffers import EpisodeBuffer, flat_observations, put
from sb3_vpg.checks import check_rollout, check_terminal, raw_check
from sb3_vpg.estimators import Estimator
from sb3_vpg.stepping import quick_step

TimeOut = tuple[int, int, Any]
"""Row, environment, last observation of an episode that a time limit has ended."""
Infos = list[dict[str, Any]]


def collect(
    self: OnPolicyAlgorithm,
    estimator: Estimator,
    actor: Actor,
    env: VecEnv,
    callback: BaseCallback,
    rollout_buffer: RolloutBuffer,
    n_rollout_steps: int,
) -> bool:
    """
    Fill the buffer with observations, actions, rewards and episode starts. The callbacks are those of
    ``OnPolicyAlgorithm.collect_rollouts``, and their ``locals`` its variables but for ``values``, ``log_probs``,
    ``obs_tensor`` and those of its own bookkeeping. Two more differences:

    * with ``estimator.n_episodes``, every environment is reset first and plays that many whole episodes; what it plays
      while others finish theirs is taken, counted in ``num_timesteps`` and masked;
    * without a critic, no value is computed and nothing is added to a reward at a time-out.

    :return: False if a callback stopped the collection
    :raises ValueError: if an environment does not finish its episodes; if a callback replaces ``model.policy`` on the way;
        ``UnsoundNumberError`` for a number of an environment's that nothing can be learned from
    """
    quota, policy, n_envs = estimator.n_episodes, self.policy, env.num_envs
    _begin(self, env, callback, rollout_buffer, quota)
    # Once for all: locals() at every step would take as long as a layer of the network
    callback.update_locals(locals())
    step, bounded = quick_step(env), isinstance(self.action_space, spaces.Box)
    check = raw_check(env)
    time_outs: list[TimeOut] = []
    finished, n_steps = np.zeros(n_envs, dtype=int), 0
    counted: np.ndarray | None = None
    while n_steps < n_rollout_steps if quota is None else (finished < quota).any():
        if self.policy is not policy:
            raise ValueError(
                "model.policy was replaced in the middle of a rollout: use model.set_parameters, or replace it between"
            )
        actions = actor.act(self._last_obs)
        clipped_actions = executable(policy, actions) if bounded else actions
        new_obs, rewards, dones, infos = step(clipped_actions)
        self.num_timesteps += n_envs
        if check is not None:
            check(n_steps + 1)

        callback.update_locals(
            {
                "n_steps": n_steps,
                "actions": actions,
                "clipped_actions": clipped_actions,
                "new_obs": new_obs,
                "rewards": rewards,
                "dones": dones,
                "infos": infos,
            }
        )
        if not callback.on_step():
            return False

        if isinstance(rollout_buffer, EpisodeBuffer):
            counted = finished < quota
            rollout_buffer.count(counted)
            finished += dones
        _note_ends(self, infos, dones, counted, n_steps, time_outs)
        put(rollout_buffer, self._last_obs, actions, rewards, self._last_episode_starts)  # type: ignore[arg-type]  # SB3: None
        self._last_obs = new_obs  # type: ignore[assignment]  # SB3 declares None
        self._last_episode_starts = dones
        n_steps += 1

    _complete(estimator, actor, rollout_buffer, time_outs, self._last_obs)
    callback.update_locals({"n_steps": n_steps})
    return True


def _begin(self: OnPolicyAlgorithm, env: VecEnv, callback: BaseCallback, buffer: RolloutBuffer, quota: int | None) -> None:
    self.policy.set_training_mode(False)
    buffer.reset()
    callback.on_rollout_start()
    if quota is not None:
        # After the callback, which may have set another task
        self._last_obs = env.reset()  # type: ignore[assignment]  # SB3 declares None
        self._last_episode_starts = np.ones(env.num_envs, dtype=bool)


def _note_ends(
    self: OnPolicyAlgorithm, infos: Infos, dones: np.ndarray, counted: np.ndarray | None, row: int, found: list[TimeOut]
) -> None:
    """What infos say of episodes goes into SB3's statistics, and time-outs into the list."""
    for index in compress(range(len(infos)), infos):
        info = infos[index]
        if ("episode" in info or "is_success" in info) and (counted is None or counted[index]):
            self._update_info_buffer([info], dones[index : index + 1])
        if dones[index] and info.get("TimeLimit.truncated", False) and info.get("terminal_observation") is not None:
            found.append((row, index, info["terminal_observation"]))


def _complete(estimator: Estimator, actor: Actor, buffer: RolloutBuffer, time_outs: list[TimeOut], last_obs: Any) -> None:
    """What SB3's loop does step by step: log-probabilities, values, and the value of what a time-out has cut off."""
    if isinstance(buffer, EpisodeBuffer):
        buffer.close()
    buffer.full = True
    check_rollout(buffer, last_obs)
    buffer.log_probs = actor.log_probs(buffer.actions).astype(np.float32, copy=False)
    if not estimator.has_critic:
        return
    buffer.values = actor.values(flat_observations(buffer)).astype(np.float32, copy=False).reshape(buffer.rewards.shape)
    if time_outs:
        rows, envs, observations = zip(*time_outs, strict=True)
        terminal = _stacked(observations)
        check_terminal(terminal, rows, envs)
        following = actor.values(terminal)
        buffer.rewards[list(rows), list(envs)] += buffer.gamma * following


def _stacked(observations: tuple[Any, ...]) -> Any:
    if isinstance(observations[0], dict):
        return {key: np.stack([one[key] for one in observations]) for key in observations[0]}
    return np.stack(observations)
