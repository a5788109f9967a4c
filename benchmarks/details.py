"""
What does each implementation detail of VPG contribute? One detail is changed at a time; nothing else is tuned to it.

    python benchmarks/details.py

CartPole-v1 with the defaults of the class, Pendulum-v1 with the settings of hyperparams/vpg.yml. Two numbers of each run: the
area, which is the mean of the learning curve over the steps, and the final return of the finished agent. Each is compared with
that of the default over the same seeds.

The program also measures by how much the episodes that end first are too short, and what sampled actions cost at the end.

Each run leaves a JSON file, so a killed benchmark repeats only the runs that are missing; the report has the seeds that all
variants of an environment have finished. Results: details.md and details.json in benchmarks/results.
"""

from harness.training_run import evaluate, evaluation_env

# isort: split
import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from harness.cache import cached
from harness.detail_variants import TASKS, Task, Variant
from harness.learning_curve import Curve
from harness.report import make_parser, table, write_report
from stable_baselines3.common.callbacks import BaseCallback
from tqdm import tqdm

FIRST_SEED = 1000  # searches used seeds from 100, 200 and 300 on, comparisons those from 0 on
N_EVALUATED, EVALUATION_SEED = 20, 10_000
N_ENVS, N_UPDATES = 8, 200  # of the measurement of episodes that end first


def train(task: Task, variant: Variant, seed: int) -> dict[str, Any]:
    """:return: area, learning curve, final returns with the likeliest and with sampled actions, and CPU seconds"""
    start = time.process_time()
    model, env = task.build(variant, seed)
    curve = Curve()
    callbacks: list[BaseCallback] = [curve] if variant.callback is None else [curve, variant.callback()]
    failure = None
    try:
        model.learn(task.steps, callbacks)
    except ValueError as error:  # training diverged
        failure = str(error)
    binned = curve.binned(task.steps)
    played = evaluation_env(task.env_id, N_EVALUATED, env)
    final = {name: evaluate(model, played, name == "deterministic") for name in ("deterministic", "sampled")}
    seconds = time.process_time() - start
    return {
        "area": float(np.mean(binned)),
        **final,
        "curve": np.round(binned, 1).tolist(),
        "failure": failure,
        "seconds": seconds,
    }


def run_all(tasks: dict[str, Task], folder: Path, only_report: bool) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """
    Run all variants with one seed before the next seed.

    :param only_report: run nothing
    :return: by environment and variant: the results of the seeds that all variants have finished
    """
    folder.mkdir(parents=True, exist_ok=True)
    runs: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for env_id, task in tasks.items():
        runs[env_id] = {name: [] for name in task.variants}
        for seed in tqdm(range(FIRST_SEED, FIRST_SEED + task.n_seeds), desc=env_id, disable=only_report):
            files = {name: folder / f"{env_id}_{task.steps}_{name}_{seed}.json" for name in task.variants}
            if only_report and not all(file.is_file() for file in files.values()):
                break
            for name, variant in task.variants.items():
                result = cached(files[name], lambda task=task, variant=variant, seed=seed: train(task, variant, seed))
                runs[env_id][name].append(result)
    return runs


def mean_interval(numbers: np.ndarray, n_resamples: int = 10_000) -> tuple[float, float, float]:
    """:return: the mean, and its 95 % bootstrap interval"""
    drawn = np.random.default_rng(0).integers(0, len(numbers), (n_resamples, len(numbers)))
    low, high = np.percentile(numbers[drawn].mean(axis=1), [2.5, 97.5])
    return float(numbers.mean()), float(low), float(high)


def cell(numbers: np.ndarray) -> str:
    mean, low, high = mean_interval(numbers)
    return f"{mean:.1f} [{low:.1f}, {high:.1f}]"


def difference(numbers: np.ndarray, reference: np.ndarray) -> str:
    """:return: mean difference of the pairs with its interval; bold if the interval does not contain 0"""
    mean, low, high = mean_interval(numbers - reference)
    text = f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]"
    return f"**{text}**" if low > 0 or high < 0 else text


def variant_table(task: Task, runs: dict[str, list[dict[str, Any]]]) -> list[str]:
    rows = []
    values = {
        name: {key: np.array([result[key] for result in results]) for key in ("area", "deterministic")}
        for name, results in runs.items()
    }
    for name, variant in task.variants.items():
        row = [variant.label, f"`{variant.code}`" if "=" in variant.code or "(" in variant.code else variant.code]
        for key in ("area", "deterministic"):
            compared = "" if name == variant.reference else difference(values[name][key], values[variant.reference][key])
            row += [cell(values[name][key]), compared]
        rows.append(row)
    return table(["", "change", "area", "difference", "final return", "difference"], rows)


