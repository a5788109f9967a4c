"""
The command line ``sb3-vpg``: rl-zoo3's programs with our algorithms, and commands of our own.

Until the flags are checked, this module and the ``flags`` modules import only the standard library, not NumPy, torch or
rl_zoo3. So ``--version``, and help and usage errors of our own commands, come at once. The zoo's programs import torch before
they read their flags.
"""

import argparse
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from pkgutil import resolve_name
from textwrap import shorten

from sb3_vpg.common import torchrun
from sb3_vpg.common.system_info import versions
from sb3_vpg.exceptions import MainProcessError
from sb3_vpg.zoo.advice import IMPORT_ADVICE
from sb3_vpg.zoo.algorithms import ALGORITHMS, DEFAULT_ALGORITHM
from sb3_vpg.zoo.flags import CHECKPOINT_FREQ, LOGS, VEC_ENV_HELP, VECTOR_MODES, non_negative, positive
from sb3_vpg.zoo.patching import patched
from sb3_vpg.zoo.signals import CLOSED_PIPE, Signals, is_stdout_closed


@dataclass(frozen=True)
class Command:
    """
    :param summary: one line for the overview
    :param target: the program: see ``sb3_vpg.zoo.programs.run``
    :param defaults: flags put before the user's; of a flag given twice, the last counts
    :param reads_runs: whether it plays a trained agent: by default that of the latest run in ``logs``, or one that ships
    :param plots: whether it draws with matplotlib, and takes ``--savefig``
    :param vec_envs: choices of ``--vec-env``; empty if this module does not read that flag
    :param parser: ``"module:function"`` that returns the parser of a program of ours; empty for the zoo's
    """

    summary: str
    target: str
    defaults: tuple[str, ...] = ("--algo", DEFAULT_ALGORITHM)
    reads_runs: bool = False
    plots: bool = False
    vec_envs: tuple[str, ...] = ()
    parser: str = ""


_TRAIN = "rl_zoo3.train:train"
_TRAIN_VEC_ENVS = ("dummy", "subproc", *VECTOR_MODES)
# Small networks train fastest with one thread; with more, processes that run side by side slow each other down
_ONE_THREAD = ("--algo", DEFAULT_ALGORITHM, "--num-threads", "1")
COMMANDS = {
    "train": Command("train an agent", _TRAIN, _ONE_THREAD, vec_envs=_TRAIN_VEC_ENVS),
    "optimize": Command(
        "search hyperparameters", _TRAIN, (*_ONE_THREAD, "--optimize-hyperparameters"), vec_envs=_TRAIN_VEC_ENVS
    ),
    "best_entry": Command(
        "write the best trial of a search as a YAML entry",
        "sb3_vpg.zoo.tuning.best_entry:best_entry",
        (),
        parser="sb3_vpg.zoo.tuning.flags:best_entry_parser",
    ),
    "evaluate": Command(
        "score a trained agent and draw its learning curve",
        "sb3_vpg.zoo.agents.evaluation:evaluate",
        reads_runs=True,
        parser="sb3_vpg.zoo.agents.flags:evaluate_parser",
    ),
    "enjoy": Command("watch a trained agent", "rl_zoo3.enjoy:enjoy", reads_runs=True, vec_envs=VECTOR_MODES),
    "export": Command(
        "write a trained agent to one file, for onnxruntime or torch",
        "sb3_vpg.zoo.agents.export_run:export_agent",
        reads_runs=True,
        parser="sb3_vpg.zoo.agents.flags:export_parser",
    ),
    "record_video": Command(
        "film a trained agent",
        "rl_zoo3.record_video",
        # A window would draw every frame a second time
        ("--algo", DEFAULT_ALGORITHM, "--no-render"),
        reads_runs=True,
    ),
    "record_training": Command("film the checkpoints of a run", "rl_zoo3.record_training", reads_runs=True),
    "push_to_hub": Command(
        "share a trained agent on the Hugging Face hub",
        "sb3_vpg.zoo.hub.push:push_to_hub",
        parser="sb3_vpg.zoo.hub.flags:push_parser",
    ),
    "load_from_hub": Command(
        "load an agent from the hub without running code of its author",
        "sb3_vpg.zoo.hub.load:load_from_hub",
        parser="sb3_vpg.zoo.hub.flags:load_parser",
    ),
    "benchmark": Command(
        "score all agents of a folder, or those that ship",
        "sb3_vpg.zoo.agents.benchmark:benchmark",
        (),
        parser="sb3_vpg.zoo.agents.flags:benchmark_parser",
    ),
    "compare": Command(
        "compare algorithms over several seeds, with confidence intervals",
        "sb3_vpg.compare.command:main",
        (),
        parser="sb3_vpg.compare.flags:compare_parser",
    ),
    "plot_train": Command("plot the training returns of runs", "rl_zoo3.plots:plot_train", plots=True),
    "all_plots": Command(
        "plot and tabulate the evaluations of runs", "rl_zoo3.plots:all_plots", ("--algos", DEFAULT_ALGORITHM), plots=True
    ),
    "plot_from_file": Command("plot what all_plots saved, also with rliable", "rl_zoo3.plots:plot_from_file", (), plots=True),
}


