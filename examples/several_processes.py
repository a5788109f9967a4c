"""
Train one model on several processes. The result does not depend on how many there are.

    torchrun --nproc-per-node 2 examples/several_processes.py

If training was killed, start the command again, and it goes on, also with another number of processes. Without torchrun,
``python examples/several_processes.py`` trains the model in one process; that run cannot go on under torchrun.
"""

from stable_baselines3.common.env_util import make_vec_env as make_all
from stable_baselines3.common.evaluation import evaluate_policy

from sb3_vpg import VPG
from sb3_vpg.checkpoints import TrainingCheckpoint
from sb3_vpg.distributed import get_rank, get_world_size, make_vec_env


def main(total_timesteps: int = 100_000, folder: str = "logs/several_processes") -> None:
    # With two processes, four environments each
    env = make_vec_env("CartPole-v1", n_envs=8, seed=0)
    model = VPG("MlpPolicy", env, n_steps=64, seed=0)
    model.learn(total_timesteps, callback=TrainingCheckpoint(folder))
    # VPG writes its files in the first process only; so does this program
    if get_rank() == 0:
        model.save(f"{folder}/model")
        mean, _ = evaluate_policy(model, make_all("CartPole-v1", seed=1), n_eval_episodes=20)
        print(f"Return over 20 episodes: {mean:.1f}, after {model.num_timesteps} steps of {get_world_size()} processes")


if __name__ == "__main__":
    main()
