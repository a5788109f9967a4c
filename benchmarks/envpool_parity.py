"""
Do EnvPool's environments behave as gymnasium's?

    python benchmarks/envpool_parity.py

Two comparisons for each environment that ``--vec-env envpool`` offers, and for Pendulum-v1, which it does not:

* single steps: gymnasium's environment repeats steps of EnvPool's from the same state;
* episodes: two-sample Kolmogorov-Smirnov tests of returns, lengths, time-outs and observations, of three policies: random
  actions, actions that a random matrix computes from the observation, and a trained agent.

The tables are in benchmarks/results/envpool_parity.md, deciles and p-values in envpool_parity.json. Takes 12 minutes.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"

# isort: split
import sys
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from harness.report import Goal, goal_table, make_parser, table, write_report
from stable_baselines3.common.env_util import make_vec_env as make_dummy_env
from stable_baselines3.common.vec_env import VecEnv
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from env_parity import (
    PUT_STATE,
    Policy,
    episodes,
    largest_differences,
    linear_policy,
    p_values,
    random_policy,
    spin,
    state_kwargs,
)

from sb3_vpg import VPG
from sb3_vpg.normalization import has_statistics, load_vec_normalize
from sb3_vpg.vec_env import GymVecEnv
from sb3_vpg.vec_env.envpool_vector_env import DIFFERING_IDS, SUPPORTED_IDS, EnvPoolVectorEnv

AGENTS = Path(__file__).parents[1] / "trained_agents" / "vpg"
N_ENVS, N_EACH = 50, 10
TRAINING_STEPS = 200_000
SIGNIFICANCE = 0.001
ENVPOOL, GYMNASIUM = "EnvPool", "gymnasium"


def build(kind: str, env_id: str, seed: int) -> VecEnv:
    """:return: ``N_ENVS`` environments of EnvPool or gymnasium"""
    if kind == GYMNASIUM:
        return make_dummy_env(env_id, N_ENVS, seed=seed)
    env = GymVecEnv(EnvPoolVectorEnv(env_id, N_ENVS, num_threads=1))
    env.seed(seed)
    return env


def agent(env_id: str, quick: bool) -> tuple[VPG, Path | None]:
    """:return: the agent that ships, and its file if that holds statistics of ``VecNormalize``; else one trained here"""
    file = AGENTS / f"{env_id}_1" / f"{env_id}.zip"
    if file.is_file():
        return VPG.load(file, device="cpu"), file if has_statistics(file) else None
    env = make_dummy_env(env_id, 8, seed=0)
    steps = 2_000 if quick else TRAINING_STEPS
    return VPG("MlpPolicy", env, n_steps=64, learning_rate="lin_0.001", seed=0, device="cpu").learn(steps), None


def play(env_id: str, name: str, n_each: int, trained: tuple[VPG, Path | None]) -> dict[str, dict[str, np.ndarray]]:
    """:return: the episodes of a policy in both implementations"""
    played = {}
    # Two seeds, because the same agent must meet different episodes
    for kind, seed in ((ENVPOOL, 1_000), (GYMNASIUM, 2_000)):
        env = build(kind, env_id, seed)
        model, statistics = trained
        if name == "agent" and statistics is not None:
            env = load_vec_normalize(statistics, env)
            env.training = env.norm_reward = False
        played[kind] = episodes(env, policy(name, env, seed, model), n_each)
    return played


def policy(name: str, env: VecEnv, seed: int, model: VPG) -> Policy:
    if name == "random":
        return random_policy(env.action_space, seed)
    if name == "matrix":
        assert env.observation_space.shape is not None
        return linear_policy(env.action_space, env.observation_space.shape[0], seed=0)
    if name == "spin":
        return spin
    return lambda observations: model.predict(observations, deterministic=True)[0]


def distribution(played: dict[str, np.ndarray]) -> dict[str, list[float]]:
    """:return: minimum, deciles and maximum of returns and lengths"""
    return {key: np.quantile(played[key], np.linspace(0, 1, 11)).tolist() for key in ("return", "length")}


def summary(played: dict[str, np.ndarray]) -> str:
    mean, error = played["return"].mean(), played["return"].std(ddof=1) / np.sqrt(len(played["return"]))
    return f"{mean:.2f} ± {error:.2f}"


def compare(env_id: str, n_each: int, quick: bool) -> tuple[list[list[str]], dict[str, Any], float]:
    """:return: a row for each policy, the raw numbers, and the smallest p-value after Bonferroni's correction"""
    rows, raw, lowest = [], {}, 1.0
    trained = agent(env_id, quick)
    for name in ("random", "matrix", "agent", *(["spin"] if env_id == "Pendulum-v1" else [])):
        played = play(env_id, name, n_each, trained)
        values = p_values(played[ENVPOOL], played[GYMNASIUM])
        worst = min(values, key=lambda key: values[key])
        corrected = min(values[worst] * len(values), 1.0)
        lowest = min(lowest, corrected)
        lengths = [f"{played[kind]['length'].mean():.1f}" for kind in (ENVPOOL, GYMNASIUM)]
        time_outs = [f"{played[kind]['time-out'].mean():.1%}" for kind in (ENVPOOL, GYMNASIUM)]
        returns = [summary(played[kind]) for kind in (ENVPOOL, GYMNASIUM)]
        numbers = [f"{values['return']:.3g}", f"{values['length']:.3g}", f"{corrected:.3g} ({worst})"]
        rows.append([env_id, name, *returns, *lengths, *time_outs, *numbers])
        raw[name] = {"p": values, **{kind: distribution(played[kind]) for kind in played}}
    return rows, raw, lowest


