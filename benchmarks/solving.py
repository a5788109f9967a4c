"""One run of time_to_solve.py: train, look at the policy every so often, and stop the clock while looking."""

from measure import make_env

# isort: split
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecEnv

from sb3_vpg import VPG

ALGORITHMS: dict[str, Any] = {"vpg": VPG, "ppo": PPO, "a2c": A2C}
THRESHOLD = 475.0
WINDOW = 100  # of SB3's buffer of finished episodes, by default
N_EVALUATED, EVALUATION_SEED = 20, 10_000


@dataclass(frozen=True)
class Setting:
    """
    :param label: what it is called
    :param kind: of environment, see ``measure.make_env``
    :param budget: environment steps; also where schedules end
    :param every: environment steps from one evaluation to the next, at the end of the update that reaches them
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
    """:return: what rl-zoo3 has tuned for CartPole-v1, from its own file"""
    # Found and not imported, for an import of rl_zoo3 changes gymnasium
    package = find_spec("rl_zoo3")
    assert package is not None
    assert package.origin is not None
    file = Path(package.origin).parent / "hyperparams" / f"{algorithm}.yml"
    options = yaml.safe_load(file.read_text())["CartPole-v1"]
    n_envs, budget, policy = options.pop("n_envs"), options.pop("n_timesteps"), options.pop("policy")
    # What else the zoo understands is not to be met here
    assert policy == "MlpPolicy"
    assert not options.keys() & {"normalize", "policy_kwargs", "env_wrapper", "frame_stack"}
    return Setting(label, algorithm, kind, n_envs, int(budget), every, options)


def scheduled(options: dict[str, Any]) -> dict[str, Any]:
    """:return: the options, with a text such as ``lin_0.001`` as the zoo's schedule: linear, down to 0 at the end"""
    made = dict(options)
    for name, value in options.items():
        if isinstance(value, str) and value.startswith("lin_"):
            made[name] = LinearSchedule(float(value.removeprefix("lin_")), 0.0, end_fraction=1.0)
    return made


def evaluate(model: BaseAlgorithm, env: VecEnv) -> float:
    """:return: mean deterministic return of one episode in each environment, always from the same starts"""
    env.seed(EVALUATION_SEED)
    observations: Any = env.reset()
    returns_N, playing_N = np.zeros(env.num_envs), np.ones(env.num_envs, dtype=bool)
    while playing_N.any():
        actions, _ = model.predict(observations, deterministic=True)
        observations, rewards_N, dones_N, _ = env.step(actions)
        returns_N += rewards_N * playing_N
        playing_N &= ~dones_N
    return float(returns_N.mean())


class Watch(BaseCallback):
    """
    Notes how far training is. Its clock counts CPU seconds, and stands while this class is at work.

    :param every: environment steps from one evaluation to the next
    """

    def __init__(self, every: int) -> None:
        super().__init__()
        self.every, self.due = every, every
        self.env = make_env("native", N_EVALUATED)
        self.evaluations: list[tuple[int, float, float]] = []  # steps, seconds, mean return
        self.training: tuple[int, float] | None = None  # when the last episodes of training were good: steps, seconds
        self.spent, self.since = 0.0, 0.0

    def start(self) -> None:
        self.since = time.process_time()

    def stop(self) -> None:
        self.spent += time.process_time() - self.since

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        """Here the update that follows a rollout is done, which at its end it is not."""
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


def solve(setting: Setting, seed: int) -> dict[str, Any]:
    """
    Train until the budget is spent.

    :return: ``evaluations`` (steps, seconds, mean return) and ``training``, see ``Watch``; ``steps`` and ``seconds`` of the
        training; ``making``, the seconds for environments and model, which are not in any of the others; and ``failure``,
        None unless the algorithm gave up before
    """
    before = time.process_time()
    env = make_env(setting.kind, setting.n_envs, seed)
    model = ALGORITHMS[setting.algorithm]("MlpPolicy", env, seed=seed, device="cpu", **scheduled(setting.options))
    making = time.process_time() - before
    watch = Watch(setting.every)
    failure = None
    watch.start()
    try:
        model.learn(setting.budget, watch)
    except ValueError as error:  # a policy that is no longer finite; the seed counts all the same
        failure = str(error)
    watch.stop()
    found = {"evaluations": watch.evaluations, "training": watch.training, "failure": failure}
    return {**found, "steps": model.num_timesteps, "seconds": watch.spent, "making": making}
