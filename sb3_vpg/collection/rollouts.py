"""
Collection: SB3's ``collect_rollouts`` with as little work per step as the next action needs.

Values, log-probabilities and the bootstraps at time-outs are computed once, when the rollout is complete. The distribution of
actions, the contents of the buffer and the callbacks are those of SB3's loop. A ``VecEnv`` may reuse its arrays, so whatever
is needed of a step is stored before the next one.
"""

from collections.abc import Callable, Mapping
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

from sb3_vpg.collection.actors import NO_KEYWORDS, Actor, executable
from sb3_vpg.collection.agreement import EpisodeReports, RolloutEnd, whole_rollout
from sb3_vpg.collection.buffers import EpisodeBuffer, store_observations, store_step
from sb3_vpg.collection.callback_locals import Locals, locals_of
from sb3_vpg.collection.check_nan import check_rollout, raw_check
from sb3_vpg.collection.late_values import LateValues
from sb3_vpg.common.observations import take
from sb3_vpg.common.world import World
from sb3_vpg.estimation.estimator import Estimator
from sb3_vpg.vec_env.fast_step import fast_step

Infos = list[dict[str, Any]]
KeywordsOf = Callable[[VecEnv, int], Mapping[str, np.ndarray]]
"""From the environment and the number of the step, from 0, to more inputs of the policy, see ``EpisodeBuffer``."""


def collect(
    model: OnPolicyAlgorithm,
    estimator: Estimator,
    actor: Actor,
    late: LateValues,
    env: VecEnv,
    callback: BaseCallback,
    rollout_buffer: RolloutBuffer,
    n_rollout_steps: int,
    world: World,
    keywords_of: KeywordsOf | None = None,
) -> bool:
    """
    Fill the buffer. Callbacks are called as by ``OnPolicyAlgorithm.collect_rollouts`` and find the same variables in their
    ``locals``. ``values``, ``log_probs`` and ``obs_tensor`` of a step are computed when a callback reads them. Two more
    differences from SB3's loop:

    * With ``estimator.n_episodes``, every environment plays that many whole episodes. Its steps while others finish theirs
      count in ``num_timesteps``, but are masked in the buffer.
    * Without a critic, no value is computed, and nothing is added to the reward at a time-out.

    :param world: the processes
    :param keywords_of: returns what else the policy reads at a step; None: nothing
    :return: False if a callback stopped the collection, in any process
    :raises ValueError: if an environment does not finish its episodes, or if a callback changes the environment, the policy
        or its methods during the rollout
    :raises UnsoundNumberError: if an observation or a reward is NaN, infinite or huge
    """
    policy, model_env, n_envs, n_episodes = model.policy, model.env, env.num_envs, estimator.n_episodes
    # Once per rollout: calling locals() at every step costs as much as a layer of the network
    callback.update_locals({**locals(), "self": model})
    lazy_locals = _lazy_locals(model, actor, callback, rollout_buffer)
    step, check = world.recording(fast_step(env)), raw_check(env, policy)
    is_bounded, n_all, reports = isinstance(model.action_space, spaces.Box), n_envs * world.size, EpisodeReports(model, world)
    episode_buffer = rollout_buffer if isinstance(rollout_buffer, EpisodeBuffer) else None
    keywords, n_finished, n_steps = NO_KEYWORDS, np.zeros(n_envs, dtype=int), 0
    end = RolloutEnd(world, n_rollout_steps, n_episodes, late.gathers)
    while end.goes_on(n_steps, n_finished):
        if model.policy is not policy or model.env is not model_env:
            break
        counted = None if episode_buffer is None else episode_buffer.mark_counted(n_finished < n_episodes)
        observations: Any = model._last_obs
        if keywords_of is not None:
            keywords = keywords_of(env, n_steps)
        store_observations(rollout_buffer, observations, model._last_episode_starts, keywords)  # type: ignore[arg-type]  # SB3: None
        actions = actor.act(observations, keywords)
        clipped_actions = executable(policy, actions) if is_bounded else actions
        new_obs, rewards, dones, infos = step(clipped_actions)
        model.num_timesteps += n_all
        if check is not None:
            check(n_steps + 1)

        played = {"n_steps": n_steps, "actions": actions, "clipped_actions": clipped_actions, "new_obs": new_obs}
        played["rewards"], played["dones"], played["infos"] = rewards, dones, infos
        played.update(keywords)
        callback.update_locals(played)
        if not callback.on_step():
            n_steps += 1
            end.stop(n_steps)
            break

        if lazy_locals.computed:
            late.remember(lazy_locals.forget())
        _note_ends(reports, infos, dones, counted, n_steps, late)
        store_step(rollout_buffer, actions, rewards)
        if episode_buffer is not None:
            n_finished += dones
        n_steps += 1
        model._last_obs, model._last_episode_starts = new_obs, dones

    if end.stopped_after is None:
        _check_unchanged(model, policy, model_env, actor)
    is_stopped = end.is_stopped(n_steps)
    # What other processes have played after a stop does not count
    model.num_timesteps -= n_all * end.n_excess_steps(n_steps)
    reports.share()
    if is_stopped:
        return False
    _complete(model, late, rollout_buffer)
    lazy_locals.set_lazy({})
    callback.update_locals({"n_steps": n_steps, **_last_step(model, rollout_buffer, observations, actions, rewards)})
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
    """Return whether a ``Monitor`` of the environment refuses a reset in the middle of an episode."""
    try:
        indices = [index for index, is_wrapped in enumerate(env.env_is_wrapped(Monitor)) if is_wrapped]
        return bool(indices) and not all(env.get_attr("allow_early_resets", indices))
    except (AttributeError, NotImplementedError):
        # A VecEnv that gives no access to its environments
        return False


