"""Flags and types of flags that several commands share. See ``sb3_vpg.zoo.cli`` for what it may import."""

import argparse
from typing import Any

from sb3_vpg.zoo.advice import PYTHON_CONF

LOGS = "logs"
"""Default of ``--folder``: where ``train`` puts its runs."""
CHECKPOINT_FREQ = 25_000
"""Environment steps between two checkpoints of ``train`` if ``--checkpoint-freq`` is not given."""

VECTOR_MODES = ("native", "envpool")
"""Values of ``--vec-env`` for which one ``GymVecEnv`` steps all environments."""
VEC_ENV_HELP = "VecEnv type; native: gymnasium's vector environment, of those that have one; envpool: EnvPool, in C++ threads"


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
    """Add ``--gym-packages``. ``sb3_vpg.zoo.cli`` imports the modules before the command starts."""
    text = "modules to import first; they register environments"
    parser.add_argument("--gym-packages", nargs="+", default=[], metavar="MODULE", help=text)


class NamedValues(argparse.Action):
    """Parse ``name:value`` and evaluate the value as Python, as rl_zoo3's ``StoreDict`` does; an error names the bad value."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        """
        See ``argparse.Action``.

        :raises ValueError: if a value cannot be evaluated
        """
        # This import loads torch
        from rl_zoo3.utils import StoreDict

        store = StoreDict(self.option_strings, self.dest, self.nargs)  # type: ignore[no-untyped-call]  # rl_zoo3's
        parsed: dict[str, Any] = {}
        for text in values:
            try:
                store(parser, namespace, [text], option_string)
            except NameError as error:
                raise ValueError(
                    f"{option_string} {text}: the name {error.name!r} is unknown. Put quotes around a string, as in "
                    f"{option_string} \"policy:'MlpPolicy'\"; write classes and functions of your own {PYTHON_CONF}"
                ) from error
            except Exception as error:
                raise ValueError(
                    f"{option_string} {text}: Python cannot evaluate the value ({type(error).__name__}: {error}); write "
                    f"name:value, with quotes around a string: {option_string} \"policy:'MlpPolicy'\""
                ) from error
            parsed |= getattr(namespace, self.dest)
        setattr(namespace, self.dest, parsed)
