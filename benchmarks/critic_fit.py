"""
Do many steps of the critic make VPG as good as PPO? A replication of Wang, Zhang and Gao 2025 (arXiv 2505.19247).

    python benchmarks/critic_fit.py

Three parts: ``paper``, VPG with the paper's settings and 50 or 100 passes of the critic; ``entry``, VPG with the settings of
hyperparams/vpg.yml for the same number of steps; ``passes``, the entry of Hopper-v4 for one million steps with 1 to 50 passes.

Each finished run leaves a small JSON file in benchmarks/results/critic_fit, and a killed run resumes from its checkpoint in
logs/critic_fit. So the program, started again, does only what is missing. Start it twice to use two cores: no run is made
twice. Results: critic_fit.md, critic_fit.json and critic_fit.png in benchmarks/results; they show the runs that are finished.
"""

from harness.training_run import evaluate, evaluation_env

# isort: split
import json
import shutil
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from harness.cache import cached
from harness.critic_fit_report import Records, draw, report
from harness.hyperparameters import own_entry
from harness.learning_curve import TimedCurve
from harness.report import RESULTS, make_parser, results_folder, write_report
from harness.task_settings import Entry, new_model
from tqdm import tqdm

from sb3_vpg.checkpoints import TrainingCheckpoint
from sb3_vpg.common.locks import claimed
from sb3_vpg.common.system_info import describe
from sb3_vpg.exceptions import DivergedError, NotFiniteError

TITLE = "Many passes of the critic: a replication of arXiv 2505.19247"
PARTS = ("paper", "entry", "passes")
STEPS = {"Hopper-v4": 5_000_000, "Walker2d-v4": 5_000_000, "HalfCheetah-v4": 10_000_000}
PASSES_ENV, PASSES_STEPS, PASSES = "Hopper-v4", 1_000_000, (1, 5, 20, 50)
QUICK_STEPS = 4_096
N_CHECKPOINTS = 20  # in a run
N_LAST = 100  # training episodes
# What the paper does not say is that of its script: the initial standard deviation, and Adam's eps, which is torch's default
PAPER: Entry = {
    "n_envs": 16,
    "normalize": "dict(norm_reward=False)",
    "n_steps": 128,
    "gamma": 0.99,
    "gae_lambda": 0.95,
    "max_grad_norm": 1.0,
    "policy_kwargs": "dict(log_std_init=-0.5, optimizer_kwargs=dict(eps=1e-8))",
}


@dataclass(frozen=True)
class Setting:
    """
    :param part: one of ``PARTS``
    :param label: name in the report
    :param steps: environment steps of a run
    :param entry: hyperparameters in the zoo's form
    """

    part: str
    env_id: str
    label: str
    steps: int
    entry: Entry

    def file(self, folder: Path, seed: int) -> Path:
        """:return: the file of a finished run"""
        return folder / f"{self.part}_{self.env_id}_{self.label.replace(' ', '_')}_{seed}.json"


def label(passes: int) -> str:
    return f"{passes} pass{'es' * (passes > 1)}"


def settings() -> list[Setting]:
    """:return: all settings, those of hyperparams/vpg.yml as the file has them now"""
    result = []
    for env_id, steps in STEPS.items():
        rate = 3e-4 if env_id == "Hopper-v4" else 7e-4
        for passes in (50, 100):
            entry = {**PAPER, "learning_rate": rate, "n_critic_updates": passes}
            result.append(Setting("paper", env_id, label(passes), steps, entry))
        result.append(Setting("entry", env_id, "our entry", steps, own_entry(env_id)))
    for passes in PASSES:
        entry = {**own_entry(PASSES_ENV), "n_critic_updates": passes}
        result.append(Setting("passes", PASSES_ENV, label(passes), PASSES_STEPS, entry))
    return result


