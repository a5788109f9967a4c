"""``--vec-env native``: the zoo's programs on gymnasium's native vector environments."""

from typing import Any

from stable_baselines3.common.vec_env import VecEnv

from sb3_vpg.zoo.native_vec_env import _make
from sb3_vpg.zoo.train.experiment_manager import VPGExperimentManager


class NativeExperimentManager(VPGExperimentManager):
    """
    Differs from its parent in two points:

    * environments, for training and for evaluation, are native vector environments, inside of what the hyperparameters say
      (``normalize``, ``frame_stack``, ``vec_env_wrapper``);
    * evaluation runs in as many environments as it has episodes where ``n_eval_envs`` is 0, which the command line puts in
      when the user asked for no number: a vector environment of one would be slow.
    """

    def __init__(self, args: Any, algo: str, *others: Any, **kwargs: Any) -> None:
        super().__init__(args, algo, *others, **kwargs)
        if self.n_eval_envs == 0:
            self.n_eval_envs = args.n_eval_envs = self.n_eval_episodes
        # For args.yml; the zoo's own parser knows nothing of native ones
        args.vec_env = "native"

    def _build_vec_env(self, *args: Any, **kwargs: Any) -> VecEnv:
        """:raises ValueError: if the environment has no native vector environment, or if there is an ``env_wrapper``"""
        return _make(self.env_name.gym_id, *args, **kwargs)
