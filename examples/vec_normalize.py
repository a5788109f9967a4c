"""
Normalise observations and rewards, save the statistics with the model, and evaluate with the true rewards.

    python examples/vec_normalize.py
"""

from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecNormalize
from torch import nn

from sb3_vpg import VPG
from sb3_vpg.normalization import load_vec_normalize


def main(total_timesteps: int = 200_000) -> None:
    env = VecNormalize(make_vec_env("Pendulum-v1", n_envs=4, seed=0), gamma=0.9)
    # As in hyperparams/vpg.yml
    model = VPG(
        "MlpPolicy",
        env,
        n_steps=16,
        gamma=0.9,
        gae_lambda=0.9,
        learning_rate="lin_0.0015",
        vf_learning_rate="lin_0.003",
        n_critic_updates=8,
        normalize_advantage=True,
        policy_kwargs={"log_std_init": -0.5, "activation_fn": nn.ReLU},
        seed=0,
    )
    model.learn(total_timesteps)
    model.save("pendulum.zip")

    # The statistics are in the model's file: no vec_normalize.pkl is needed
    test_env = load_vec_normalize("pendulum.zip", make_vec_env("Pendulum-v1", seed=100))
    test_env.training, test_env.norm_reward = False, False
    mean, std = evaluate_policy(VPG.load("pendulum.zip"), test_env, n_eval_episodes=20)
    print(f"Return over 20 episodes: {mean:.0f} +/- {std:.0f} (random actions: about -1200)")


if __name__ == "__main__":
    main()
