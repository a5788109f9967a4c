"""
Train in a vector environment of gymnasium: here CartPole in NumPy, all environments in one call.

    python examples/vector_environment.py
"""

from time import perf_counter

from sb3_vpg import VPG
from sb3_vpg.vec_env import make_vec_env


def main(total_timesteps: int = 500_000) -> None:
    for n_envs in (1, 16, 256):
        env = make_vec_env("CartPole-v1", n_envs=n_envs, vectorization_mode="native", seed=0)
        # The same number of steps for each update
        model = VPG("MlpPolicy", env, n_steps=8192 // n_envs, learning_rate=5e-3, seed=0)
        start = perf_counter()
        model.learn(total_timesteps)
        print(f"{n_envs:>3} environments: {total_timesteps / (perf_counter() - start):,.0f} steps a second")


if __name__ == "__main__":
    main()
