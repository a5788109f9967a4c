"""The flags of ``evaluate`` and ``benchmark``. See ``sb3_vpg.zoo.cli`` for what it may import."""

import argparse
from pathlib import Path

from sb3_vpg.zoo.algorithms import DEFAULT_ALGORITHM, algorithm_names
from sb3_vpg.zoo.flags import LOGS, VEC_ENV_HELP, add_gym_packages, positive
from sb3_vpg.zoo.package_data import shipped_folder

# All environments share one call of the policy. A DummyVecEnv steps them in turn; the others step all at once
N_ENVS = {"dummy": 10, "native": 1000, "envpool": 100}


def evaluate_parser() -> argparse.ArgumentParser:
    """:return: the parser of ``evaluate``"""
    parser = argparse.ArgumentParser(description="Score a trained agent and draw the learning curve of its run.")
    parser.add_argument("--algo", choices=algorithm_names(), default=DEFAULT_ALGORITHM, help="RL algorithm")
    parser.add_argument("--env", default="CartPole-v1", help="environment ID")
    parser.add_argument("-f", "--folder", default=LOGS, help="log folder")
    parser.add_argument("-o", "--output-folder", help="folder of the learning curve (default: that of the run)")
    parser.add_argument("--exp-id", type=int, default=0, help="number of the run (default: 0: the latest)")
    parser.add_argument("-n", "--n-eval-episodes", type=positive, default=100, help="number of episodes (default: 100)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the environments (default: 0)")
    parser.add_argument("--load-best", action="store_true", help="score the best model of the evaluations in training")
    parser.add_argument("--stochastic", action="store_true", help="sample actions instead of taking the likeliest")
    parser.add_argument("--device", default="auto", help="PyTorch device (ex: cpu, cuda...)")
    parser.add_argument("--vec-env", choices=list(N_ENVS), default="dummy", help=VEC_ENV_HELP)
    add_gym_packages(parser)
    return parser


def benchmark_parser() -> argparse.ArgumentParser:
    """:return: the parser of ``benchmark``"""
    parser = argparse.ArgumentParser(description="Play trained agents and tabulate their scores.")
    text = "log folder whose latest runs are played (default: the agents that ship)"
    parser.add_argument("-f", "--folder", type=Path, default=shipped_folder(), help=text)
    parser.add_argument("-n", "--n-eval-episodes", type=positive, default=100, help="episodes of each agent (default: 100)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the environments (default: 0)")
    parser.add_argument("--stochastic", action="store_true", help="sample actions instead of taking the likeliest")
    parser.add_argument("--device", default="auto", help="PyTorch device (ex: cpu, cuda...)")
    folder = Path(LOGS) / "benchmark"
    parser.add_argument("--benchmark-dir", type=Path, default=folder, help=f"folder of the table (default: {folder})")
    add_gym_packages(parser)
    return parser
