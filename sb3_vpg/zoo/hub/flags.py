"""The flags of ``push_to_hub`` and ``load_from_hub``. See ``sb3_vpg.zoo.cli`` for what it may import."""

import argparse
from pathlib import Path

from sb3_vpg.zoo.algorithms import ALGORITHMS, DEFAULT_ALGORITHM
from sb3_vpg.zoo.flags import LOGS, NamedValues, add_gym_packages, positive


def _common_parser(description: str) -> argparse.ArgumentParser:
    """:return: a parser with the flags that both commands have"""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--algo", default=DEFAULT_ALGORITHM, help=f"algorithm of sb3-vpg: {' or '.join(ALGORITHMS)} (default: %(default)s)"
    )
    parser.add_argument("--env", required=True, help="environment ID")
    parser.add_argument("-f", "--folder", default=LOGS, help="log folder (default: %(default)s)")
    parser.add_argument("-orga", "--organization", required=True, help="organization or user on the hub")
    parser.add_argument("-name", "--repo-name", help="name of the repository (default: ALGO-ENV)")
    parser.add_argument("--local-hub", type=Path, metavar="FOLDER", help="use this folder instead of the hub")
    add_gym_packages(parser)
    return parser


def push_parser() -> argparse.ArgumentParser:
    """:return: the parser of ``push_to_hub``"""
    parser = _common_parser("Score and film a trained agent, and share it on the Hugging Face hub.")
    parser.add_argument("-n", "--n-timesteps", type=positive, default=1000, help="steps of the video (default: %(default)s)")
    parser.add_argument("--no-render", action="store_true", help="no video")
    parser.add_argument("--no-onnx", action="store_true", help="no ONNX file, which needs the extra export")
    text = "number of episodes for the score (default: %(default)s)"
    parser.add_argument("--n-eval-episodes", type=positive, default=100, help=text)
    parser.add_argument("--seed", type=int, default=0, help="seed of the environments for the score (default: 0)")
    parser.add_argument("--exp-id", type=int, default=0, help="experiment ID (default: 0: latest, -1: no exp folder)")
    parser.add_argument("--load-best", action="store_true", help="push the best model of the training's evaluations")
    parser.add_argument("--load-checkpoint", type=int, metavar="STEPS", help="push the checkpoint after so many steps")
    parser.add_argument("--load-last-checkpoint", action="store_true", help="push the last checkpoint")
    parser.add_argument(
        "--deterministic", action="store_true", help="take the likeliest actions (default, except on Atari and MiniGrid)"
    )
    parser.add_argument("--stochastic", action="store_true", help="sample actions instead of taking the likeliest")
    parser.add_argument("--env-kwargs", nargs="+", action=NamedValues, help="arguments of the environment, as in train")
    parser.add_argument("--device", default="auto", help="PyTorch device (ex: cpu, cuda...)")
    parser.add_argument("--num-threads", type=int, default=-1, help="threads of PyTorch (default: as it chooses)")
    parser.add_argument("-m", "--commit-message", default="Initial commit", help="commit message")
    parser.add_argument("--install", default="sb3-vpg", help="what the card tells pip to install (default: %(default)s)")
    return parser


def load_parser() -> argparse.ArgumentParser:
    """:return: the parser of ``load_from_hub``"""
    parser = _common_parser("Load an agent from the Hugging Face hub into the log folder, running none of its author's code.")
    parser.add_argument("--exp-id", type=int, default=0, help="number of the run (default: 0: the next; -1: no exp folder)")
    parser.add_argument("--force", action="store_true", help="replace the run --exp-id if it exists")
    parser.add_argument(
        "--trust",
        action="store_true",
        help="unpickle the model and its vec_normalize.pkl, which runs any code that their author has put there",
    )
    return parser