def sampling_table(runs: dict[str, dict[str, list[dict[str, Any]]]]) -> list[str]:
    rows = []
    for env_id, by_variant in runs.items():
        likeliest, sampled = (
            np.array([result[key] for result in by_variant["default"]]) for key in ("deterministic", "sampled")
        )
        rows.append([env_id, cell(likeliest), cell(sampled), difference(sampled, likeliest)])
    return table(["", "likeliest actions", "sampled actions", "difference"], rows)


def episode_lengths(n_episodes: int) -> np.ndarray:
    """:return: lengths of episodes of CartPole-v1 with actions drawn at random"""
    env, rng = gym.make("CartPole-v1"), np.random.default_rng(FIRST_SEED)
    env.reset(seed=FIRST_SEED)
    lengths, length = [], 0
    while len(lengths) < n_episodes:
        _, _, terminated, truncated, _ = env.step(int(rng.integers(2)))
        length += 1
        if terminated or truncated:
            lengths.append(length)
            length = 0
            env.reset()
    return np.array(lengths)


def first_to_end(lengths_NE: np.ndarray) -> float:
    """
    :param lengths_NE: lengths of the consecutive episodes of N environments
    :return: mean length of the N episodes that end first
    """
    ends = lengths_NE.cumsum(axis=1).ravel()
    return float(lengths_NE.ravel()[np.argsort(ends, kind="stable")[: len(lengths_NE)]].mean())


def episode_table(n_updates: int) -> tuple[list[str], dict[str, list[float]]]:
    """:return: the table, and the mean lengths of each update"""
    updates_UNE = episode_lengths(n_updates * N_ENVS**2).reshape(n_updates, N_ENVS, N_ENVS)
    counted = {
        "one whole episode of each environment, as VPG": updates_UNE[:, :, 0].mean(axis=1),
        f"the {N_ENVS} episodes that end first": np.array([first_to_end(lengths_NE) for lengths_NE in updates_UNE]),
    }
    rows = [[name, cell(lengths_U)] for name, lengths_U in counted.items()]
    return table(["counted episodes", "mean length"], rows), {name: lengths_U.tolist() for name, lengths_U in counted.items()}


def section(name: str, *lines: str) -> list[str]:
    """:return: lines between marks, between which documentation includes them"""
    return [f"<!-- {name} -->", "", *lines, f"<!-- end of {name} -->", ""]


def page(tasks: dict[str, Task], runs: dict[str, dict[str, list[dict[str, Any]]]], episodes: list[str]) -> list[str]:
    lines = [
        "One detail is changed at a time. Area: mean of the learning curve, the returns of training episodes over the steps.",
        f"Final return: {N_EVALUATED} episodes of the finished agent with the likeliest actions. Means over seeds, with",
        "95 % bootstrap intervals in brackets. A difference is that of runs with the same seed; it is bold if its interval",
        "does not contain 0. No seed was left out. Nothing was tuned: a variant may be better with other step sizes.",
        "",
    ]
    for env_id, task in tasks.items():
        n_runs = len(runs[env_id]["default"])
        settings = "the settings of `hyperparams/vpg.yml`" if task.from_file else "the defaults of the class"
        failed = sum(result["failure"] is not None for results in runs[env_id].values() for result in results)
        about = (
            f"{task.steps:,} steps, {settings}, seeds {FIRST_SEED} to {FIRST_SEED + n_runs - 1}. Runs that failed: {failed}."
        )
        lines += [f"## {env_id}", "", *section(env_id, about, "", *variant_table(task, runs[env_id]))]
    return [
        *lines,
        "## Likeliest and sampled actions",
        "",
        "The finished agents of the defaults.",
        "",
        *section("actions", *sampling_table(runs)),
        "## Episodes that end first",
        "",
        f"CartPole-v1 with random actions in {N_ENVS} environments, {N_UPDATES} updates, each from fresh resets.",
        "",
        *section("episodes", *episodes),
    ]


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument(
        "--envs", nargs="+", choices=TASKS, default=list(TASKS), help="default: all; without all, only --out writes results"
    )
    parser.add_argument("--report", action="store_true", help="run nothing; write the report of the finished runs")
    parser.add_argument("--folder", type=Path, default=Path("logs/details"), help="folder of the finished runs")
    args = parser.parse_args()
    tasks = {name: TASKS[name] for name in args.envs}
    with ExitStack() as stack:
        if args.quick:
            tasks = {name: replace(task, steps=1_500, n_seeds=2) for name, task in tasks.items()}
            args.folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        runs = run_all(tasks, args.folder, args.report)
    episodes, lengths = episode_table(N_UPDATES)
    raw = {"runs": runs, "lengths": lengths, "first_seed": FIRST_SEED}
    seconds = sum(result["seconds"] for by_variant in runs.values() for results in by_variant.values() for result in results)
    lines = [*page(tasks, runs, episodes), f"CPU seconds of all runs: {seconds:,.0f}.", ""]
    args.report = False  # the page is that of the finished runs, whenever it is written
    write_report(parser, args, "The details of VPG", lines, raw, complete=len(tasks) == len(TASKS))


if __name__ == "__main__":
    main()
