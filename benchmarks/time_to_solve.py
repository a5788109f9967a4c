"""
How long until CartPole-v1 is solved? VPG with two settings, and PPO and A2C with rl-zoo3's tuned ones, 20 seeds each.

    python benchmarks/time_to_solve.py

CPU seconds of one core and environment steps until three milestones:

* first: the first evaluation (20 deterministic episodes) with a mean return of at least 475;
* stays: the first evaluation from which all evaluations to the end of the budget are that good;
* training: the mean return of the last 100 training episodes is at least 475.

Each run is a separate process and leaves a JSON file, whose name depends on the settings. So a killed benchmark repeats only
the runs that are missing. Results: time_to_solve.md and time_to_solve.json in benchmarks/results.
"""

from harness.training_run import N_EVALUATED, THRESHOLD, WINDOW, Setting, train, zoo_setting

# isort: split
import argparse
import hashlib
import json
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from harness.cache import cached
from harness.measure import KINDS, in_fresh_process
from harness.milestones import MILESTONES, Runs, goals, milestone_table, overview, run_table
from harness.report import goal_table, make_parser, table, write_report
from tqdm import tqdm

TITLE = "Time to solve CartPole-v1"
# Found by a search on seeds from 200 on, which are not measured here
SETTINGS = {
    "fast": Setting(
        "VPG, for few seconds",
        "vpg",
        kind="native",
        n_envs=64,
        budget=400_000,
        every=2_000,
        options={
            "n_steps": 64,
            "learning_rate": "lin_0.0109",
            "vf_learning_rate": "lin_0.0056",
            "gae_lambda": 0.98,
            "n_critic_updates": 12,
        },
    ),
    # The setting of hyperparams/vpg.yml
    "frugal": Setting(
        "VPG, for few steps",
        "vpg",
        kind="dummy",
        n_envs=4,
        budget=100_000,
        every=2_000,
        options={
            "n_steps": 64,
            "learning_rate": "lin_0.0035",
            "vf_learning_rate": "lin_0.0022",
            "gamma": 0.98,
            "n_critic_updates": 24,
        },
    ),
    "ppo": zoo_setting("PPO, zoo", "ppo", every=2_000),
    "a2c": zoo_setting("A2C, zoo", "a2c", every=2_000),
    # Shows how much of the difference comes from the environment
    "ppo_native": zoo_setting("PPO, zoo, on the vector environment", "ppo", every=2_000, kind="native"),
}


def run(name: str, setting: Setting, seed: int, folder: Path) -> dict[str, Any]:
    """:return: the result of a run, from its file if it was done before with the same settings"""
    digest = hashlib.sha256(json.dumps(asdict(setting), sort_keys=True).encode()).hexdigest()[:8]
    task = {"setting": asdict(setting), "seed": seed}
    result: dict[str, Any] = cached(folder / f"{name}_{seed}_{digest}.json", lambda: in_fresh_process(__file__, task))
    return result


def run_all(settings: dict[str, Setting], seeds: int, folder: Path, jobs: int) -> Runs:
    """Run all settings with one seed before the next seed, so that a change of the machine's speed affects all of them."""
    folder.mkdir(parents=True, exist_ok=True)
    tasks = [(name, seed) for seed in range(seeds) for name in settings]
    with ThreadPoolExecutor(jobs) as pool:
        finished = pool.map(lambda task: run(task[0], settings[task[0]], task[1], folder), tasks)
        results = dict(zip(tasks, tqdm(finished, total=len(tasks)), strict=True))
    return {name: [results[name, seed] for seed in range(seeds)] for name in settings}


def setting_table(settings: dict[str, Setting]) -> list[str]:
    rows = []
    for name, setting in settings.items():
        options = ", ".join(f"{key} {value}" for key, value in setting.options.items())
        where = f"{setting.n_envs} in {KINDS[setting.kind]}"
        rows.append([name, setting.label, where, f"{setting.budget:,}", f"{setting.every:,}", options])
    return table(["", "", "environments", "steps in all", "an evaluation every", "options"], rows)


def page(settings: dict[str, Setting], runs: Runs) -> list[str]:
    labels = {name: setting.label for name, setting in settings.items()}
    return [
        "CPU seconds of one core and environment steps, without evaluations, imports and the construction of the model.",
        "Milestones:",
        "",
        f"* first: first evaluation, {N_EVALUATED} deterministic episodes, with a mean return of at least {THRESHOLD:.0f};",
        "* stays: first evaluation from which all later ones to the end of the budget are that good;",
        f"* training: mean return of the last {WINDOW} episodes of training at least {THRESHOLD:.0f}, seen after a rollout.",
        "",
        "Medians and quartiles over seeds; a run that misses a milestone counts as later than any other; in brackets the 95 %",
        "bootstrap interval of the median. No seed was left out.",
        "",
        *overview(labels, runs),
        "## Milestones",
        "",
        *milestone_table(labels, runs),
        *goal_table(goals(runs)),
        "## Settings",
        "",
        *setting_table(settings),
        "## Every run",
        "",
        f"CPU seconds and environment steps to {', '.join(MILESTONES)}.",
        "",
        *run_table(labels, runs),
    ]


def arguments() -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    parser = make_parser(__doc__)
    parser.add_argument(
        "--settings",
        nargs="+",
        choices=SETTINGS,
        default=list(SETTINGS),
        help="settings to run (default: all); without all of them, only --out writes results",
    )
    parser.add_argument("--seeds", type=int, default=20, help="number of seeds, from 0 (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time (default: %(default)s)")
    parser.add_argument(
        "--folder", type=Path, default=Path("logs/time_to_solve"), help="folder of the finished runs (default: %(default)s)"
    )
    parser.add_argument("--task", help=argparse.SUPPRESS)
    return parser, parser.parse_args()


def main() -> None:
    parser, args = arguments()
    if args.task:
        task = json.loads(args.task)
        print(json.dumps(train(Setting(**task["setting"]), task["seed"])))
        return
    settings, seeds = {name: SETTINGS[name] for name in args.settings}, args.seeds
    with ExitStack() as stack:
        if args.quick:
            settings = {name: replace(setting, budget=4_000) for name, setting in settings.items()}
            seeds, args.folder = 2, Path(stack.enter_context(tempfile.TemporaryDirectory()))
        runs = run_all(settings, seeds, args.folder, args.jobs)
    raw = {"settings": {name: asdict(setting) for name, setting in settings.items()}, "runs": runs}
    write_report(parser, args, TITLE, page(settings, runs), raw, complete=len(settings) == len(SETTINGS))


if __name__ == "__main__":
    main()
