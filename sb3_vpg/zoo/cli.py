"""
The command line ``sb3-vpg``: rl-zoo3's programs with our algorithms in them, plus what we add.

This module imports nothing heavy, so that ``sb3-vpg``, ``--help`` and ``--version`` answer at once.
"""

import argparse
import platform
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.metadata import version
from pathlib import Path
from textwrap import shorten

from sb3_vpg.version import __version__
from sb3_vpg.zoo.algorithms import ALGORITHMS, DEFAULT_ALGORITHM
from sb3_vpg.zoo.commands import IMPORT_ADVICE
from sb3_vpg.zoo.patching import exchanged
from sb3_vpg.zoo.signals import CLOSED_PIPE, Signals, is_stdout_closed


@dataclass(frozen=True)
class Command:
    """
    :param summary: one line for the overview
    :param target: what runs, as ``sb3_vpg.zoo.programs.run`` takes it
    :param defaults: flags put before the user's own, which therefore win
    :param reads_runs: plays a trained agent: by default of the latest run where ``train`` puts it, or one that ships
    :param plots: draws with matplotlib
    :param vec_envs: what it takes for ``--vec-env``, ours included; empty where the flag is not ours to read
    """

    summary: str
    target: str
    defaults: tuple[str, ...] = ("--algo", DEFAULT_ALGORITHM)
    reads_runs: bool = False
    plots: bool = False
    vec_envs: tuple[str, ...] = ()


_NATIVE = "native"
_TRAINING = ("dummy", "subproc", _NATIVE)
# Small networks train fastest so, and beside other processes ten times as fast
_ONE_THREAD = ("--algo", DEFAULT_ALGORITHM, "--num-threads", "1")
COMMANDS = {
    "train": Command("train an agent", "rl_zoo3.train:train", _ONE_THREAD, vec_envs=_TRAINING),
    "optimize": Command(
        "search hyperparameters",
        "rl_zoo3.train:train",
        (*_ONE_THREAD, "--optimize-hyperparameters"),
        vec_envs=_TRAINING,
    ),
    "best_entry": Command("write the best trial of a search as a YAML entry", "sb3_vpg.zoo.tuning.best_entry:best_entry", ()),
    "evaluate": Command(
        "score a trained agent and draw its learning curve", "sb3_vpg.zoo.agents.evaluation:evaluate", reads_runs=True
    ),
    "enjoy": Command("watch a trained agent", "rl_zoo3.enjoy:enjoy", reads_runs=True, vec_envs=(_NATIVE,)),
    "record_video": Command(
        # A film needs no second drawing for the screen
        "film a trained agent",
        "rl_zoo3.record_video",
        ("--algo", DEFAULT_ALGORITHM, "--no-render"),
        reads_runs=True,
    ),
    "record_training": Command("film an agent's checkpoints one after the other", "rl_zoo3.record_training", reads_runs=True),
    "push_to_hub": Command("share a trained agent on the Hugging Face hub", "sb3_vpg.zoo.hub.push:push_to_hub"),
    "load_from_hub": Command(
        "load an agent from the hub, running none of its author's code", "sb3_vpg.zoo.hub.load:load_from_hub"
    ),
    "benchmark": Command("score all agents of a folder, or those that ship", "sb3_vpg.zoo.agents.benchmark:benchmark", ()),
    "compare": Command("train algorithms side by side and report them with intervals", "sb3_vpg.compare.command:main", ()),
    "plot_train": Command("plot the training returns of runs", "rl_zoo3.plots:plot_train", plots=True),
    "all_plots": Command(
        "plot and tabulate the evaluations of runs", "rl_zoo3.plots:all_plots", ("--algos", DEFAULT_ALGORITHM), plots=True
    ),
    "plot_from_file": Command("plot what all_plots saved, also with rliable", "rl_zoo3.plots:plot_from_file", (), plots=True),
}


def main(argv: Sequence[str] | None = None) -> int:
    """
    :param argv: arguments without the program's name; None: those of the process
    :return: exit code: 0 done, 1 the command failed, 2 no such command, 128 + n stopped by signal n (130: Ctrl-C; 141: nobody
        reads its output any longer)
    """
    try:
        try:
            return _main(argv)
        finally:
            # Here and not when Python ends, where nobody could catch what comes of it
            sys.stdout.flush()
    except BrokenPipeError as error:
        if is_stdout_closed(error):
            return CLOSED_PIPE
        raise


def _main(argv: Sequence[str] | None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview())
        return 0
    if arguments[0] in ("-V", "--version"):
        print(_versions())
        return 0
    name = arguments[0].replace("-", "_")
    if name not in COMMANDS:
        close = get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"choose from {', '.join(COMMANDS)}"
        print(f"sb3-vpg: no command {arguments[0]!r}; {hint}", file=sys.stderr)
        return 2
    return _run(name, arguments[1:])


