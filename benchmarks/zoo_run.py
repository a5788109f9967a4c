"""
How long does the command line take to train on CartPole-v1 with the zoo's tuned settings, from the key to the prompt?

    python benchmarks/zoo_run.py

``sb3-vpg train --env CartPole-v1`` as a whole, imports and the zoo's own evaluations included, next to ``--algo ppo`` and
``--algo a2c``. Results: zoo_run.md and zoo_run.json in benchmarks/results.
"""

import os
import subprocess
import sys
import tempfile
import time

import numpy as np
from report import Goal, deliver, goal_table, parser, table

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
    Run the command in a folder of its own.

    :return: seconds on the wall and of CPU, that of its children included
    :raises CalledProcessError: if the command fails
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "sb3_vpg", "train", *FLAGS, *flags, "--seed", str(seed), "-f", folder]
        before, start = os.times(), time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        wall, after = time.perf_counter() - start, os.times()
    user, system = after.children_user - before.children_user, after.children_system - before.children_system
    return wall, user + system


def run_table(found: dict[str, dict[str, list[float]]]) -> list[str]:
    rows = []
    for name, seconds in found.items():
        cells = [f"`sb3-vpg train {' '.join([*FLAGS, *RUNS[name]])}`"]
        for what in (WALL, CPU):
            times = seconds[what]
            cells.append(f"{np.median(times):.1f} ({min(times):.1f} to {max(times):.1f})")
            ratios = np.divide(times, found["ppo"][what]) if "ppo" in found else [np.nan]
            cells.append(f"{np.median(ratios):.2f}")
        rows.append(cells)
    return table(["", "wall clock, s (range)", "/ PPO's", "CPU, s (range)", "/ PPO's"], rows)


def goals(found: dict[str, dict[str, list[float]]]) -> list[Goal]:
    judged = []
    for name in ("vpg", "vpg native"):
        if name in found and "ppo" in found:
            share = float(np.median(np.divide(found[name][WALL], found["ppo"][WALL])))
            judged.append(Goal(f"{name}: wall clock / PPO's", share, 1 / 3, at_least=False))
    return judged


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--repetitions", type=int, default=3, help="rounds, each with a seed of its own (default: %(default)s)")
    made.add_argument(
        "--runs", nargs="+", choices=RUNS, default=list(RUNS), help="which (default: all); a part is not written without --out"
    )
    args = made.parse_args()
    repetitions, short = (1, ["-n", "1000"]) if args.quick else (args.repetitions, [])
    os.environ["OMP_NUM_THREADS"] = "1"
    found: dict[str, dict[str, list[float]]] = {name: {WALL: [], CPU: []} for name in args.runs}
    for seed in range(repetitions):
        for name, seconds in found.items():
            for what, number in zip((WALL, CPU), measure([*RUNS[name], *short], seed), strict=True):
                seconds[what].append(number)
            print(name, seed, {what: round(numbers[-1], 2) for what, numbers in seconds.items()}, flush=True)
    introduction = [
        "The whole command in a fresh process with one thread, imports and the zoo's own evaluations included. Each trains",
        "for the steps that its tuned settings name, A2C for five times as many as the others. Medians of rounds in which all",
        f"took turns, of which there were {repetitions}; a ratio is the median of the ratios within each round.",
        "",
    ]
    lines = [*introduction, *run_table(found), *goal_table(goals(found))]
    deliver(made, args, "The command line", lines, {"seconds": found}, whole=len(found) == len(RUNS))


if __name__ == "__main__":
    main()
