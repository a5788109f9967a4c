"""``sb3-vpg compare``: algorithms beside each other, with intervals."""

import argparse
import shlex
import sys

from sb3_vpg.compare.comparing import ENGINES, compare
from sb3_vpg.compare.report import PAGE
from sb3_vpg.compare.scores import Comparison


def main() -> None:
    """
    The command. Its arguments are ``sys.argv``.

    :raises RuntimeError: if runs failed, after everything else is done and reported
    """
    args = _parser().parse_args()
    command = shlex.join(["sb3-vpg", "compare", *sys.argv[1:]])
    try:
        comparison = _compare(args, command)
    except KeyboardInterrupt:
        print(f"Stopped; the same command goes on: {command}")
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


def _steps(given: list[str] | None, env_ids: list[str]) -> dict[str, int]:
    """
    :param given: numbers, alone for all environments or as ENV=N for one
    :return: by environment
    :raises ValueError: for what is no number of steps
    """
    steps: dict[str, int] = {}
    for text in given or ():
        env_id, _, number = text.rpartition("=")
        try:
            value = int(float(number))
        except (ValueError, OverflowError):
            raise ValueError(f"-n {text}: give a number of steps, for all environments, or ENV=N for one") from None
        if env_id:
            steps[env_id] = value
        else:
            steps = {**dict.fromkeys(env_ids, value), **steps}
    return steps


def _threshold(text: str) -> tuple[str, float]:
    env_id, _, number = text.rpartition("=")
    if not env_id:
        raise argparse.ArgumentTypeError(f"must be ENV=VALUE, but is {text!r}")
    return env_id, float(number)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Train algorithms on environments with several seeds, side by side, and report them with intervals. "
        "Called again, it does what is missing."
    )
    add = parser.add_argument
    text = "algorithms of the zoo; the report is about the first (default: %(default)s)"
    add("--algos", nargs="+", default=["vpg", "a2c", "ppo", "trpo", "random_search"], metavar="ALGO", help=text)
    add("--envs", nargs="+", required=True, metavar="ENV", help="environment IDs")
    add("--seeds", type=int, default=10, help="how many (default: %(default)s)")
    add("--seed", type=int, default=0, help="the first of them (default: %(default)s)")
    text = "environment steps of every run: a number for all environments, ENV=N for one (default: those that each entry was "
    add("-n", "--n-timesteps", nargs="+", metavar="N", help=f"{text}tuned for)")
    add("-f", "--folder", default="logs/comparison", help="runs, records and report (default: %(default)s)")
    add("--engine", choices=ENGINES, default="local", help="processes of this machine, or a Ray cluster (default: local)")
    add("-j", "--n-jobs", type=int, help="how many run side by side (default: one for each core)")
    add("--address", help="of an existing Ray cluster (default: one of its own on this machine)")
    text = "ENV=VALUE, normalised 1, where it is not to be the environment's own"
    add("--threshold", type=_threshold, nargs="+", default=[], metavar="ENV=VALUE", help=text)
    add("--n-evaluations", type=int, default=20, help="of each run, evenly spread (default: %(default)s)")
    add("--eval-episodes", type=int, default=5, help="of each evaluation (default: %(default)s)")
    add("--final-episodes", type=int, default=50, help="to score each finished agent by (default: %(default)s)")
    add("--report-only", action="store_true", help="run nothing, report what is there")
    add("--gym-packages", nargs="+", default=[], help="modules to import, which register environments")
    return parser
