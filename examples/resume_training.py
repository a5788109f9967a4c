"""
Train with checkpoints: if this program is killed, start it again, and it resumes where it was.

    python examples/resume_training.py
"""

from stable_baselines3.common.env_util import make_vec_env

from sb3_vpg import VPG
from sb3_vpg.checkpoints import TrainingCheckpoint, latest, progress


def main(total_timesteps: int = 500_000, folder: str = "logs/resumable") -> None:
    checkpoint = latest(folder)
    print("Starting" if checkpoint is None else f"Resuming after {progress(checkpoint)[0]} steps")
    model = VPG("MlpPolicy", make_vec_env("CartPole-v1", n_envs=4, seed=0), seed=0)
    model.learn(total_timesteps, callback=TrainingCheckpoint(folder))
    print(f"Trained for {model.num_timesteps} steps")


if __name__ == "__main__":
    main()