def main(argv: Sequence[str] | None = None) -> int:
    """
    :param argv: arguments without the program's name; None: those of the process
    :return: exit code: 0 done, 1 the command failed, 2 no such command, 128 + n stopped by signal n (130: Ctrl-C; 141: the
        reader of the output is gone)
    :raises SystemExit: with 0 after the help of a command, with 2 after an unknown or invalid flag
    """
    try:
        try:
            return _main(argv)
        finally:
            # Python flushes when it ends, but an error there could not be caught
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
    if torchrun.is_launched() and name != "train":
        if torchrun.get_rank() == 0:
            print(f"sb3-vpg {name} cannot be divided among processes: start it without torchrun", file=sys.stderr)
        return 1
    own, zoo_flags = _own_parser(name, command).parse_known_args(arguments)
    defaults = [*command.defaults, *(("--folder", LOGS) if command.reads_runs else ())]
    signals = Signals()
    try:
        # The zoo's programs take their flags from sys.argv only
        argv = patched("sys:argv", [f"sb3-vpg {name}", *defaults, *zoo_flags])
        with signals, argv, patched("warnings:formatwarning", _format_warning), _own_help(name, defaults, zoo_flags):
            _start(name, own, zoo_flags, signals)
    except KeyboardInterrupt:
        return signals.exit_code or 130
    except Exception as error:
        if is_stdout_closed(error):
            return CLOSED_PIPE
        if own.traceback:
            raise
        _report_error(name, error)
        return 1
    return signals.exit_code


def _start(name: str, own: argparse.Namespace, zoo_flags: list[str], signals: Signals) -> None:
    command = COMMANDS[name]
    # Help and wrong flags end here, before the imports below load torch
    args = resolve_name(command.parser)().parse_args() if command.parser else argparse.Namespace()
    if command.target == _TRAIN:
        from sb3_vpg.zoo.train.command import train

        names = ("vec_env", "checkpoint_freq", "resume", "exp_id")
        train(zoo_flags, signals, {flag: getattr(own, flag, None) for flag in names})
        return
    if getattr(own, "onnx", None) is not None:
        _enjoy_onnx(own, zoo_flags)
        return
    from sb3_vpg.zoo import programs

    for module in getattr(args, "gym_packages", ()):
        import_module(module)
    if command.plots and own.savefig is not None:
        programs.run_plot(command.target, own.savefig)
    elif command.reads_runs:
        vector_mode, gif = getattr(own, "vec_env", None), getattr(own, "gif", False)
        programs.run_play(name, command.target, zoo_flags, vector_mode, gif)
    else:
        programs.run(command.target)


def _enjoy_onnx(own: argparse.Namespace, flags: list[str]) -> None:
    from sb3_vpg.zoo.agents.flags import enjoy_onnx_parser

    args = enjoy_onnx_parser().parse_args(flags)
    for module in args.gym_packages:
        import_module(module)
    from sb3_vpg.zoo.agents.onnx_play import enjoy_onnx

    enjoy_onnx(own.onnx, args, own.vec_env)


