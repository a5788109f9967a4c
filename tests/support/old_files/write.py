"""
Writes the files of this folder: files of commit b385936, which users have on their disks and every later version loads.

They were written once, by the code of that commit::

    git worktree add /tmp/old b385936 && cd /tmp/old
    PYTHONPATH=/tmp/old python <this file> FOLDER

``tests/persistence/test_old_files.py`` imports the environments and the runs from here, so that the same script resumes a run.
Do not write the files again: a newer version that reads its own files proves nothing.
"""

import json
import random
import shutil
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import rl_zoo3  # noqa: F401  # it replaces gymnasium's TimeLimit, and a run must resume with the same classes
import torch as th
from gymnasium import Env, spaces
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize

from sb3_vpg import VPG, RandomSearch
from sb3_vpg.checkpoints.callback import TrainingCheckpoint
from sb3_vpg.vec_env import gym_vec_env as vec_env
from sb3_vpg.zoo import cli

FILES = Path(__file__).parent
SEED, TOTAL, SAVED_AT = 7, 1500, 768
RUNS = ("steps", "episodes")
MODELS = ("value", "box_episodes", "dict_episodes", "random_search", "normalized")


class DictEnv(Env[dict[str, Any], int]):
    """Episodes of five to nine steps; the reward is 1 if the action equals the sign in the observation."""

    observation_space = spaces.Dict({"sign": spaces.Discrete(2), "noise": spaces.Box(-1.0, 1.0, (2,), np.float32)})
    action_space = spaces.Discrete(2)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        super().reset(seed=seed)
        self.left = int(self.np_random.integers(5, 10))
        return self._observe(), {}

    def step(self, action: int) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        reward = float(int(action) == self.sign)
        self.left -= 1
        return self._observe(), reward, self.left == 0, False, {}

    def _observe(self) -> dict[str, Any]:
        self.sign = int(self.np_random.integers(2))
        return {"sign": self.sign, "noise": self.np_random.uniform(-1, 1, 2).astype(np.float32)}


def observations_of(name: str) -> Any:
    """:return: fifty observations; ``actions.json`` holds the actions of the model with this name"""
    rng = np.random.default_rng(0)
    if name == "dict_episodes":
        return {"sign": rng.integers(2, size=50), "noise": rng.uniform(-1, 1, (50, 2)).astype(np.float32)}
    return rng.normal(size=(50, 3 if name == "normalized" else 4)).astype(np.float32)


def models() -> dict[str, VPG | RandomSearch]:
    """:return: trained models by name"""
    small: dict[str, Any] = {"policy_kwargs": {"net_arch": [8]}, "seed": SEED, "device": "cpu", "learning_rate": "lin_0.01"}
    cart_poles = make_vec_env("CartPole-v1", 2, seed=SEED)
    pendulums = VecNormalize(make_vec_env("Pendulum-v1", 2, seed=SEED))
    built: dict[str, VPG | RandomSearch] = {
        "value": VPG("MlpPolicy", cart_poles, n_steps=64, **small),
        "box_episodes": VPG("LinearPolicy", "CartPole-v1", n_episodes=2, baseline="leave_one_out", seed=SEED, device="cpu"),
        "dict_episodes": VPG("MultiInputPolicy", DummyVecEnv([DictEnv] * 2), n_episodes=3, baseline="average", **small),
        "random_search": RandomSearch("LinearPolicy", "CartPole-v1", seed=SEED, reward_threshold=float("inf")),
        "normalized": VPG("MlpPolicy", pendulums, n_steps=64, **small),
    }
    assert tuple(built) == MODELS
    return {name: model.learn(1024) for name, model in built.items()}


