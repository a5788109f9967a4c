"""
RLtools' PPO on its own Pendulum, both in C++ (Eschmann et al. 2024, https://arxiv.org/abs/2306.03530). It needs the package
rltools and a C++ compiler and, for speed, the packages mkl and mkl-include: without them it takes several times as long.
pendulum_300k.py starts this program, which imports nothing of the benchmarks, since torch and RLtools' MKL cannot be loaded
into one process.

    python benchmarks/harness/rltools_run.py --task TASK
"""

import argparse
import json
import time
from importlib.metadata import distributions
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gymnasium as gym
import numpy as np

# RLtools' environment takes actions in [-1, 1]
HEADER = """
#include <rl_tools/rl/environments/pendulum/operations_cpu.h>
namespace environments = rl_tools::rl::environments;
template <typename T, typename TI>
using ENVIRONMENT_FACTORY =
    environments::Pendulum<environments::pendulum::Specification<T, TI, environments::pendulum::DefaultParameters<T>>>;
"""
SIZES = {"N_ENVIRONMENTS": 4, "ON_POLICY_RUNNER_STEPS_PER_ENV": 1024}
# RLtools' own for 300,000 steps of Pendulum-v1, from its file rl/zoo/pendulum-v1/ppo.h of 2024; the rest are its defaults
SETTINGS = {"GAMMA": 0.95, "N_EPOCHS": 2, "BATCH_SIZE": 256, "ACTION_ENTROPY_COEFFICIENT": 1.0}


def compiled(n_updates: int) -> Any:
    """:return: the module that RLtools compiles for these settings"""
    from rltools import PPO

    with TemporaryDirectory() as folder:
        Path(folder, "environment.h").write_text(HEADER)
        environment = {"path": folder, "observation_dim": 3, "action_dim": 1}
        options = {**SIZES, **SETTINGS, "STEP_LIMIT": n_updates}
        return PPO(environment, enable_evaluation=False, interface_name="sb3_vpg_pendulum", **options)


def evaluate(state: Any, n_episodes: int, seed: int) -> float:
    """:return: mean return of episodes of gymnasium's Pendulum-v1, seeded like the environments of ``make_vec_env``"""
    returns = []
    env = gym.make("Pendulum-v1")
    for index in range(n_episodes):
        observation, _ = env.reset(seed=seed + index)
        total, truncated = 0.0, False
        while not truncated:
            action = 2.0 * np.clip(state.action(observation), -1.0, 1.0)
            observation, reward, _, truncated, _ = env.step(action)
            total += float(reward)
        returns.append(total)
    return float(np.mean(returns))


def train(module: Any, seed: int, n_updates: int, evaluation: dict[str, int]) -> dict[str, Any]:
    """:return: CPU seconds, environment steps, and the mean return afterwards"""
    state = module.State(seed)
    start = time.process_time()
    for _ in range(n_updates):
        state.step()
    seconds = time.process_time() - start
    return {"seconds": seconds, "steps": n_updates * prod(SIZES.values()), "return": evaluate(state, **evaluation)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", help="JSON with seeds (a list), steps, and evaluation (n_episodes and seed)", required=True)
    task = json.loads(parser.parse_args().task)
    n_updates = -(-task["steps"] // prod(SIZES.values()))
    module = compiled(n_updates)
    runs = [train(module, seed, n_updates, task["evaluation"]) for seed in task["seeds"]]
    versions = {one.name: one.version for one in distributions() if one.name in ("rltools", "mkl")}
    print(json.dumps({"runs": runs, "versions": versions, "settings": {**SIZES, **SETTINGS}}))


if __name__ == "__main__":
    main()
