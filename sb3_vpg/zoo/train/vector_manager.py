"""``--vec-env native`` and ``--vec-env envpool``: training in one ``GymVecEnv``."""

from typing import Any

from stable_baselines3.common.vec_env import VecEnv

from sb3_vpg.zoo.train.experiment_manager import VPGExperimentManager
from sb3_vpg.zoo.vector_modes import make_gym_vec_env


class VectorExperimentManager(VPGExperimentManager):
    """
    Differs from its parent in two points:

    * environments for training and evaluation are a ``GymVecEnv`` each, wrapped as the hyperparameters say (``normalize``,
      ``frame_stack``, ``vec_env_wrapper``);
    * if ``n_eval_envs`` is 0, evaluation uses one environment for each episode. The command line sets 0 if the user gives no
      number: evaluation in a single environment would be slow.

    :param mode: one of ``VECTOR_MODES``
    """

    def __init__(self, args: Any, algo: str, *others: Any, mode: str, **kwargs: Any) -> None:
        super().__init__(args, algo, *others, **kwargs)
        self._mode = mode
        if self.n_eval_envs == 0:
            self.n_eval_envs = args.n_eval_envs = self.n_eval_episodes
        # For args.yml: the zoo's manager was given "dummy"
        args.vec_env = mode

    def build_vec_env(self, *args: Any, **kwargs: Any) -> VecEnv:
        """See ``make_gym_vec_env``."""
        return make_gym_vec_env(self._mode, self.env_name.gym_id, *args, **kwargs)
