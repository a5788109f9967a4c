"""The command ``sb3-vpg compare``."""

import argparse
import shlex
import sys

from sb3_vpg.compare.api import compare
from sb3_vpg.compare.flags import compare_parser
from sb3_vpg.compare.report.pages import HTML
from sb3_vpg.compare.results import Comparison

_EVALUATION = ("n_evaluations", "eval_episodes", "final_episodes")


def main() -> None:
    """
    The command. Its arguments are ``sys.argv``.

    :raises RuntimeError: if runs failed; all others have then run, and the report is written
    """
    args = compare_parser().parse_args()
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
    parser = compare_parser()
    for name in _EVALUATION:
        if getattr(args, name) != parser.get_default(name):
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