def begin_rollout(
    model: OnPolicyAlgorithm, env: VecEnv, callback: BaseCallback, buffer: RolloutBuffer, n_episodes: int | None
) -> None:
    """
    Call ``on_rollout_start``, and reset the environments if a rollout consists of whole episodes.

    :param n_episodes: None for a rollout of fixed length, which goes on where the last one ended
    :raises ValueError: if the callback replaces the environment, or if the environment refuses the reset
    """
    model.policy.set_training_mode(False)
    buffer.reset()
    model_env, policy = model.env, model.policy
    callback.on_rollout_start()
    if model.env is not model_env:
        raise env_replaced(model)
    if model.policy is not policy:
        model.policy.set_training_mode(False)
    if n_episodes is None:
        return
    if env.num_envs == 1 and _forbids_early_resets(env):
        assert model._last_episode_starts is not None
        if not model._last_episode_starts.all():
            raise ValueError(
                "n_episodes begins with a new episode, but the environment is in the middle of one, and its "
                "Monitor(allow_early_resets=False) forbids a reset: use Monitor(allow_early_resets=True)"
            )
        # learn() or the end of the last episode has just reset it
        return
    # After the callback, which may have set another task
    model._last_obs = env.reset()  # type: ignore[assignment]  # SB3 declares None
    model._last_episode_starts = np.ones(env.num_envs, dtype=bool)


def _lazy_locals(model: OnPolicyAlgorithm, actor: Actor, callback: BaseCallback, buffer: RolloutBuffer) -> Locals:
    """Return the callback's ``locals``, with entries that are computed only when a callback reads them."""
    lazy_locals = locals_of(callback)

    def latest() -> tuple[th.Tensor, th.Tensor]:
        # From the buffer: the environment may have overwritten _last_obs
        return actor.latest(take(buffer.observations, buffer.pos))

    lazy_locals.set_lazy(
        {
            "obs_tensor": lambda: obs_as_tensor(model._last_obs, model.device),  # type: ignore[arg-type]  # SB3 declares None
            "values": lambda: latest()[0],
            "log_probs": lambda: latest()[1],
            **getattr(actor, "callback_locals", {}),
        }
    )
    return lazy_locals


def _check_unchanged(model: OnPolicyAlgorithm, policy: Any, env: VecEnv | None, actor: Actor) -> None:
    """:raises ValueError: if a callback has replaced the environment, the policy or a part of the policy"""
    if model.env is not env:
        raise env_replaced(model)
    if model.policy is not policy:
        raise _changed("model.policy was replaced")
    if not actor.fits():
        raise _changed("a method, hook, distribution or module of model.policy was changed")