def _format_warning(message: Warning | str, *_: object, **__: object) -> str:
    """:return: the warning without the file and line that Python puts before it"""
    return f"Warning: {message}\n"


def _report_error(name: str, error: Exception) -> None:
    """Print one line, and write the traceback to a file, because the error may have taken hours to occur."""
    if isinstance(error, MainProcessError):
        # The first process reports it
        return
    with tempfile.NamedTemporaryFile("w", prefix=f"sb3-vpg-{name}-", suffix=".log", delete=False) as file:
        traceback.print_exception(error, file=file)
    # Only errors of the import system have a name; our own texts about missing extras have none
    advice = f"; if the module is yours, {IMPORT_ADVICE}" if isinstance(error, ModuleNotFoundError) and error.name else ""
    message = shorten(str(error), 600, placeholder=" …") + advice
    print(f"sb3-vpg {name}: {type(error).__name__}: {message} (the traceback is in {file.name})", file=sys.stderr)


def _own_parser(name: str, command: Command) -> argparse.ArgumentParser:
    """:return: a parser of the flags that this module reads; the others are the program's"""
    parser = argparse.ArgumentParser(prog=f"sb3-vpg {name}", add_help=False, allow_abbrev=False, usage=argparse.SUPPRESS)
    group = parser.add_argument_group("flags of sb3-vpg")
    group.add_argument("--traceback", action="store_true", help="show the Python traceback of an error, not only one line")
    if command.vec_envs:
        group.add_argument("--vec-env", choices=command.vec_envs, help=VEC_ENV_HELP)
    if name == "enjoy":
        text = "play this file of sb3-vpg export instead of a run; --onnx FILE --help shows the flags for it"
        group.add_argument("--onnx", metavar="FILE", help=text)
    if name == "train":
        text = "continue the latest run of this algorithm and environment, or the run with this number or folder"
        group.add_argument("--resume", nargs="?", const="", metavar="RUN", help=text)
        text = "number of the new run (default: the next one); for runs that are started at the same time"
        group.add_argument("--exp-id", type=positive, metavar="N", help=text)
        text = f"save a checkpoint for --resume every N steps; 0: none (default: {CHECKPOINT_FREQ})"
        group.add_argument("--checkpoint-freq", type=non_negative, metavar="N", help=text)
    if name in ("record_video", "record_training"):
        group.add_argument("-g", "--gif", action="store_true", help="also write a small GIF beside the video")
    if command.plots:
        group.add_argument("--savefig", type=Path, metavar="FILE", help="save the plot to a file instead of opening a window")
    return parser


@contextmanager
def _own_help(name: str, defaults: list[str], zoo_flags: list[str]) -> Iterator[None]:
    """Print our flags and defaults after the zoo's help, which ends in SystemExit."""
    try:
        yield
    except SystemExit as stop:
        if stop.code in (0, None) and {"-h", "--help"} & set(zoo_flags):
            print(f"\n{_own_parser(name, COMMANDS[name]).format_help()}")
            if defaults:
                print(f"defaults of sb3-vpg:\n  {' '.join(defaults)}")
        raise


def _overview() -> str:
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items())
    return f"""usage: sb3-vpg COMMAND [FLAGS]      (also: python -m sb3_vpg)

The command line of rl-zoo3 with vanilla policy gradient (VPG) added; the zoo's own algorithms work, too.
Algorithms that sb3-vpg adds: --algo {" or ".join(ALGORITHMS)}.

commands:
{commands}

To begin with:
  sb3-vpg train --env CartPole-v1 --progress
  sb3-vpg evaluate --env CartPole-v1

sb3-vpg COMMAND --help shows the flags of a command; sb3-vpg --version shows the installed versions."""


def _versions() -> str:
    (own, number), *libraries, (_, python) = versions(zoo=True).items()
    return f"{own} {number} (Python {python}, {', '.join(f'{name} {number}' for name, number in libraries)})"