def train(setting: Setting, seed: int, checkpoints: Path, n_episodes: int) -> dict[str, Any]:
    """
    Train, and go on from the last checkpoint if there is one.

    :param checkpoints: folder of the run's checkpoints
    :param n_episodes: to evaluate the finished agent with
    """
    model = new_model(setting.env_id, "VPG", setting.entry, seed)
    curve, failure = TimedCurve(), None
    try:
        model.learn(setting.steps, [curve, TrainingCheckpoint(checkpoints, setting.steps // N_CHECKPOINTS)])
    except (NotFiniteError, DivergedError) as error:
        failure = str(error)
    seconds = curve.seconds
    assert model.env is not None
    score = evaluate(model, evaluation_env(setting.env_id, n_episodes, model.env))
    return {
        "entry": setting.entry,
        "score": score,
        "training": float(np.mean(curve.returns[-N_LAST:])) if curve.returns else float("nan"),
        "curve": np.round(curve.binned(setting.steps), 1).tolist(),
        "seconds": seconds,
        "failure": failure,
        "machine": describe(),
    }


def run_missing(chosen: list[tuple[Setting, int]], folder: Path, checkpoints: Path, n_episodes: int) -> None:
    """
    Make the runs that are neither finished nor being made by another process.

    :raises ValueError: if a finished run had other hyperparameters
    """
    for setting, seed in chosen:
        file = setting.file(folder, seed)
        if file.is_file() and json.loads(file.read_text())["entry"] != setting.entry:
            raise ValueError(f"{file} was made with other hyperparameters; remove it to make the run again")
    for setting, seed in tqdm(chosen):
        file = setting.file(folder, seed)
        if file.is_file():
            continue
        place = checkpoints / file.stem
        place.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            try:
                stack.enter_context(claimed(place))
            except ValueError:  # another process makes it
                continue
            cached(file, lambda setting=setting, seed=seed, place=place: train(setting, seed, place, n_episodes))
        shutil.rmtree(place, ignore_errors=True)


def finished(all_settings: list[Setting], seeds: int, folder: Path) -> Records:
    """
    :return: the settings with their finished runs; a setting that has some has the hyperparameters with which they were made
    :raises ValueError: if its runs had different ones
    """
    result = []
    for setting in all_settings:
        files = {seed: setting.file(folder, seed) for seed in range(seeds)}
        runs = {seed: json.loads(file.read_text()) for seed, file in files.items() if file.is_file()}
        entry = next((run["entry"] for run in runs.values()), setting.entry)
        if any(run["entry"] != entry for run in runs.values()):
            raise ValueError(f"the runs {', '.join(files[seed].name for seed in runs)} have different hyperparameters")
        result.append({**vars(setting), "entry": entry, "seeds": seeds, "runs": runs})
    return result


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what to run (default: all)")
    parser.add_argument("--envs", nargs="+", choices=STEPS, default=list(STEPS), help="on which environments (default: all)")
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds, from 0 (default: %(default)s)")
    parser.add_argument("--report", action="store_true", help="run nothing; write the report of the finished runs")
    parser.add_argument("--folder", type=Path, default=RESULTS / "critic_fit", help="folder of the finished runs")
    args = parser.parse_args()
    all_settings, seeds, n_episodes, checkpoints = settings(), args.seeds, 50, Path("logs/critic_fit")
    with ExitStack() as stack:
        if args.quick:
            all_settings, seeds, n_episodes = [replace(each, steps=QUICK_STEPS) for each in all_settings], 1, 2
            args.folder = checkpoints = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        args.folder.mkdir(parents=True, exist_ok=True)
        chosen = [each for each in all_settings if each.part in args.parts and each.env_id in args.envs]
        if not args.report:
            run_missing([(each, seed) for seed in range(seeds) for each in chosen], args.folder, checkpoints, n_episodes)
        records = finished(all_settings, seeds, args.folder)
    args.parts, args.envs, args.report = list(PARTS), list(STEPS), False  # the page shows all finished runs
    write_report(parser, args, TITLE, report(records), {"seeds": seeds})
    results = results_folder(args)
    if results is not None:
        draw(records, results / "critic_fit.png")


if __name__ == "__main__":
    main()
