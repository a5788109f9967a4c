"""Flags and types of flags that several commands share. Nothing heavy is imported, because ``sb3-vpg`` itself imports this."""

import argparse
from importlib import import_module
from pathlib import Path
from typing import Any

from sb3_vpg.zoo.algorithms import ALGORITHMS, DEFAULT_ALGORITHM

CHECKPOINT_FREQ = 25_000
"""Environment steps between two checkpoints of ``train`` if ``--checkpoint-freq`` is not given."""

VECTOR_MODES = ("native", "envpool")
"""Values of ``--vec-env`` that use no single environments."""
VEC_ENV_HELP = "VecEnv type; native: gymnasium's vector environment, for those that have one; envpool: EnvPool's threads"


def non_negative(text: str) -> int:
    """A ``type`` of argparse: a whole number that is at least 0."""
    return _whole_number(text, 0)


def positive(text: str) -> int:
    """A ``type`` of argparse: a whole number that is at least 1."""
    return _whole_number(text, 1)


def _whole_number(text: str, at_least: int) -> int:
    number = int(text)
    if number < at_least:
        raise argparse.ArgumentTypeError(f"must be at least {at_least}, but is {number}")
    return number


def add_gym_packages(parser: argparse.ArgumentParser) -> None:
    """Add ``--gym-packages``. The modules are imported when the arguments are parsed."""
    text = "modules to import first; they register environments"
    parser.add_argument("--gym-packages", nargs="+", default=[], action=_ImportModules, metavar="MODULE", help=text)


class _ImportModules(argparse.Action):
    """Import the modules that a flag names, and store their names."""

    def __call__(self, parser: object, namespace: argparse.Namespace, values: Any, option_string: str | None = None) -> None:
        """See ``argparse.Action``. Raise ImportError if a module cannot be imported."""
        for module in values:
            import_module(module)
        setattr(namespace, self.dest, values)


def hub_parser(description: str) -> argparse.ArgumentParser:
    """:return: a parser with the flags that ``push_to_hub`` and ``load_from_hub`` share"""
    # This import loads torch
    from huggingface_sb3 import EnvironmentName

    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--algo", default=DEFAULT_ALGORITHM, help=f"algorithm of sb3-vpg: {' or '.join(ALGORITHMS)} (default: %(default)s)"
    )
    parser.add_argument("--env", type=EnvironmentName, required=True, help="environment ID")
    parser.add_argument("-f", "--folder", default="logs", help="log folder (default: %(default)s)")
    parser.add_argument("-orga", "--organization", required=True, help="organization or user on the hub")
    parser.add_argument("-name", "--repo-name", help="name of the repository (default: ALGO-ENV)")
    parser.add_argument("--local-hub", type=Path, metavar="FOLDER", help="use this folder instead of the hub")
    add_gym_packages(parser)
    return parser