class StopAt(BaseCallback):
    """Ends training in the middle of a rollout, as a kill does."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    def _on_step(self) -> bool:
        return self.num_timesteps < self.step


def run(name: str, folder: Path, stop_at: int = 10 * TOTAL) -> VPG:
    """Start or resume a run with checkpoints in ``folder``."""
    random.seed(SEED)
    np.random.seed(SEED)
    th.manual_seed(SEED)
    env: VecEnv
    played: VecEnv
    options: dict[str, Any]
    if name == "steps":
        env = VecNormalize(make_vec_env("CartPole-v1", 4, seed=SEED))
        played = VecNormalize(make_vec_env("CartPole-v1", 1, seed=SEED), training=False, norm_reward=False)
        options = {"n_steps": 32, "learning_rate": "lin_0.01", "batch_size": 50, "normalize_advantage": True}
    else:
        env, played = (vec_env.make_vec_env("CartPole-v1", n_envs, SEED) for n_envs in (4, 2))
        options = {"n_episodes": 2, "baseline": "leave_one_out", "learning_rate": 0.01}
    evaluation = EvalCallback(played, best_model_save_path=str(folder), eval_freq=64, n_eval_episodes=2, verbose=0)
    checkpoint = TrainingCheckpoint(folder, save_freq=256, keep=100, verbose=0)
    net = {"net_arch": [8]}
    model = VPG("MlpPolicy", env, seed=SEED, n_critic_updates=2, policy_kwargs=net, device="cpu", **options)
    return model.learn(TOTAL, callback=[evaluation, checkpoint, StopAt(stop_at)])


def written_by() -> dict[str, str]:
    """:return: versions and CPU capability, on which the last bit of a weight depends"""
    libraries = {name: version(name) for name in ("torch", "numpy", "stable_baselines3", "gymnasium")}
    return {**libraries, "cpu": th.backends.cpu.get_cpu_capability()}


def compare_flags(folder: Path, n_seeds: int) -> list[str]:
    few = ["--n-evaluations", "2", "--eval-episodes", "2", "--final-episodes", "3"]
    what = ["compare", "--algos", "vpg", "--envs", "CartPole-v1", "--seeds", str(n_seeds), "-n", "600"]
    return [*what, *few, "--n-jobs", "1", "-f", str(folder)]


def optimize_flags(study: Path, logs: Path, n_trials: int) -> list[str]:
    where = ["--storage", str(study), "--study-name", "old", "-f", str(logs), "--no-optim-plots", "--seed", "1"]
    return ["optimize", "--env", "CartPole-v1", "-n", "300", "--n-trials", str(n_trials), "--eval-episodes", "1", *where]


def from_the_command_line(folder: Path) -> None:
    """Write a repository of the hub, a study, and a comparison in which the first of two seeds has been run."""
    logs = folder / "logs"
    train = ["train", "--env", "CartPole-v1", "-n", "1000", "--eval-freq", "500", "--seed", "4", "-params", "normalize:True"]
    push = ["push_to_hub", "--env", "CartPole-v1", "-orga", "me", "--local-hub", str(folder / "hub"), "--no-render"]
    for command in (
        [*train, "-f", str(logs)],
        [*push, "-f", str(logs), "--n-eval-episodes", "4", "--seed", "7"],
        optimize_flags(folder / "study.log", logs, 2),
        compare_flags(folder / "comparison", 1),
    ):
        assert cli.main([*command, "--verbose", "0"] if command[0] in ("train", "optimize") else command) == 0
    shutil.rmtree(logs)
    comparison = folder / "comparison"
    for path in [*comparison.iterdir()]:
        if path.is_dir():
            shutil.rmtree(path)
    (comparison / ".lock").unlink()


def main(folder: Path) -> None:
    actions = {}
    for name, model in models().items():
        model.save(folder / f"{name}.zip")
        actions[name] = model.predict(observations_of(name), deterministic=True)[0].tolist()
    for name in RUNS:
        run(name, folder / name).save(folder / f"{name}_at_the_end.zip")
        steps = sorted(int(path.stem.split("_")[1]) for path in (folder / name).glob("checkpoint_*"))
        kept = max(step for step in steps if step <= SAVED_AT)
        (folder / name / f"checkpoint_{kept}_steps.zip").rename(folder / f"{name}_checkpoint_{kept}_steps.zip")
        shutil.rmtree(folder / name)
    from_the_command_line(folder)
    (folder / "actions.json").write_text(json.dumps(actions))
    (folder / "written_by.json").write_text(json.dumps(written_by(), indent=1))


if __name__ == "__main__":
    th.set_num_threads(1)
    main(Path(sys.argv[1]))
