"""Collection by SB3's own loop, for policies that must be called at each step, and for rollout buffers of the user's."""

from collections.abc import Callable
from typing import Any

from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv

from sb3_vpg.collection.actors import invalid_distribution_errors
from sb3_vpg.collection.callback_locals import locals_of
from sb3_vpg.collection.check_nan import check_rollout, checked_steps
from sb3_vpg.collection.rollouts import env_replaced


def collect_by_sb3(
    model: Any,
    sb3s_collect: Callable[..., bool],
    env: VecEnv,
    callback: BaseCallback,
    buffer: RolloutBuffer,
    n_rollout_steps: int,
) -> bool:
    """
    Collect with SB3's ``collect_rollouts``, and check the numbers of the environment.

    :param model: a ``LeanOnPolicyAlgorithm``
    :param sb3s_collect: ``collect_rollouts`` of its parent
    :return: False if a callback stopped the collection
    :raises ValueError: if a callback replaces the environment
    :raises UnsoundNumberError: if an observation or a reward is NaN, infinite or huge
    """
    locals_of(callback).set_lazy({})
    model._sb3_loop_env = model.env
    try:
        with invalid_distribution_errors():
            collected = sb3s_collect(checked_steps(env, model.policy), callback, buffer, n_rollout_steps)
    except Exception as error:
        # After set_env in _on_rollout_start, SB3's loop fails for want of an observation
        if model.env is model._sb3_loop_env or buffer.pos > 0:
            raise
        raise env_replaced(model) from error
    finally:
        model._sb3_loop_env = None
    if collected:
        check_rollout(buffer, model._last_obs, model.policy, "reward (with the value that SB3 adds at a time-out)")
    return collected
