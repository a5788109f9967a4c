"""One run of time_to_solve.py: train, evaluate at intervals, and stop the clock during evaluations."""

from harness.hyperparameters import scheduled, zoo_entry
from harness.measure import make_dummy_env, make_env

# isort: split
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from sb3_vpg import VPG

ALGORITHMS: dict[str, Any] = {"vpg": VPG, "ppo": PPO, "a2c": A2C}
THRESHOLD = 475.0
WINDOW = 100  # of SB3's buffer of finished episodes, by default
N_EVALUATED, EVALUATION_SEED = 20, 10_000


@dataclass(frozen=True)
class Setting:
    """
    :param label: name in the report
    :param kind: kind of environment, see ``measure.make_env``
    :param budget: environment steps of the run, at which the schedules end
    :param every: environment steps between evaluations; each takes place after the update that reaches this number
    :param options: arguments of the algorithm
    """

    label: str
    algorithm: str
    kind: str
    n_envs: int
    budget: int
    every: int
    options: dict[str, Any]


def zoo_setting(label: str, algorithm: str, every: int, kind: str = "dummy") -> Setting:
    """:return: rl-zoo3's tuned setting for CartPole-v1, from its hyperparameter file"""
    options = zoo_entry(algorithm, "CartPole-v1")
    n_envs, budget = options.pop("n_envs"), options.pop("n_timesteps")
    assert not options.keys() & {"normalize", "policy_kwargs"}
    return Setting(label, algorithm, kind, n_envs, int(budget), every, options)


def evaluate(model: BaseAlgorithm, env: VecEnv, deterministic: bool = True) -> float:
    """Every call plays the same initial states. :return: mean return of one episode in each environment"""
    env.seed(EVALUATION_SEED)
    observations: Any = env.reset()
    returns_N, playing_N = np.zeros(env.num_envs), np.ones(env.num_envs, dtype=bool)
    while playing_N.any():
        actions, _ = model.predict(observations, deterministic=deterministic)
        observations, rewards_N, dones_N, _ = env.step(actions)
        returns_N += rewards_N * playing_N
        playing_N &= ~dones_N
    return float(returns_N.mean())


def evaluation_env(env_id: str, n_envs: int, trained: VecEnv) -> VecEnv:
    """:return: environments without the wrappers of ``trained``, but with observations that are normalised as there"""
    env: VecEnv = make_dummy_env(env_id, n_envs)
    if isinstance(trained, VecNormalize):
        env = VecNormalize(env, training=False, norm_obs=trained.norm_obs, norm_reward=False)
        if trained.norm_obs:
            env.obs_rms = trained.obs_rms
    return env


class ProgressCallback(BaseCallback):
    """
    Evaluate during training, and record when the returns reach ``THRESHOLD``. The clock counts CPU seconds, without those of
    this callback.

    :param every: environment steps between evaluations
    """

    def __init__(self, every: int) -> None:
        super().__init__()
        self.every, self.due = every, every
        self.env = make_env("native", N_EVALUATED)
        self.evaluations: list[tuple[int, float, float]] = []  # steps, seconds, mean return
        self.training: tuple[int, float] | None = None  # steps, seconds at the threshold
        self.spent, self.since = 0.0, 0.0  # CPU seconds so far; the process's CPU time when the clock was started

    def start(self) -> None:
        self.since = time.process_time()

    def stop(self) -> None:
        self.spent += time.process_time() - self.since

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        """Evaluate here and not in ``_on_rollout_end``, which comes before the update."""
        self.stop()
        if self.num_timesteps >= self.due:
            self._evaluate()
        self.start()

    def _on_rollout_end(self) -> None:
        self.stop()
        buffer = self.model.ep_info_buffer or ()
        if self.training is None and len(buffer) == WINDOW and np.mean([episode["r"] for episode in buffer]) >= THRESHOLD:
            self.training = (self.model.num_timesteps, self.spent)
        self.start()

    def _on_training_end(self) -> None:
        self.stop()
        self._evaluate()
        self.start()

    def _evaluate(self) -> None:
        n_steps = self.model.num_timesteps
        self.evaluations.append((n_steps, self.spent, evaluate(self.model, self.env)))
        self.due = (n_steps // self.every + 1) * self.every


def train(setting: Setting, seed: int) -> dict[str, Any]:
    """
    Train until the budget is spent.

    :return: ``evaluations`` (steps, seconds, mean return) and ``training`` of ``ProgressCallback``; ``steps`` and ``seconds``
        of the training; ``making``, the seconds in which environments and model were built, which no other number
        contains; ``failure``, the error that ended the training, or None
    """
    before = time.process_time()
    env = make_env(setting.kind, setting.n_envs, seed)
    model = ALGORITHMS[setting.algorithm]("MlpPolicy", env, seed=seed, device="cpu", **scheduled(setting.options))
    making = time.process_time() - before
    progress = ProgressCallback(setting.every)
    failure = None
    progress.start()
    try:
        model.learn(setting.budget, progress)
    except ValueError as error:  # training diverged; the seed counts as one that failed
        failure = str(error)
    progress.stop()
    result = {"evaluations": progress.evaluations, "training": progress.training, "failure": failure}
    return {**result, "steps": model.num_timesteps, "seconds": progress.spent, "making": making}