def single_steps(env_id: str, n_steps: int) -> tuple[list[str], dict[str, float]]:
    """:return: a row of the table, and its numbers"""
    space = gym.make(env_id).action_space
    policies = [random_policy(space, 0), *([spin] if env_id == "Pendulum-v1" else [])]
    found: dict[str, float] = {}
    for each in policies:
        env = EnvPoolVectorEnv(env_id, 8, num_threads=1, **state_kwargs(env_id))
        for key, value in largest_differences(env_id, env, each, n_steps).items():
            found[key] = max(found.get(key, 0.0), value)
    steps = len(policies) * 8 * n_steps
    row = [env_id, f"{steps:,}", f"{found['observation']:.1e}", f"{found['reward']:.1e}", f"{found['terminated']:.0f}"]
    return row, found


HEAD = [
    "environment",
    "policy",
    *(f"{what}, {kind}" for what in ("return", "length", "time-outs") for kind in (ENVPOOL, GYMNASIUM)),
]
P_HEAD = ["p, returns", "p, lengths", "smallest p, corrected"]


def main() -> None:
    parser = make_parser(__doc__)
    args = parser.parse_args()
    th.set_num_threads(1)
    warnings.simplefilter("ignore")
    gym.logger.min_level = gym.logger.ERROR
    n_each, n_steps = (1, 20) if args.quick else (N_EACH, 500)
    ids = [*SUPPORTED_IDS, *DIFFERING_IDS]
    steps, rows, raw, lowest = [], [], {}, {}
    for env_id in tqdm(ids, disable=None):
        raw[env_id] = {}
        if env_id in PUT_STATE:
            row, raw[env_id]["step"] = single_steps(env_id, n_steps)
            steps.append(row)
        new, raw[env_id]["episodes"], lowest[env_id] = compare(env_id, n_each, args.quick)
        rows += new
    write_report(parser, args, "EnvPool's environments and gymnasium's", lines(steps, rows, lowest, n_each), raw)


def lines(steps: list[list[str]], rows: list[list[str]], lowest: dict[str, float], n_each: int) -> list[str]:
    offered = min(lowest[env_id] for env_id in SUPPORTED_IDS)
    heading = ["environment", "steps", "observation", "reward", "steps with another `terminated`"]
    return [
        f"EnvPool {version('envpool')}, and for Hopper and HalfCheetah gymnasium with MuJoCo {version('mujoco')}.",
        "",
        *goal_table([Goal("smallest p-value of the environments that are offered", offered, SIGNIFICANCE, form=".4f")]),
        "## Episodes",
        "",
        f"Each policy plays {N_ENVS * n_each} episodes in both. Returns are means with standard errors. The p-values are "
        "those of two-sample Kolmogorov-Smirnov tests. The last column is the smallest of the tests of returns, lengths, "
        "time-outs, first observations and means of observations over an episode, multiplied by their number (Bonferroni). A "
        "large p-value means that no difference was found, not that there is none. "
        '"matrix": actions through one random matrix from the observations. "agent": the agent that ships with the package, '
        f"for BipedalWalker and MuJoCo one that VPG trained for {TRAINING_STEPS:,} steps in gymnasium's environment. "
        '"spin": torque in the direction of the rotation.',
        "",
        *table([*HEAD, *P_HEAD], rows),
        "## Single steps",
        "",
        "The largest differences when gymnasium's environment repeats steps of EnvPool's from the same state. Observations of "
        "Box2D environments do not hold the whole state.",
        "",
        *table(heading, steps),
    ]


if __name__ == "__main__":
    main()
