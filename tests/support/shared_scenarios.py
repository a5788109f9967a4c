"""
A program in which two processes train, and something happens: ``python shared_scenarios.py FOLDER``. Each scenario has a
folder with the output of each process, and ``codes.json`` has the exit codes of all.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from forked_processes import run, start, wait
from killing_callback import VARIABLE
from shared_training import CARTPOLE, N_ENVS, PENDULUM, weights_of
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env as sb3_make_vec_env
from stable_baselines3.common.vec_env import VecNormalize
from torch import nn

from sb3_vpg import VPG, RandomSearch
from sb3_vpg.checkpoints import TrainingCheckpoint
from sb3_vpg.distributed import get_rank, make_vec_env
from sb3_vpg.zoo.cli import main
from sb3_vpg.zoo.train import command

# Imported once, before the forks
assert command

TOTAL = N_ENVS * 32 * 6
ZOO = ["train", "--env", CARTPOLE, "-n", "3000", "--seed", "1", "--checkpoint-freq", "1000", "--eval-freq", "1000"]


class At(BaseCallback):
    """Does something in one process at a number of steps; a result of False stops training."""

    def __init__(self, process: int, step: int, action: Callable[[], Any]) -> None:
        super().__init__()
        self.process, self.step, self.action = process, step, action

    def _on_step(self) -> bool:
        return self.action() is not False if get_rank() == self.process and self.num_timesteps >= self.step else True


class Drift(BaseCallback):
    """
    Changes the weights of the second process a little after the first update, as a processor that rounds differently would do.
    """

    weights: list[np.ndarray]
    """Before each rollout."""

    def _on_step(self) -> bool:
        return True

    def _on_training_start(self) -> None:
        self.weights = []

    def _on_rollout_start(self) -> None:
        if get_rank() == len(self.weights) == 1:
            with th.no_grad():
                self.model.policy.action_net.weight.add_(1e-6)
        self.weights.append(weights_of(self.model))


def model(env: Any = None, **options: Any) -> VPG:
    env = make_vec_env(CARTPOLE, n_envs=N_ENVS, seed=3) if env is None else env
    return VPG("MlpPolicy", env, **{"seed": 5, "n_steps": 32, "n_critic_updates": 2, "device": "cpu", **options})


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def learn(folder: Path, callback: Any = None, normalized: bool = False, **options: Any) -> None:
    """Train, and write the weights and the number of steps."""
    env = VecNormalize(make_vec_env(PENDULUM, n_envs=N_ENVS, seed=3)) if normalized else None
    trained = model(env, **options)
    trained.learn(TOTAL, callback=callback)
    if get_rank() == 0:
        np.savez(folder / "result.npz", weights=weights_of(trained), timesteps=trained.num_timesteps)


def drift(folder: Path) -> None:
    """Write the weights of each process."""
    callback = Drift()
    model(n_steps=16).learn(3 * 16 * N_ENVS, callback)
    np.save(folder / f"weights_{get_rank()}.npy", callback.weights)


def failing(learn: Callable[[], Any]) -> None:
    """Print the error."""
    try:
        learn()
    except (ValueError, RuntimeError) as error:
        print(f"{type(error).__name__}: {error}")
    else:
        print("no error")


def files_and_output(folder: Path) -> None:
    """Train with everything that prints and writes."""
    evaluation = EvalCallback(sb3_make_vec_env(CARTPOLE), eval_freq=64, log_path=str(folder / "eval"))
    writer = CheckpointCallback(64, str(folder / f"models_{get_rank()}"))
    model(tensorboard_log=str(folder / "tensorboard"), verbose=1).learn(
        TOTAL, [evaluation, writer], log_interval=1, progress_bar=True
    )


class ShortCartPole(gym.wrappers.TimeLimit):
    """CartPole, whose number of environments each process chooses."""

    def __init__(self) -> None:
        super().__init__(gym.make(CARTPOLE).unwrapped, 100)


def unequal_shares() -> None:
    model(sb3_make_vec_env(ShortCartPole, n_envs=2 + get_rank(), seed=get_rank() * 10)).learn(TOTAL)


def equal_seeds() -> None:
    model(sb3_make_vec_env(ShortCartPole, n_envs=2, seed=7), seed=None).learn(TOTAL)


def other_settings() -> None:
    model(gamma=0.9 + 0.01 * get_rank()).learn(TOTAL)


def one_checkpoint() -> None:
    model().learn(TOTAL, TrainingCheckpoint("never_written") if get_rank() == 0 else None)


def one_normalizes() -> None:
    env = make_vec_env(CARTPOLE, n_envs=N_ENVS, seed=3)
    model(VecNormalize(env) if get_rank() == 0 else env).learn(TOTAL)


class Hook(BaseCallback):
    """Adds a hook to the policy of the first process, so that only torch can compute it there."""

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        if get_rank() == 0 and self.num_timesteps > 0:
            self.model.policy.action_net.register_forward_hook(lambda *_: None)


def random_search() -> None:
    RandomSearch("LinearPolicy", make_vec_env(CARTPOLE, n_envs=2)).learn(100)


REFUSALS: dict[str, Callable[[], Any]] = {
    "unequal shares": unequal_shares,
    "equal seeds": equal_seeds,
    "other settings": other_settings,
    "other step sizes": lambda: model(learning_rate=0.001 * (1 + get_rank())).learn(TOTAL),
    "one normalizes": one_normalizes,
    "one checkpoint": one_checkpoint,
    "one hook": lambda: model().learn(TOTAL, Hook()),
    "RandomSearch": random_search,
    "gSDE": lambda: model(make_vec_env(PENDULUM, n_envs=2), use_sde=True).learn(TOTAL),
    "dropout": lambda: model(policy_kwargs={"activation_fn": nn.Dropout}).learn(TOTAL),
    "not divisible": lambda: make_vec_env(CARTPOLE, n_envs=3),
}
ZOO_REFUSALS = {
    "optimize": ["optimize", "--env", CARTPOLE],
    "evaluate": ["evaluate", "--env", CARTPOLE],
    "search flag": ["train", "--env", CARTPOLE, "-optimize"],
    "vec-env": ["train", "--env", CARTPOLE, "--vec-env", "subproc"],
    "algo": ["train", "--env", CARTPOLE, "--algo", "ppo"],
    "n_envs": ["train", "--env", CARTPOLE, "--hyperparams", "n_envs:3"],
}


def zoo_killed(arguments: list[str]) -> int:
    """The second process kills itself in the middle of a rollout."""
    if get_rank() != 1:
        del os.environ[VARIABLE]
    return main(arguments)


def interrupted(folder: Path) -> list[int]:
    """Ctrl-C after the first checkpoint, as torchrun passes it on."""
    flags = ["-n", "3000000", "-f", str(folder / "logs")]
    processes = start(2, partial(main, [*ZOO, *flags]), folder)
    while not list(folder.rglob("checkpoint_*")):
        time.sleep(0.05)
    for process in processes:
        os.kill(process, signal.SIGINT)
    return wait(processes)


def scenarios(folder: Path) -> dict[str, list[int]]:
    """:return: the exit codes of each scenario"""
    codes = {}

    def play(name: str, n_processes: int, function: Callable[[], Any], **variables: str) -> None:
        codes[name] = run(n_processes, function, folder / name, **variables)

    for name, function in REFUSALS.items():
        play(name, 2, partial(failing, function))
    for name, arguments in ZOO_REFUSALS.items():
        play(f"zoo {name}", 2, partial(main, [*arguments, "-f", str(folder / "refused")]))
    play("loud", 2, partial(files_and_output, folder / "loud"))
    for kind, options in {"steps": {}, "episodes": {"n_episodes": 2}}.items():
        # Process 1 stops in the middle of a rollout; in a single process, every environment does
        for n_processes, stopper in ((1, 0), (2, 1)):
            name = f"stop {kind} {n_processes}"
            play(name, n_processes, partial(learn, folder / name, At(stopper, 808, lambda: False), **options))
    play("drift", 2, partial(drift, folder / "drift"))
    checkpoint = TrainingCheckpoint(folder / "resumed", save_freq=500)
    play("unbroken", 2, partial(learn, folder / "unbroken", normalized=True))
    play("killed", 2, partial(learn, folder / "killed", [checkpoint, At(1, 700, kill)], True))
    play("plain resume", 1, partial(failing, partial(learn, folder, [checkpoint], True)), TORCHELASTIC_RUN_ID="")
    play("resumed", 4, partial(learn, folder / "resumed", [checkpoint], True))
    logs = ["-f", str(folder / "zoo logs")]
    play("zoo plain", 1, partial(main, [*ZOO, *logs]), TORCHELASTIC_RUN_ID="")
    play("zoo", 2, partial(main, [*ZOO, *logs]))
    accident = ["-params", "callback:'killing_callback.Accident'", "-f", str(folder / "accident")]
    play("zoo killed", 2, partial(zoo_killed, [*ZOO, *accident]), **{VARIABLE: "1500 SIGKILL"})
    play("zoo restarted", 2, partial(main, [*ZOO, *accident]), TORCHELASTIC_RESTART_COUNT="1")
    codes["zoo interrupted"] = interrupted(folder / "zoo interrupted")
    return codes


if __name__ == "__main__":
    th.set_num_threads(1)
    # A background shell may ignore it
    signal.signal(signal.SIGINT, signal.default_int_handler)
    where = Path(sys.argv[1])
    (where / "codes.json").write_text(json.dumps(scenarios(where)))
