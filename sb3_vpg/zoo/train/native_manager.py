"""``--vec-env native``: training on gymnasium's native vector environments."""

from typing import Any

from stable_baselines3.common.vec_env import VecEnv

from sb3_vpg.zoo.native_vec_env import make_native_vec_env
from sb3_vpg.zoo.train.experiment_manager import VPGExperimentManager


class NativeExperimentManager(VPGExperimentManager):
    """
    Differs from its parent in two points:

    * environments for training and evaluation are native vector environments, wrapped as the hyperparameters say
      (``normalize``, ``frame_stack``, ``vec_env_wrapper``);
    * if ``n_eval_envs`` is 0, evaluation uses one environment for each episode. The command line sets 0 if the user gives no
      number: evaluation in a single environment would be slow.
    """

    def __init__(self, args: Any, algo: str, *others: Any, **kwargs: Any) -> None:
        super().__init__(args, algo, *others, **kwargs)
        if self.n_eval_envs == 0:
            self.n_eval_envs = args.n_eval_envs = self.n_eval_episodes
        # For args.yml: the zoo's manager was given "dummy"
        args.vec_env = "native"

    def _build_vec_env(self, *args: Any, **kwargs: Any) -> VecEnv:
        """:raises ValueError: if the environment has no native vector environment, or if there is an ``env_wrapper``"""
        return make_native_vec_env(self.env_name.gym_id, *args, **kwargs)
