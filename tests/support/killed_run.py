"""
A program that runs trainings, ``python killed_run.py FOLDER STEP CASE...``. Each case has a folder in ``FOLDER`` with its
final model. At ``STEP`` of the first case the process kills itself; 0: never.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from sb3_vpg import VPG
from sb3_vpg.checkpoints.callback import TrainingCheckpoint
from sb3_vpg.checkpoints.files import latest
from sb3_vpg.vec_env import gym_vec_env as vec_env

TOTAL = 3000


class KillAt(BaseCallback):
    """``kill -9`` in the middle of a rollout; 0: never."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    def _on_step(self) -> bool:
        if 0 < self.step <= self.num_timesteps:
            os.kill(os.getpid(), signal.SIGKILL)
        return True


def make_env(case: str, folder: Path | None) -> VecEnv:
    if case == "native":
        return vec_env.make_vec_env("CartPole-v1", 16, seed=3)
    where: dict[str, Any] = {}
    if folder is not None:
        where = {"monitor_dir": str(folder), "monitor_kwargs": {"override_existing": latest(folder / "checkpoints") is None}}
    env_id = {"gsde": "Pendulum-v1", "mujoco": "HalfCheetah-v5"}.get(case, "CartPole-v1")
    if case == "mujoco":
        where["env_kwargs"] = {"max_episode_steps": 150}
    env = make_vec_env(env_id, n_envs=4, seed=3, **where)
    return VecNormalize(env) if case in ("normalised", "mujoco") else env


def run(folder: Path, case: str, kill_at: int) -> VPG:
    env, eval_env = make_env(case, folder), make_env(case, None)
    if isinstance(eval_env, VecNormalize):
        eval_env.training = eval_env.norm_reward = False
    options = {"use_sde": True} if case == "gsde" else {"learning_rate": "lin_0.01", "batch_size": 50}
    model = VPG("MlpPolicy", env, n_steps=32, seed=7, n_critic_updates=2, device="cpu", **options)  # type: ignore[arg-type]  # a mix
    evaluation = EvalCallback(
        eval_env, eval_freq=90, n_eval_episodes=4, log_path=str(folder), best_model_save_path=str(folder), verbose=0
    )
    checkpoint = TrainingCheckpoint(folder / "checkpoints", save_freq=500, monitor_dir=folder, verbose=0)
    model.learn(TOTAL, callback=[evaluation, checkpoint, KillAt(kill_at)])
    if isinstance(env, VecNormalize):
        statistics = {**vars(env.obs_rms), **{f"return_{name}": value for name, value in vars(env.ret_rms).items()}}
        np.savez(folder / "statistics.npz", returns=env.returns, **statistics)
    env.close()
    return model


if __name__ == "__main__":
    th.set_num_threads(1)
    for name in sys.argv[3:]:
        run(Path(sys.argv[1]) / name, name, int(sys.argv[2])).save(Path(sys.argv[1]) / name / "final.zip")