def env_replaced(model: OnPolicyAlgorithm) -> ValueError:
    """Return the error for a ``set_env`` during a rollout, and let ``learn`` reset the new environment."""
    model._last_obs = None
    return _changed("model.set_env was called", "; _on_rollout_start() is too late")


def _changed(what: str, more: str = "") -> ValueError:
    return ValueError(f"{what} in the middle of a rollout: do that before learn() or in _on_rollout_end(){more}")


def _note_ends(
    reports: EpisodeReports, infos: Infos, dones: np.ndarray, counted: np.ndarray | None, row: int, late: LateValues
) -> None:
    """Report finished episodes, and note the last observation of each episode that a time limit ended."""
    reported = []
    for index in compress(range(len(infos)), infos):
        info = infos[index]
        if ("episode" in info or "is_success" in info) and (counted is None or counted[index]):
            reported.append(index)
        if dones[index] and info.get("TimeLimit.truncated", False) and info.get("terminal_observation") is not None:
            late.add_time_out(row, index, _copied(info["terminal_observation"]))
    if reported:
        reports.add([infos[index] for index in reported], dones[reported])


def _copied(observation: Any) -> Any:
    # It is used after the rollout, when the environment may have overwritten it
    return {key: np.array(one) for key, one in observation.items()} if isinstance(observation, dict) else np.array(observation)


def last_values(model: OnPolicyAlgorithm, actor: Actor, callback: BaseCallback, has_critic: bool) -> np.ndarray | None:
    """
    Show callbacks the values of the last observations, as SB3's loop does.

    :return: these values, shape (N,); None without a critic, which is not trained: then only a callback that reads them has
        them computed
    """
    last_obs = model._last_obs

    def values() -> th.Tensor:
        return th.as_tensor(actor.values(last_obs), device=model.device)[:, None]

    if not has_critic:
        locals_of(callback).set_lazy({"values": values})
        return None
    values_N1 = values()
    callback.update_locals({"values": values_N1})
    values_N: np.ndarray = values_N1[:, 0].cpu().numpy()
    return values_N


def everyones_rollout(
    model: OnPolicyAlgorithm, late: LateValues, callback: BaseCallback, buffer: RolloutBuffer, world: World
) -> tuple[Any, ...]:
    """
    Let the model learn from the steps of all processes, if each makes the whole update.

    :param late: of the rollout, which ``collect`` has written
    :param buffer: the rollout of this process
    :return: the rollout to learn from, and of its environments the values of the last observations (None without a critic)
        and whether the last step ended an episode
    """
    ends = last_values(model, late.actor, callback, late.has_critic), model._last_episode_starts
    if world.is_distributed:
        model.rollout_buffer = buffer
    if not late.gathers:
        return buffer, *ends
    whole, time_outs, last_values_N, last_dones_N = whole_rollout(model, world, buffer, late.time_outs(), *ends)
    late.bootstrap(whole, time_outs)
    model.rollout_buffer = whole
    # What a callback needs to compute advantages from other rewards
    values = {} if last_values_N is None else {"values": th.as_tensor(last_values_N, device=model.device)[:, None]}
    callback.update_locals({"rollout_buffer": whole, "dones": last_dones_N.astype(bool), **values})
    return whole, last_values_N, last_dones_N


def _complete(model: OnPolicyAlgorithm, late: LateValues, buffer: RolloutBuffer) -> None:
    """Write what SB3's loop writes step by step: log-probabilities, values, and the bootstraps at time-outs."""
    if isinstance(buffer, EpisodeBuffer):
        buffer.truncate()
    buffer.full = True
    check_rollout(buffer, model._last_obs, model.policy)
    late.write()


def _last_step(
    model: OnPolicyAlgorithm, buffer: RolloutBuffer, observations: Any, actions: np.ndarray, rewards: np.ndarray
) -> dict[str, Any]:
    """Return the variables of the last step as SB3's loop leaves them in ``locals``."""
    return {
        "obs_tensor": obs_as_tensor(observations, model.device),
        "actions": actions.reshape(-1, 1) if isinstance(model.action_space, spaces.Discrete) else actions,
        "rewards": buffer.rewards[-1].astype(rewards.dtype),
        "log_probs": th.as_tensor(buffer.log_probs[-1], device=model.device),
    }
