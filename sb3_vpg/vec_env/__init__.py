"""gymnasium's vector environments as an SB3 ``VecEnv``, and additions to SB3's own ``VecEnv``."""

from sb3_vpg.vec_env.envpool_vector_env import EnvPoolVectorEnv
from sb3_vpg.vec_env.gym_vec_env import GymVecEnv, make_vec_env

__all__ = ["EnvPoolVectorEnv", "GymVecEnv", "make_vec_env"]
