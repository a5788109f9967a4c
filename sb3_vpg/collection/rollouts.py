"""
Collection: SB3's ``collect_rollouts`` with as little per step as the next action needs.

Values, log-probabilities and the bootstraps at time-outs are computed once, when the rollout is complete. What comes of it
is the same as with SB3's loop: the distribution over actions, the contents of the buffer, the callbacks. A ``VecEnv`` may
reuse its arrays: what a step needs is stored before the next one.
"""

from itertools import compress
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.utils import obs_as_tensor
from stable_baselines3.common.vec_env import VecEnv

from sb3_vpg.collection.actors import Actor, executable
from sb3_vpg.collection.buffers import EpisodeBuffer, put_observations, put_step
from sb3_vpg.collection.callback_locals import Locals, locals_of
from sb3_vpg.collection.check_nan import check_rollout, raw_check
from sb3_vpg.collection.late_values import LateValues
from sb3_vpg.common.observations import take
from sb3_vpg.estimation.estimator import Estimator
from sb3_vpg.vec_env.dummy_step import quick_step

Infos = list[dict[str, Any]]


def collect(
    self: OnPolicyAlgorithm,
    estimator: Estimator,
    actor: Actor,
    late: LateValues,
    env: VecEnv,
    callback: BaseCallback,
    rollout_buffer: RolloutBuffer,
    n_rollout_steps: int,
) -> bool:
    """
    Fill the buffer with observations, actions, rewards and episode starts. The callbacks are those of
    ``OnPolicyAlgorithm.collect_rollouts``, and their ``locals`` its variables but for those of its own bookkeeping:
    ``values``, ``log_probs`` and ``obs_tensor`` of a step are computed when a callback reads them. Two more differences:

    * with ``estimator.n_episodes``, every environment is reset first and plays that many whole episodes; what it plays
      while others finish theirs is taken, counted in ``num_timesteps`` and masked;
    * without a critic, no value is computed and nothing is added to a reward at a time-out.

    :return: False if a callback stopped the collection
    :raises ValueError: if an environment does not finish its episodes; if a callback changes the environment, the policy or
        its methods on the way; ``UnsoundNumberError`` for a number of an environment's that nothing can be learned from
    """
    quota, policy, n_envs, own_env = estimator.n_episodes, self.policy, env.num_envs, self.env
    # Once for all: locals() at every step would take as long as a layer of the network
    callback.update_locals(locals())
    shown = _promised(self, actor, callback, rollout_buffer)
    step, bounded = quick_step(env), isinstance(self.action_space, spaces.Box)
    check = raw_check(env, policy)
    finished, n_steps = np.zeros(n_envs, dtype=int), 0
    counted: np.ndarray | None = None
    growing = rollout_buffer if isinstance(rollout_buffer, EpisodeBuffer) else None
    while n_steps < n_rollout_steps if quota is None else (finished < quota).any():
        if self.policy is not policy or self.env is not own_env:
            break
        observations: Any = self._last_obs
        if growing is not None:
            counted = finished < quota
            growing.count(counted)
        put_observations(rollout_buffer, observations, self._last_episode_starts)  # type: ignore[arg-type]  # SB3: None
        actions = actor.act(observations)
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

        if shown.computed:
            late.remember(shown.forget())
        if growing is not None:
            finished += dones
        _note_ends(self, infos, dones, counted, n_steps, late)
        put_step(rollout_buffer, actions, rewards)
        self._last_obs = new_obs  # type: ignore[assignment]  # SB3 declares None
        self._last_episode_starts = dones
        n_steps += 1

    _refuse_changes(self, policy, own_env, actor)
    _complete(self, late, rollout_buffer)
    shown.set_lazy({})
    callback.update_locals({"n_steps": n_steps, **_last_step(self, rollout_buffer, observations, actions, rewards)})
    return True


def check_resets(env: VecEnv, estimator: Estimator) -> None:
    """:raises ValueError: if ``n_episodes`` would reset an environment that does not allow it"""
    if estimator.n_episodes is not None and env.num_envs > 1 and _forbids_early_resets(env):
        raise ValueError(
            "n_episodes resets all environments at the start of each rollout, even in the middle of an episode, which "
            "Monitor(allow_early_resets=False) forbids: use Monitor(allow_early_resets=True), a single environment, or "
            "n_steps instead of n_episodes"
        )


def _forbids_early_resets(env: VecEnv) -> bool:
    """:return: whether a ``Monitor`` in there refuses to be reset in the middle of an episode"""
    try:
        indices = [index for index, is_wrapped in enumerate(env.env_is_wrapped(Monitor)) if is_wrapped]
        return bool(indices) and not all(env.get_attr("allow_early_resets", indices))
    except (AttributeError, NotImplementedError):
        # A VecEnv that does not show what is inside
        return False


