"""``--vec-env native``: the zoo's programs on gymnasium's native vector environments."""

from functools import partial
from typing import Any

import rl_zoo3.utils
from stable_baselines3.common.vec_env import VecEnv

from sb3_vpg.vec_env import GymVecEnv, make_vec_env
from sb3_vpg.zoo.experiment import VPGExperimentManager
from sb3_vpg.zoo.playing import create_test_env
from sb3_vpg.zoo.replaced import replaced


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


def create_native_test_env(env_id: str, *args: Any, **kwargs: Any) -> VecEnv:
    """
    The zoo's ``create_test_env`` on a native vector environment.

    :raises ValueError: as ``NativeExperimentManager``, and for a ``render_mode`` that it does not have
    """
    with replaced(rl_zoo3.utils, "make_vec_env", partial(_make, env_id)):
        return create_test_env(env_id, *args, **kwargs)


def _make(
    env_id: str,
    make_env: object,
    n_envs: int,
    *,
    wrapper_class: object = None,
    vec_env_cls: object = None,
    vec_env_kwargs: object = None,
    env_kwargs: dict[str, Any] | None = None,
    **others: Any,
) -> GymVecEnv:
    """Takes SB3's arguments as the zoo gives them; those that are about single environments have no meaning here."""
    if wrapper_class is not None:
        raise ValueError(
            f"env_wrapper wraps single environments, of which a native vector environment of {env_id} has none; "
            "leave out --vec-env native, or use a vec_env_wrapper instead"
        )
    if (env_kwargs or {}).get("render_mode") == "human":
        raise ValueError("a native vector environment opens no window; add --no-render, or leave out --vec-env native")
    return make_vec_env(env_id, n_envs, env_kwargs=env_kwargs, vectorization_mode="native", **others)
