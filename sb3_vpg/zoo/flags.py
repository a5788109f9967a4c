"""Flags that several commands share."""

import argparse
from pathlib import Path

from huggingface_sb3 import EnvironmentName

from sb3_vpg.zoo.algorithms import ALGORITHMS, DEFAULT_ALGORITHM


def positive(text: str) -> int:
    """:return: the number. :raises ArgumentTypeError: if it is less than 1"""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, but is {number}")
    return number


def base_parser(description: str) -> argparse.ArgumentParser:
    """:return: with the flags that pushing and loading share"""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--algo", default=DEFAULT_ALGORITHM, help=f"RL algorithm, one of ours: {', '.join(ALGORITHMS)} (default: %(default)s)"
    )
    parser.add_argument("--env", type=EnvironmentName, required=True, help="environment ID")
    parser.add_argument("-f", "--folder", default="logs", help="log folder (default: %(default)s)")
    parser.add_argument("-orga", "--organization", required=True, help="organization or user on the hub")
    parser.add_argument("-name", "--repo-name", help="name of the repository (default: ALGO-ENV)")
    parser.add_argument("--local-hub", type=Path, metavar="FOLDER", help="a folder in the place of the hub")
    parser.add_argument("--gym-packages", nargs="+", default=[], help="modules to import, which register environments")
    return parser
