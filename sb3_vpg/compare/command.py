"""``sb3-vpg compare``: algorithms beside each other, with intervals."""

import argparse
import math
import shlex
import sys

from sb3_vpg.compare.api import ENGINES, compare
from sb3_vpg.compare.report.pages import PAGE
from sb3_vpg.compare.results import Comparison
from sb3_vpg.zoo.flags import add_gym_packages

_DEFAULTS = {"n_evaluations": 20, "eval_episodes": 5, "final_episodes": 50}


def main() -> None:
    """
    The command. Its arguments are ``sys.argv``.

    :raises RuntimeError: if runs failed, after everything else is done and reported
    """
    args = _parser().parse_args()
    try:
        comparison = _compare(args, _command(args))
    except KeyboardInterrupt:
        print(f"Stopped; the same command goes on: {shlex.join(['sb3-vpg', 'compare', *sys.argv[1:]])}")
        raise
    asked = len(args.algos) * len(args.envs) * args.seeds
    print(f"{len(comparison.records)} of {asked} runs finished. Report: {args.folder}/report/{PAGE}")
    if comparison.failures:
        failed = len(comparison.failures)
        raise RuntimeError(f"{failed} run{'s' * (failed > 1)} failed: {'; '.join(comparison.failures.values())}")


def _compare(args: argparse.Namespace, command: str) -> Comparison:
    return compare(
        args.algos,
        args.envs,
        range(args.seed, args.seed + args.seeds),
        _steps(args.n_timesteps, args.envs),
        args.folder,
        engine=args.engine,
        n_jobs=args.n_jobs,
        address=args.address,
        thresholds=dict(args.threshold),
        n_evaluations=args.n_evaluations,
        eval_episodes=args.eval_episodes,
        final_episodes=args.final_episodes,
        gym_packages=args.gym_packages,
        report_only=args.report_only,
        command=command,
    )


def _command(args: argparse.Namespace) -> str:
    """:return: the command as a report shows it: with what its numbers depend on, and not with where and how they were made"""
    words = ["--algos", *args.algos, "--envs", *args.envs, "--seeds", str(args.seeds)]
    words += ["--seed", str(args.seed)] if args.seed else []
    words += ["-n", *args.n_timesteps] if args.n_timesteps else []
    words += ["--threshold", *(f"{env_id}={value:g}" for env_id, value in args.threshold)] if args.threshold else []
    words += ["--gym-packages", *args.gym_packages] if args.gym_packages else []
    for name, default in _DEFAULTS.items():
        if getattr(args, name) != default:
            words += [f"--{name.replace('_', '-')}", str(getattr(args, name))]
    return shlex.join(["sb3-vpg", "compare", *words])


def _steps(given: list[str] | None, env_ids: list[str]) -> dict[str, int]:
    """
    :param given: numbers, alone for all environments or as ENV=N for one
    :return: by environment
    :raises ValueError: for what is no number of steps
    """
    steps: dict[str | None, int] = {}
    for text in given or ():
        env_id, equals, number = text.rpartition("=")
        try:
            value = int(float(number))
            if value != float(number) or (equals and not env_id):
                raise ValueError(text)
        except (ValueError, OverflowError):
            raise ValueError(f"-n {text}: give a whole number of steps, for all environments, or ENV=N for one") from None
        if steps.setdefault(env_id or None, value) != value:
            raise ValueError(f"-n {text}: {env_id or 'all environments'} had {steps[env_id or None]} before")
    for_all = steps.pop(None, None)
    common = {} if for_all is None else dict.fromkeys(env_ids, for_all)
    return common | {env_id: value for env_id, value in steps.items() if env_id}


def _threshold(text: str) -> tuple[str, float]:
    env_id, _, number = text.rpartition("=")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not env_id or not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"must be ENV=VALUE with a number, but is {text!r}")
    return env_id, value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Train algorithms on environments with several seeds, side by side, and report them with intervals. "
        "Called again, it does what is missing."
    )
    add = parser.add_argument
    text = "algorithms of the zoo; the report is about the first (default: %(default)s)"
    add("--algos", nargs="+", default=["vpg", "a2c", "ppo", "trpo", "random_search"], metavar="ALGO", help=text)
    add("--envs", nargs="+", required=True, metavar="ENV", help="environment IDs")
    add("--seeds", type=int, default=10, help="how many seeds (default: %(default)s)")
    add("--seed", type=int, default=0, help="the first of them (default: %(default)s)")
    text = "environment steps of every run: a number for all environments, ENV=N for one (default: those that each entry was "
    add("-n", "--n-timesteps", nargs="+", metavar="N", help=f"{text}tuned for)")
    add("-f", "--folder", default="logs/comparison", help="runs, records and report (default: %(default)s)")
    add("--engine", choices=ENGINES, default="local", help="processes of this machine, or a Ray cluster (default: local)")
    add("-j", "--n-jobs", type=int, help="how many run side by side (default: one for each core)")
    add("--address", help="of an existing Ray cluster (default: one of its own on this machine)")
    text = "ENV=VALUE, normalised 1, where it is not to be the environment's own"
    add("--threshold", type=_threshold, nargs="+", default=[], metavar="ENV=VALUE", help=text)
    parser.set_defaults(**_DEFAULTS)
    add("--n-evaluations", type=int, help="of each run, evenly spread (default: %(default)s)")
    add("--eval-episodes", type=int, help="of each evaluation (default: %(default)s)")
    add("--final-episodes", type=int, help="to score each finished agent by (default: %(default)s)")
    add("--report-only", action="store_true", help="run nothing, report what is there of the same command")
    add_gym_packages(parser)
    return parser
