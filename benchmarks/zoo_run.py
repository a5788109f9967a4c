"""
How long does the command line take to train on CartPole-v1 with tuned hyperparameters, from start to end of the process?

    python benchmarks/zoo_run.py

``sb3-vpg train --env CartPole-v1``, with imports and the zoo's evaluations, compared with ``--algo ppo`` and ``--algo a2c``.
Results: zoo_run.md and zoo_run.json in benchmarks/results.
"""

import sys
import tempfile

import numpy as np
from harness.measure import process_seconds
from harness.report import Goal, goal_table, make_parser, table, write_report

TITLE = "The command line"
FLAGS = ["--env", "CartPole-v1", "--num-threads", "1", "--verbose", "0"]
RUNS = {
    "vpg": [],
    "vpg native": ["--vec-env", "native"],
    "ppo": ["--algo", "ppo"],
    "a2c": ["--algo", "a2c"],
}
WALL, CPU = "wall clock", "CPU"


def measure(flags: list[str], seed: int) -> tuple[float, float]:
    """
    Run the command in a temporary folder.

    :return: wall-clock seconds and CPU seconds
    :raises CalledProcessError: if the command fails
    """
    with tempfile.TemporaryDirectory() as folder:
        return process_seconds([sys.executable, "-m", "sb3_vpg", "train", *FLAGS, *flags, "--seed", str(seed), "-f", folder])


def run_table(measured: dict[str, dict[str, list[float]]]) -> list[str]:
    rows = []
    for name, seconds in measured.items():
        cells = [f"`sb3-vpg train {' '.join([*FLAGS, *RUNS[name]])}`"]
        for what in (WALL, CPU):
            times = seconds[what]
            cells.append(f"{np.median(times):.1f} ({min(times):.1f} to {max(times):.1f})")
            ratios = np.divide(times, measured["ppo"][what]) if "ppo" in measured else [np.nan]
            cells.append(f"{np.median(ratios):.2f}")
        rows.append(cells)
    return table(["", "wall clock, s (range)", "/ PPO's", "CPU, s (range)", "/ PPO's"], rows)


def goals(measured: dict[str, dict[str, list[float]]]) -> list[Goal]:
    result = []
    for name in ("vpg", "vpg native"):
        if name in measured and "ppo" in measured:
            share = float(np.median(np.divide(measured[name][WALL], measured["ppo"][WALL])))
            result.append(Goal(f"{name}: wall clock / PPO's", share, 1 / 3, at_least=False))
    return result


def report(measured: dict[str, dict[str, list[float]]], repetitions: int) -> list[str]:
    """:return: the lines of the report"""
    introduction = [
        "Each command is a new process with one thread; its time includes imports and the zoo's evaluations. Each trains for",
        "the steps of its tuned hyperparameters, A2C for five times as many as the others. Medians over rounds in which every",
        f"command is measured once ({repetitions} rounds); a ratio is the median of the ratios within each round.",
        "",
    ]
    return [*introduction, *run_table(measured), *goal_table(goals(measured))]


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument(
        "--repetitions", type=int, default=3, help="number of rounds, each with another seed (default: %(default)s)"
    )
    parser.add_argument(
        "--runs",
        nargs="+",
        choices=RUNS,
        default=list(RUNS),
        help="runs to measure (default: all); without all of them, only --out writes results",
    )
    args = parser.parse_args()
    repetitions, short = (1, ["-n", "1000"]) if args.quick else (args.repetitions, [])
    measured: dict[str, dict[str, list[float]]] = {name: {WALL: [], CPU: []} for name in args.runs}
    for seed in range(repetitions):
        for name, seconds in measured.items():
            for what, number in zip((WALL, CPU), measure([*RUNS[name], *short], seed), strict=True):
                seconds[what].append(number)
            print(name, seed, {what: round(numbers[-1], 2) for what, numbers in seconds.items()}, flush=True)
    lines, complete = report(measured, repetitions), len(measured) == len(RUNS)
    write_report(parser, args, TITLE, lines, {"seconds": measured}, complete)


if __name__ == "__main__":
    main()
