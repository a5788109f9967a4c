"""
REINFORCE with whole episodes: what the baseline does to learning.

    python examples/baselines.py
"""

import numpy as np
from stable_baselines3.common.env_util import make_vec_env

from sb3_vpg import VPG


def main(total_timesteps: int = 50_000) -> None:
    for baseline in ("none", "average", "leave_one_out", "value"):
        returns = []
        for seed in range(3):
            env = make_vec_env("CartPole-v1", n_envs=4, seed=seed)
            model = VPG("MlpPolicy", env, n_episodes=2, baseline=baseline, learning_rate=5e-3, seed=seed)
            model.learn(total_timesteps)
            returns.append(np.mean([episode["r"] for episode in model.ep_info_buffer]))
        print(f"{baseline:>13}: return of the last 100 episodes, seeds 0 to 2: {np.round(returns, 1)}")


if __name__ == "__main__":
    main()
