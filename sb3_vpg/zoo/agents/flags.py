"""The flags of the commands in this folder, and of ``enjoy --onnx``. See ``sb3_vpg.zoo.cli`` for what it may import."""

import argparse
from pathlib import Path

from sb3_vpg.zoo.algorithms import ALGORITHMS, DEFAULT_ALGORITHM, algorithm_names
from sb3_vpg.zoo.flags import LOGS, VEC_ENV_HELP, NamedValues, add_gym_packages, non_negative, positive
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


def export_parser() -> argparse.ArgumentParser:
    """:return: the parser of ``export``"""
    text = "Write a trained agent to one file, for onnxruntime or torch, and check that it acts as the agent does."
    parser = argparse.ArgumentParser(description=text)
    names = " or ".join(ALGORITHMS)
    parser.add_argument("--algo", type=_own_algorithm, default=DEFAULT_ALGORITHM, metavar="ALGO", help=f"algorithm: {names}")
    parser.add_argument("--env", default="CartPole-v1", help="environment ID")
    parser.add_argument("-f", "--folder", default=LOGS, help="log folder")
    parser.add_argument("--exp-id", type=int, default=0, help="number of the run (default: 0: the latest)")
    parser.add_argument("--load-best", action="store_true", help="take the best model of the evaluations in training")
    parser.add_argument("--format", choices=("onnx", "torch"), default="onnx", help="onnx, or a program of torch.export")
    text = "the file to write (default: ALGO-ENV.onnx, or .pt2, in the current folder)"
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help=text)
    parser.add_argument("--stochastic", action="store_true", help="sample actions from noise that is an input of the file")
    text = "number of observations for which the file is compared with the agent (default: %(default)s)"
    parser.add_argument("-n", "--n-observations", type=non_negative, default=1000, metavar="N", help=text)
    parser.add_argument("--seed", type=int, default=0, help="seed of the environments of the comparison (default: 0)")
    add_gym_packages(parser)
    return parser


def _own_algorithm(name: str) -> str:
    """A ``type`` of argparse: the name of one of our algorithms."""
    if name in ALGORITHMS:
        return name
    if name in algorithm_names():
        raise argparse.ArgumentTypeError(
            f"{name} is an algorithm of the zoo, and only agents of {', '.join(ALGORITHMS)} can be exported; for those of "
            "SB3 see https://stable-baselines3.readthedocs.io/en/master/guide/export.html"
        )
    raise argparse.ArgumentTypeError(f"invalid choice: {name!r} (choose from {', '.join(ALGORITHMS)})")


def enjoy_onnx_parser() -> argparse.ArgumentParser:
    """:return: the parser of ``enjoy --onnx``, without that flag"""
    parser = argparse.ArgumentParser(prog="sb3-vpg enjoy --onnx FILE", description="Watch an agent in an ONNX file.")
    parser.add_argument("--env", help="environment ID (default: that of the file)")
    parser.add_argument("-n", "--n-timesteps", type=positive, default=1000, help="number of steps (default: %(default)s)")
    parser.add_argument("--n-envs", type=positive, default=1, help="number of environments (default: %(default)s)")
    parser.add_argument("--no-render", action="store_true", help="do not show the environment")
    parser.add_argument("--seed", type=int, default=0, help="seed of the environments and of sampled actions (default: 0)")
    parser.add_argument("--env-kwargs", nargs="+", action=NamedValues, help="arguments of the environment, as in train")
    parser.add_argument("--env-wrapper", nargs="+", metavar="CLASS", help="wrappers of the environment, as module.Class")
    add_gym_packages(parser)
    return parser
