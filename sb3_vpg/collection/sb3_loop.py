"""Collection by SB3's own loop, for what ours cannot do: see ``LeanOnPolicyAlgorithm.collect_rollouts``."""

from collections.abc import Callable

from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from sb3_vpg.collection.actors import invalid_distribution_errors
from sb3_vpg.collection.callback_locals import locals_of
from sb3_vpg.collection.check_nan import check_rollout, checked_steps
from sb3_vpg.collection.rollouts import env_replaced


def collect_by_sb3(
    loop: Callable[[VecEnv, BaseCallback, RolloutBuffer, int], bool],
    model: OnPolicyAlgorithm,
    env: VecEnv,
    callback: BaseCallback,
    buffer: RolloutBuffer,
    n_rollout_steps: int,
) -> bool:
    """
    Fill the buffer, and check it as our loop does.

    :param loop: ``OnPolicyAlgorithm.collect_rollouts`` of the model
    :return: False if a callback stopped the collection
    :raises ValueError: if a callback replaces the environment during the rollout
    :raises UnsoundNumberError: if an observation or a reward is NaN, infinite or huge
    """
    locals_of(callback).set_lazy({})
    model_env = model.env
    try:
        with invalid_distribution_errors():
            collected = loop(checked_steps(env, model.policy), callback, buffer, n_rollout_steps)
    except Exception as error:
        # After set_env in _on_rollout_start, SB3's loop fails for want of an observation
        if model.env is model_env or buffer.pos > 0:
            raise
        raise env_replaced(model) from error
    if collected:
        check_rollout(buffer, model._last_obs, model.policy, "reward (with the value that SB3 adds at a time-out)")
    return collected
