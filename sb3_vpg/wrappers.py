"""Environment wrappers, for Python and for ``env_wrapper`` in the zoo's hyperparameter files."""

from typing import Any, SupportsFloat

import gymnasium as gym
from gymnasium.core import ActType, ObsType


class SurvivalReward(gym.Wrapper[ObsType, ActType, ObsType, ActType], gym.utils.RecordConstructorArgs):
    """
    A sparse reward: 1 on the step that reaches the time limit (truncated and not terminated), 0 on every other step. The
    return of an episode is 1 if it lasted until the time limit, else 0; without a time limit it is always 0.

    In the zoo: ``env_wrapper: sb3_vpg.wrappers.SurvivalReward``. There, and with ``wrapper_class`` of SB3's
    ``make_vec_env``, the wrapper is *outside* of ``Monitor``. The agent then learns from the sparse reward, but ``Monitor``'s
    files, ``rollout/ep_rew_mean``, ``EvalCallback`` (and so the choice of the best model) and ``evaluate_policy`` show the
    task's own return. On CartPole that is the length of the episode. To see the sparse return, apply this wrapper inside of
    ``Monitor``: ``VPG("MlpPolicy", SurvivalReward(gym.make(...)))``, or
    ``make_vec_env(lambda: SurvivalReward(gym.make(...)))``.

    :param env: the environment, with its time limit
    """

    def __init__(self, env: gym.Env[ObsType, ActType]) -> None:
        gym.utils.RecordConstructorArgs.__init__(self)
        gym.Wrapper.__init__(self, env)

    def step(self, action: ActType) -> tuple[ObsType, SupportsFloat, bool, bool, dict[str, Any]]:
        """See ``gymnasium.Env.step``. If an episode terminates on the last possible step, the reward is 0."""
        observation, _, terminated, truncated, info = self.env.step(action)
        return observation, float(truncated and not terminated), terminated, truncated, info
