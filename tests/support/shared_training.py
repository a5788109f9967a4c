"""
A program that trains on one and on several processes: ``python shared_training.py FOLDER N_SHORT PROCESSES...``. ``0``
processes are a plain run. Of each case, the first process writes ``FOLDER/PROCESSES/CASE.npz``. ``N_SHORT`` is the number of
updates of the cases that are not in ``LONG``, and of all cases with more than two processes.
"""

import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from forked_processes import run
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import VecEnv, VecNormalize
from torch import nn

from sb3_vpg import VPG
from sb3_vpg.distributed import get_rank, get_world_size, make_vec_env

N_ENVS, N_UPDATES, N_STEPS = 8, 20, 16
LONG = ("value", "value, episodes", "Box", "VecNormalize")
CARTPOLE, PENDULUM = "CartPole-v1", "Pendulum-v1"
# NumPy cannot compute these networks, so the processes share the work of the update, and exchange sums
TORCH = {"policy_kwargs": {"activation_fn": nn.GELU}}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "value": (CARTPOLE, {"batch_size": 50}),
    "value, episodes": (CARTPOLE, {"n_episodes": 1, "batch_size": 30, "normalize_advantage": True, "discount_steps": True}),
    "none": (CARTPOLE, {"baseline": "none"}),
    "average": (CARTPOLE, {"baseline": "average", "n_episodes": 2, "normalize_advantage": True}),
    "leave_one_out": (CARTPOLE, {"baseline": "leave_one_out", "n_episodes": 1, "reward_to_go": False}),
    "optimal": (CARTPOLE, {"baseline": "optimal", "n_episodes": 1}),
    "Box": (PENDULUM, {"normalize_advantage": True, "ent_coef": 0.01}),
    "FrozenLake": ("FrozenLake-v1", {}),
    "other rewards": (PENDULUM, {}),
    "VecNormalize": (PENDULUM, {}),
    "VecNormalize, episodes": (CARTPOLE, {"n_episodes": 1, "baseline": "none"}),
    "torch": (CARTPOLE, {"n_episodes": 1, "batch_size": 30, **TORCH}),
    # Of such a minibatch, most of four processes have no step
    "torch, tiny minibatches": (CARTPOLE, {"batch_size": 3, "normalize_advantage": True, **TORCH}),
    "torch, Box": (PENDULUM, {"batch_size": 50, "ent_coef": 0.01, **TORCH}),
    "torch, average": (CARTPOLE, {"baseline": "average", "n_episodes": 2, **TORCH}),
    "torch, leave_one_out": (CARTPOLE, {"baseline": "leave_one_out", "n_episodes": 1, "reward_to_go": False, **TORCH}),
    "torch, optimal": (CARTPOLE, {"baseline": "optimal", "n_episodes": 1, **TORCH}),
    "torch, VecNormalize": (PENDULUM, TORCH),
}
DIAGNOSTICS = ("gradient_snr", "approx_kl", "explained_variance", "explained_variance_after", "value_loss", "grad_norm")


class Recorder(BaseCallback):
    """Notes the weights before each rollout and the diagnostics of each update, and stops after ``n_updates`` updates."""

    def __init__(self, n_updates: int) -> None:
        super().__init__()
        self.n_updates = n_updates
        self.weights: list[np.ndarray] = []
        self.diagnostics: list[list[float]] = []

    def _on_step(self) -> bool:
        return len(self.weights) <= self.n_updates

    def _on_rollout_start(self) -> None:
        self.weights.append(weights_of(self.model))
        noted = self.logger.name_to_value
        self.diagnostics.append([noted.get(f"train/{name}", np.nan) for name in DIAGNOSTICS])


class Bonus(Recorder):
    """Also adds to the rewards when a rollout is complete, and computes its advantages again, as SB3's callbacks may."""

    def _on_rollout_end(self) -> None:
        buffer = self.locals["rollout_buffer"]
        assert buffer is self.model.rollout_buffer  # type: ignore[attr-defined]  # of VPG
        buffer.rewards += 0.1 * buffer.actions[:, :, 0]
        buffer.compute_returns_and_advantage(self.locals["values"], self.locals["dones"])


class Discard:
    """An output of the logger, so that diagnostics are computed."""

    def write(self, *_: object) -> None: ...

    def close(self) -> None: ...


def weights_of(model: Any) -> np.ndarray:
    return np.concatenate([parameter.detach().numpy().ravel() for parameter in model.policy.parameters()])


def make_env(case: str, env_id: str) -> VecEnv:
    env = make_vec_env(env_id, n_envs=N_ENVS, seed=3)
    return VecNormalize(env) if "VecNormalize" in case else env


def train(folder: Path, n_short: int) -> None:
    """Train each case, and write what must not depend on the number of processes."""
    folder.mkdir(parents=True, exist_ok=True)
    for case, (env_id, options) in CASES.items():
        is_long = case in LONG and get_world_size() <= 2
        env, kind = make_env(case, env_id), Bonus if case == "other rewards" else Recorder
        recorder = kind(N_UPDATES if is_long else n_short)
        options = {"learning_rate": 0.003, "n_critic_updates": 2, "n_steps": N_STEPS, **options}
        model = VPG("MlpPolicy", env, seed=5, device="cpu", **options)
        model.set_logger(Logger(folder=None, output_formats=[Discard()]))  # type: ignore[list-item]  # it writes nothing
        model.learn(10**6, callback=recorder, log_interval=1)
        episodes = [(episode["r"], episode["l"]) for episode in model.ep_info_buffer or ()]
        result = {"weights": recorder.weights, "diagnostics": recorder.diagnostics, "episodes": episodes}
        if isinstance(env, VecNormalize):
            result |= {"mean": env.obs_rms.mean, "returns": env.ret_rms.var, "count": env.ret_rms.count}
        if get_rank() == 0:
            np.savez(folder / f"{case}.npz", timesteps=model.num_timesteps, **result)  # type: ignore[arg-type]  # lists


if __name__ == "__main__":
    th.set_num_threads(1)
    for number in map(int, sys.argv[3:]):
        target = Path(sys.argv[1]) / str(number)
        of_each = partial(train, target, int(sys.argv[2]))
        if number == 0:
            # In a process of its own too, as threads of the parent would not be in the others
            assert run(1, of_each, target, TORCHELASTIC_RUN_ID="") == [0]
        else:
            assert set(run(number, of_each, target)) == {0}, f"see {target}/output_*.txt"
