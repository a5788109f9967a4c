"""Environments side by side: gymnasium's vector environments, and what SB3's ``VecEnv`` leaves open."""

from sb3_vpg.vec_env.gym_vec_env import GymVecEnv, make_vec_env

__all__ = ["GymVecEnv", "make_vec_env"]