def _run(name: str, arguments: list[str]) -> int:
    command = COMMANDS[name]
    ours, theirs = _our_flags(name, command).parse_known_args(arguments)
    defaults = [*command.defaults, *(("--folder", "logs") if command.reads_runs else ())]
    signals = Signals()
    try:
        # The zoo's programs read sys.argv and nothing else
        argv = exchanged("sys:argv", [f"sb3-vpg {name}", *defaults, *theirs])
        words = exchanged("warnings:formatwarning", _warning)
        with signals, argv, words, _help_of_ours(name, defaults, theirs):
            _start(name, ours, theirs, signals)
    except KeyboardInterrupt:
        return signals.exit_code or 130
    except Exception as error:
        if is_stdout_closed(error):
            return CLOSED_PIPE
        if ours.traceback:
            raise
        _report(name, error)
        return 1
    return signals.exit_code


def _start(name: str, ours: argparse.Namespace, theirs: list[str], signals: Signals) -> None:
    command = COMMANDS[name]
    # Here the import of torch begins
    if command.vec_envs == _TRAINING:
        from sb3_vpg.zoo.train import command as train_command

        own = ("vec_env", "checkpoint_freq", "resume", "exp_id")
        train_command.train(theirs, signals, {flag: getattr(ours, flag, None) for flag in own})
        return
    from sb3_vpg.zoo import programs as scripts

    if command.plots and ours.savefig is not None:
        scripts.run_plot(command.target, ours.savefig)
    elif command.reads_runs:
        native = command.vec_envs != () and ours.vec_env == _NATIVE
        scripts.run_play(name, command.target, theirs, native, getattr(ours, "gif", False))
    else:
        scripts.run(command.target)


def _warning(message: Warning | str, *_: object, **__: object) -> str:
    """:return: what a user is to read: nothing of the file and the line that it came from"""
    return f"Warning: {message}\n"


def _report(name: str, error: Exception) -> None:
    """One line for the user, and a file with the rest, so that what took hours need not be repeated to be understood."""
    with tempfile.NamedTemporaryFile("w", prefix=f"sb3-vpg-{name}-", suffix=".log", delete=False) as file:
        traceback.print_exception(error, file=file)
    # Of the import system, which names the module; not a text of ours about an extra that is missing
    own = f"; if the module is yours, {IMPORT_ADVICE}" if isinstance(error, ModuleNotFoundError) and error.name else ""
    message = shorten(str(error), 600, placeholder=" …") + own
    print(f"sb3-vpg {name}: {type(error).__name__}: {message} (the traceback is in {file.name})", file=sys.stderr)


def _our_flags(name: str, command: Command) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sb3-vpg", add_help=False, allow_abbrev=False, usage=argparse.SUPPRESS)
    group = parser.add_argument_group("flags of sb3-vpg")
    group.add_argument("--traceback", action="store_true", help="let an error end in a Python traceback, not in one line")
    if command.vec_envs:
        text = "VecEnv type; native: the environment's own vector environment, where it has one"
        group.add_argument("--vec-env", choices=command.vec_envs, help=text)
    if name == "train":
        text = "go on with the latest run of this algorithm and environment, or with that of a number or folder"
        group.add_argument("--resume", nargs="?", const="", metavar="RUN", help=text)
        text = "number of the run, which must be new (default: the next); for runs that start side by side"
        group.add_argument("--exp-id", type=_number, metavar="N", help=text)
        text = "steps from one checkpoint to the next, for --resume; 0: none (default: 25000)"
        group.add_argument("--checkpoint-freq", type=_whole, metavar="N", help=text)
    if name in ("record_video", "record_training"):
        group.add_argument("-g", "--gif", action="store_true", help="write a small GIF beside the film")
    if command.plots:
        group.add_argument("--savefig", type=Path, metavar="FILE", help="write the picture instead of opening a window")
    return parser


def _whole(text: str, at_least: int = 0) -> int:
    number = int(text)
    if number < at_least:
        raise argparse.ArgumentTypeError(f"must be at least {at_least}, but is {number}")
    return number


def _number(text: str) -> int:
    return _whole(text, at_least=1)


@contextmanager
def _help_of_ours(name: str, defaults: list[str], theirs: list[str]) -> Iterator[None]:
    """After the zoo's help (which ends in SystemExit), say what we add to it."""
    try:
        yield
    except SystemExit as stop:
        if stop.code in (0, None) and {"-h", "--help"} & set(theirs):
            print(f"\n{_our_flags(name, COMMANDS[name]).format_help()}")
            if defaults:
                print(f"defaults of sb3-vpg:\n  {' '.join(defaults)}")
        raise


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: sb3-vpg COMMAND [FLAGS]      (also: python -m sb3_vpg)",
            "",
            "Vanilla policy gradient in the command line of rl-zoo3, with all of the zoo's own algorithms.",
            f"Of ours: --algo {' or '.join(ALGORITHMS)}.",
            "",
            "commands:",
            *lines,
            "",
            "A first run:",
            "  sb3-vpg train --env CartPole-v1 --progress",
            "  sb3-vpg evaluate --env CartPole-v1",
            "",
            "sb3-vpg COMMAND --help shows a command's flags; sb3-vpg --version shows the versions in use.",
        ]
    )


def _versions() -> str:
    packages = ("stable-baselines3", "rl_zoo3", "gymnasium", "torch")
    libraries = ", ".join(f"{package} {version(package)}" for package in packages)
    return f"sb3-vpg {__version__} (Python {platform.python_version()}, {libraries})"
