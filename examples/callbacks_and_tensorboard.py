"""
Evaluate during training, keep the best model, and log a value of your own to TensorBoard.

    python examples/callbacks_and_tensorboard.py
    tensorboard --logdir logs/tensorboard
"""

from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env

from sb3_vpg import VPG


class ActionShare(BaseCallback):
    """Logs the share of action 1 in each rollout."""

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        self.logger.record("rollout/share_of_action_1", self.locals["rollout_buffer"].actions.mean())


def main(total_timesteps: int = 50_000) -> None:
    env = make_vec_env("CartPole-v1", n_envs=4, seed=0)
    best = EvalCallback(make_vec_env("CartPole-v1", seed=100), eval_freq=2_500, best_model_save_path="logs/best", verbose=0)
    model = VPG("MlpPolicy", env, tensorboard_log="logs/tensorboard", seed=0)
    model.learn(total_timesteps, callback=[best, ActionShare()], tb_log_name="vpg")
    print(f"Best mean return of an evaluation: {best.best_mean_reward:.1f}")


if __name__ == "__main__":
    main()
