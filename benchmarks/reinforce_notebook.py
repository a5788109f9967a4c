"""
How many episodes until CartPole-v0 is solved (mean return of 100 consecutive episodes at least 195)? The NumPy loop of
examples/reinforce_notebook.py in both of its readings on three seeds, and VPG's defaults on ten.

    python benchmarks/reinforce_notebook.py

Each run leaves a JSON file, so a killed benchmark repeats only the runs that are missing; a run of the loop may take a quarter
of an hour. benchmarks/results/reinforce_notebook.md is written after every run; --report writes it without running anything.
"""

import argparse
import json
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch as th
from harness.cache import cached
from harness.report import RESULTS, table
from scipy.stats import t as student

from sb3_vpg.common.system_info import describe

example = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "examples" / "reinforce_notebook.py")))
NAMES = {
    "ours": "VPG's defaults",
    "stands": "the loop as it stands (gamma = 1, step 0.99 · 2.5e-5)",
    "intended": "the loop as intended (gamma = 0.99)",
}
SEEDS = {"ours": 10, "stands": 3, "intended": 3}
TASKS = [(reading, seed) for reading in ("ours", "stands", "intended") for seed in range(SEEDS[reading])]


def known(folder: Path, reading: str, seed: int) -> dict[str, Any] | None:
    """:return: the result of a run; None if it has not finished"""
    file = folder / f"{reading}_{seed}.json"
    return json.loads(file.read_text()) if file.is_file() else None


def run(folder: Path, reading: str, seed: int) -> None:
    result = cached(folder / f"{reading}_{seed}.json", lambda: example.train(reading, seed)._asdict())
    print(reading, seed, result, flush=True)


def mean_with_interval(numbers: list[float]) -> str:
    """:return: the mean with Student's 95 % interval; without one for a single number"""
    mean = f"{np.mean(numbers):,.0f}"
    if len(numbers) < 2:
        return mean
    margin = student.ppf(0.975, len(numbers) - 1) * np.std(numbers, ddof=1) / np.sqrt(len(numbers))
    return f"{mean} ± {margin:,.0f}"


def summary(folder: Path) -> list[str]:
    """:return: a row for each reading; with means only if every run solved the task, as a mean without failures misleads"""
    head = ["", "runs done", "solved", "episodes, mean ± 95 %", "steps, mean ± 95 %", "episodes, median and range"]
    rows = []
    for reading, name in NAMES.items():
        done = [result for seed in range(SEEDS[reading]) if (result := known(folder, reading, seed)) is not None]
        episodes, steps = [[result[key] for result in done] for key in ("episodes", "steps")]
        n_solved = sum(result["solved"] for result in done)
        cells = ["", "", ""]
        if done and n_solved == len(done):
            spread = f"{np.median(episodes):,.0f} ({min(episodes):,} to {max(episodes):,})"
            cells = [mean_with_interval(episodes), mean_with_interval(steps), spread]
        rows.append([name, f"{len(done)} of {SEEDS[reading]}", str(n_solved), *cells])
    return table(head, rows)


def run_table(folder: Path) -> list[str]:
    rows = []
    for reading, seed in TASKS:
        result = known(folder, reading, seed)
        cells = ["not run yet", "", "", ""]
        if result is not None:
            verdict = "yes" if result["solved"] else "no"
            cells = [verdict, f"{result['episodes']:,}", f"{result['steps']:,}", f"{result['last']:.1f}"]
        rows.append([reading, str(seed), *cells])
    return table(["", "seed", "solved", "episodes", "steps", "mean of the last 100"], rows)


def replays() -> list[str]:
    """:return: the table of the published weights over 100 episodes"""
    rows = []
    for deterministic, name in ((False, "sampled"), (True, "deterministic")):
        returns = example.replay(100, deterministic)
        low, high = example.interval(returns)
        rows.append([name, f"{returns.mean():.1f}", f"{low:.1f} to {high:.1f}", f"{int((returns == 200).sum())} of 100"])
    return table(["actions", "mean return", "95 % bootstrap interval", "episodes with 200"], rows)


def report(folder: Path) -> str:
    introduction = [
        "# From the NumPy loop to VPG: CartPole-v0",
        "",
        "Command: `python benchmarks/reinforce_notebook.py` (the example is `examples/reinforce_notebook.py`)",
        "",
        "Training with sampled actions in one environment until the mean return of the last 100 episodes is at least 195.",
        f"A run stops after {example.NUM_EP:,} episodes at the latest, the length of the notebook's run. Seeds start at 0;",
        "none was left out.",
        "",
    ]
    published = [
        "## Published weights",
        "",
        "The weights that the notebook published, after 5,000 of its episodes, seed 0 of the environments:",
        "",
    ]
    summaries = ["## Episodes until it is solved", "", *summary(folder)]
    runs = ["## Every run", "", *run_table(folder)]
    return "\n".join([*introduction, *summaries, *runs, *published, *replays(), describe(), ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("logs/reinforce_notebook"), help="folder of the finished runs")
    parser.add_argument("--report", action="store_true", help="run nothing; write the report of the finished runs")
    args = parser.parse_args()
    th.set_num_threads(1)
    args.folder.mkdir(parents=True, exist_ok=True)
    RESULTS.mkdir(exist_ok=True)
    for reading, seed in [] if args.report else TASKS:
        if known(args.folder, reading, seed) is None:
            run(args.folder, reading, seed)
            (RESULTS / "reinforce_notebook.md").write_text(report(args.folder))
    text = report(args.folder)
    (RESULTS / "reinforce_notebook.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
