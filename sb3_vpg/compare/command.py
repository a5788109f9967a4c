"""The command ``sb3-vpg compare``."""

import argparse
import inspect
import math
import shlex
import sys

from sb3_vpg.compare.api import ENGINES, compare
from sb3_vpg.compare.report.pages import HTML
from sb3_vpg.compare.results import Comparison
from sb3_vpg.zoo.flags import add_gym_packages

_EVALUATION = ("n_evaluations", "eval_episodes", "final_episodes")
_DEFAULTS = {name: inspect.signature(compare).parameters[name].default for name in _EVALUATION}


def main() -> None:
    """
    The command. Its arguments are ``sys.argv``.

    :raises RuntimeError: if runs failed; all others have then run, and the report is written
    """
    args = _parser().parse_args()
    try:
        comparison = _compare(args)
    except KeyboardInterrupt:
        print(f"Stopped. To continue, run the same command: {shlex.join(['sb3-vpg', 'compare', *sys.argv[1:]])}")
        raise
    n_tasks = len(args.algos) * len(args.envs) * args.seeds
    print(f"{len(comparison.records)} of {n_tasks} runs finished. Report: {args.folder}/report/{HTML}")
    if comparison.failures:
        failed = len(comparison.failures)
        raise RuntimeError(f"{failed} run{'s' * (failed > 1)} failed: {'; '.join(comparison.failures.values())}")


def _compare(args: argparse.Namespace) -> Comparison:
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
        command=_command(args),
    )


def _command(args: argparse.Namespace) -> str:
    """:return: the command as the report shows it: only with the flags that decide the results"""
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
    Read the values of ``--n-timesteps``: each is N for all environments, or ENV=N for one.

    :return: steps by environment id
    :raises ValueError: if a value has another form, or if two contradict each other
    """
    # The key "" is for all environments
    steps: dict[str, int] = {}
    for text in given or ():
        env_id, equals, number = text.rpartition("=")
        try:
            value = int(float(number))
            if value != float(number) or (equals and not env_id):
                raise ValueError(text)
        except (ValueError, OverflowError):
            raise ValueError(f"-n {text}: must be a whole number N for all environments, or ENV=N for one") from None
        if steps.setdefault(env_id, value) != value:
            raise ValueError(f"-n {text}: {env_id or 'all environments'} already had {steps[env_id]}")
    for_all = dict.fromkeys(env_ids, steps.pop("")) if "" in steps else {}
    return for_all | steps


def _threshold(text: str) -> tuple[str, float]:
    env_id, _, number = text.rpartition("=")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not env_id or not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"must be ENV=VALUE, where VALUE is a number, but is {text!r}")
    return env_id, value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Train algorithms on environments with several seeds, and report the results with confidence intervals. "
        "If the command is run again, it runs only what is missing."
    )
    add = parser.add_argument
    text = "algorithms of the zoo; the report compares the first with the others (default: %(default)s)"
    add("--algos", nargs="+", default=["vpg", "a2c", "ppo", "trpo", "random_search"], metavar="ALGO", help=text)
    add("--envs", nargs="+", required=True, metavar="ENV", help="environment ids")
    add("--seeds", type=int, default=10, help="number of seeds (default: %(default)s)")
    add("--seed", type=int, default=0, help="first seed (default: %(default)s)")
    text = "environment steps of every run: N for all environments, ENV=N for one (default: those of the hyperparameters)"
    add("-n", "--n-timesteps", nargs="+", metavar="N", help=text)
    add("-f", "--folder", default="logs/comparison", help="folder for runs, records and report (default: %(default)s)")
    add("--engine", choices=ENGINES, default="local", help="processes on this machine, or a Ray cluster (default: local)")
    add("-j", "--n-jobs", type=int, help="number of runs in parallel (default: one per core)")
    add("--address", help="address of an existing Ray cluster (default: start a cluster on this machine)")
    text = "return with the normalised score 1 (default: the environment's reward threshold, or ours where it has none)"
    add("--threshold", type=_threshold, nargs="+", default=[], metavar="ENV=VALUE", help=text)
    parser.set_defaults(**_DEFAULTS)
    add("--n-evaluations", type=int, help="evaluations during each run, evenly spread (default: %(default)s)")
    add("--eval-episodes", type=int, help="episodes of each evaluation (default: %(default)s)")
    add("--final-episodes", type=int, help="episodes to evaluate each finished agent with (default: %(default)s)")
    add("--report-only", action="store_true", help="run nothing; report the finished runs of the same command")
    add_gym_packages(parser)
    return parser