def begin_rollout(
    self: OnPolicyAlgorithm, env: VecEnv, callback: BaseCallback, buffer: RolloutBuffer, quota: int | None
) -> None:
    """
    Tell the callback, and start new episodes where a rollout consists of whole ones.

    :param quota: ``n_episodes``
    :raises ValueError: if the callback sets another environment, or if new episodes cannot be started
    """
    self.policy.set_training_mode(False)
    buffer.reset()
    own_env = self.env
    callback.on_rollout_start()
    if self.env is not own_env:
        raise env_replaced(self)
    # The callback may have given the model another one
    self.policy.set_training_mode(False)
    if quota is None:
        return
    if env.num_envs == 1 and _forbids_early_resets(env):
        assert self._last_episode_starts is not None
        if not self._last_episode_starts.all():
            raise ValueError(
                "n_episodes begins with a new episode, but the environment is in the middle of one, and its "
                "Monitor(allow_early_resets=False) forbids a reset: use Monitor(allow_early_resets=True)"
            )
        # It has just been reset, by learn() or at the end of its last episode
        return
    # After the callback, which may have set another task
    self._last_obs = env.reset()  # type: ignore[assignment]  # SB3 declares None
    self._last_episode_starts = np.ones(env.num_envs, dtype=bool)


def _promised(self: OnPolicyAlgorithm, actor: Actor, callback: BaseCallback, buffer: RolloutBuffer) -> Locals:
    """:return: the variables that the callback sees, to which those are added that nobody has to compute in each step"""
    shown = locals_of(callback)

    def latest() -> tuple[th.Tensor, th.Tensor]:
        # The environment may have written over _last_obs
        return actor.latest(take(buffer.observations, buffer.pos))

    shown.set_lazy(
        {
            "obs_tensor": lambda: obs_as_tensor(self._last_obs, self.device),  # type: ignore[arg-type]  # SB3 declares None
            "values": lambda: latest()[0],
            "log_probs": lambda: latest()[1],
        }
    )
    return shown


def _refuse_changes(self: OnPolicyAlgorithm, policy: Any, env: VecEnv | None, actor: Actor) -> None:
    """:raises ValueError: if a callback has replaced what the rollout is played with"""
    if self.env is not env:
        raise env_replaced(self)
    if self.policy is not policy:
        raise _changed("model.policy was replaced")
    if not actor.fits():
        raise _changed("a method, hook, distribution or module of model.policy was changed")


def env_replaced(self: OnPolicyAlgorithm) -> ValueError:
    """:return: the error for a ``set_env`` in a rollout; the new environment will be reset"""
    self._last_obs = None
    return _changed("model.set_env was called", "; in _on_rollout_start(), its first observation is there already")


def _changed(what: str, more: str = "") -> ValueError:
    return ValueError(f"{what} in the middle of a rollout: do that before learn() or in _on_rollout_end(){more}")


def _note_ends(
    self: OnPolicyAlgorithm, infos: Infos, dones: np.ndarray, counted: np.ndarray | None, row: int, late: LateValues
) -> None:
    """What infos say of episodes goes into SB3's statistics; what a time-out has cut off has a value."""
    for index in compress(range(len(infos)), infos):
        info = infos[index]
        if ("episode" in info or "is_success" in info) and (counted is None or counted[index]):
            self._update_info_buffer([info], dones[index : index + 1])
        if dones[index] and info.get("TimeLimit.truncated", False) and info.get("terminal_observation") is not None:
            late.cut_off(row, index, _copied(info["terminal_observation"]))


def _copied(observation: Any) -> Any:
    # It is looked at after the rollout, when the environment may have written over it
    return {key: np.array(one) for key, one in observation.items()} if isinstance(observation, dict) else np.array(observation)


def _complete(self: OnPolicyAlgorithm, late: LateValues, buffer: RolloutBuffer) -> None:
    """What SB3's loop does step by step: log-probabilities, values, and the value of what a time-out has cut off."""
    if isinstance(buffer, EpisodeBuffer):
        buffer.close()
    buffer.full = True
    check_rollout(buffer, self._last_obs, self.policy)
    late.write()


def _last_step(
    self: OnPolicyAlgorithm, buffer: RolloutBuffer, observations: Any, actions: np.ndarray, rewards: np.ndarray
) -> dict[str, Any]:
    """:return: the last step's variables as SB3's loop leaves them behind"""
    return {
        "obs_tensor": obs_as_tensor(observations, self.device),
        "actions": actions.reshape(-1, 1) if isinstance(self.action_space, spaces.Discrete) else actions,
        "rewards": buffer.rewards[-1].astype(rewards.dtype),
        "log_probs": th.as_tensor(buffer.log_probs[-1], device=self.device),
    }
