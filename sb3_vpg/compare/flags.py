"""
The flags of ``sb3-vpg compare``, and the defaults that they share with the function ``compare``. See ``sb3_vpg.zoo.cli`` for
what this module may import.
"""

import argparse
import math

from sb3_vpg.zoo.flags import add_gym_packages, positive

ENGINES = ("local", "ray")
N_EVALUATIONS = 20
EVAL_EPISODES = 5
FINAL_EPISODES = 50


def compare_parser() -> argparse.ArgumentParser:
    """:return: the parser of ``compare``"""
    parser = argparse.ArgumentParser(
        description="Train algorithms on environments with several seeds, and report the results with confidence intervals. "
        "If the command is run again, it runs only what is missing."
    )
    add = parser.add_argument
    text = "algorithms of the zoo; the report compares the first with the others (default: %(default)s)"
    add("--algos", nargs="+", default=["vpg", "a2c", "ppo", "trpo", "random_search"], metavar="ALGO", help=text)
    add("--envs", nargs="+", required=True, metavar="ENV", help="environment ids")
    add("--seeds", type=positive, default=10, help="number of seeds (default: %(default)s)")
    add("--seed", type=int, default=0, help="first seed (default: %(default)s)")
    text = "environment steps of every run: N for all environments, ENV=N for one (default: those of the hyperparameters)"
    add("-n", "--n-timesteps", nargs="+", metavar="N", help=text)
    add("-f", "--folder", default="logs/comparison", help="folder for runs, records and report (default: %(default)s)")
    add("--engine", choices=ENGINES, default="local", help="processes on this machine, or a Ray cluster (default: local)")
    add("-j", "--n-jobs", type=positive, help="number of runs in parallel (default: one per core)")
    add("--address", help="address of an existing Ray cluster (default: start a cluster on this machine)")
    text = "return with the normalised score 1 (default: the environment's reward threshold, or ours where it has none)"
    add("--threshold", type=_threshold, nargs="+", default=[], metavar="ENV=VALUE", help=text)
    text = "evaluations during each run, evenly spread (default: %(default)s)"
    add("--n-evaluations", type=int, default=N_EVALUATIONS, help=text)
    add("--eval-episodes", type=int, default=EVAL_EPISODES, help="episodes of each evaluation (default: %(default)s)")
    text = "episodes to evaluate each finished agent with (default: %(default)s)"
    add("--final-episodes", type=int, default=FINAL_EPISODES, help=text)
    add("--report-only", action="store_true", help="run nothing; report the finished runs of the same command")
    add_gym_packages(parser)
    return parser


def _threshold(text: str) -> tuple[str, float]:
    env_id, _, number = text.rpartition("=")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not env_id or not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"must be ENV=VALUE, where VALUE is a number, but is {text!r}")
    return env_id, value
