"""
Train VPG on CartPole and evaluate it.

    python examples/quickstart.py
"""

from stable_baselines3.common.evaluation import evaluate_policy

from sb3_vpg import VPG


def main(total_timesteps: int = 50_000) -> None:
    model = VPG("MlpPolicy", "CartPole-v1", seed=0)
    model.learn(total_timesteps)
    mean, std = evaluate_policy(model, model.get_env(), n_eval_episodes=20)
    print(f"Return over 20 episodes: {mean:.1f} +/- {std:.1f} (the best is 500)")
    model.save("quickstart.zip")


if __name__ == "__main__":
    main()
