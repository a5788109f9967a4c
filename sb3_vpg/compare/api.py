"""The function ``compare``: checks the settings, runs the missing tasks and writes the report."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sb3_vpg.common.atomic_files import atomic_write
from sb3_vpg.common.locks import claimed
from sb3_vpg.common.system_info import usable_cores
from sb3_vpg.compare.flags import ENGINES, EVAL_EPISODES, FINAL_EPISODES, N_EVALUATIONS
from sb3_vpg.compare.report import pages
from sb3_vpg.compare.results import Comparison
from sb3_vpg.compare.runs import attempts
from sb3_vpg.compare.runs.engines import Engine, LocalEngine
from sb3_vpg.compare.runs.ray_engine import RayEngine
from sb3_vpg.compare.runs.records import RECORDS, finished
from sb3_vpg.compare.runs.scheduler import run_all
from sb3_vpg.compare.runs.tasks import Plan, without_entry
from sb3_vpg.compare.score_normalization import GIVEN, Reference, references

_REFERENCES = "references.json"


def compare(
    algos: Sequence[str],
    env_ids: Sequence[str],
    seeds: int | Sequence[int] = 10,
    n_timesteps: int | Mapping[str, int] | None = None,
    folder: str | Path = "logs/comparison",
    *,
    engine: str = "local",
    n_jobs: int | None = None,
    address: str | None = None,
    thresholds: Mapping[str, float] | None = None,
    n_evaluations: int = N_EVALUATIONS,
    eval_episodes: int = EVAL_EPISODES,
    final_episodes: int = FINAL_EPISODES,
    gym_packages: Sequence[str] = (),
    report_only: bool = False,
    command: str | None = None,
) -> Comparison:
    """
    Train every algorithm on every environment with every seed, and write a report to ``folder/report``.

    Called again, it runs only what is missing. Keywords are named like the flags of ``sb3-vpg compare``.

    :param algos: names of algorithms on the command line; the report compares the first with the others
    :param env_ids: environment ids
    :param seeds: number of seeds, starting at 0, or the seeds
    :param n_timesteps: environment steps of every run, or a mapping from environment id to steps; where there is none, each
        algorithm has the steps of its own hyperparameters
    :param folder: log folder of the runs (as in the zoo), the records and the report
    :param engine: ``"local"`` to run processes on this machine, ``"ray"`` for a Ray cluster
    :param n_jobs: number of runs in parallel; None: one per core
    :param address: address of an existing Ray cluster; None: start a cluster on this machine
    :param thresholds: return with the normalised score 1, by environment; for others see ``sb3_vpg.zoo.thresholds``
    :param n_evaluations: number of evaluations during each run, evenly spread
    :param eval_episodes: episodes of each of these evaluations
    :param final_episodes: episodes to evaluate each finished agent with
    :param gym_packages: modules to import, which register environments
    :param report_only: run nothing; report the finished runs, even if hyperparameter files have changed since
    :param command: the command that the report shows; None: this call
    :return: the results, with the failures
    :raises ValueError: if a setting is not valid, if the folder holds runs with other settings or other files, or if another
        process uses it
    """
    seed_list = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    steps = dict.fromkeys(env_ids, n_timesteps) if isinstance(n_timesteps, int) else dict(n_timesteps or {})
    evaluation = {"n_evaluations": n_evaluations, "eval_episodes": eval_episodes, "final_episodes": final_episodes}
    tasks = Plan(algos, env_ids, seed_list, steps, **evaluation, gym_packages=gym_packages).tasks()
    folder = Path(folder)
    # All settings are checked before anything runs
    task_engine = None if report_only else _engine(engine, folder, n_jobs, address)
    with _locked(folder, report_only):
        records = finished(tasks, folder / RECORDS, any_entry=report_only)
        scale = _references({task.env_id: task.env_kwargs for task in tasks}, thresholds or {}, folder / _REFERENCES)
        if task_engine is not None:
            _print_untuned(algos, env_ids)
            run_all(tasks, records, folder / RECORDS, task_engine)
        done = [records[task.name] for task in tasks if task.name in records]
        failures = attempts.failures([task for task in tasks if task.name not in records], folder)
        comparison = Comparison(algos, env_ids, seed_list, done, scale, failures)
        keywords = {**evaluation, "thresholds": thresholds, "gym_packages": gym_packages}
        pages.write(comparison, folder / "report", command or _call([algos, env_ids, seed_list, n_timesteps], keywords))
    return comparison


def _call(arguments: Sequence[object], keywords: Mapping[str, object]) -> str:
    """:return: a call of ``compare`` with the arguments that decide the results; keywords without a value are left out"""
    words = [*map(repr, arguments), *(f"{name}={value!r}" for name, value in keywords.items() if value)]
    return f"sb3_vpg.compare.compare({', '.join(words)})"


def _print_untuned(algos: Sequence[str], env_ids: Sequence[str]) -> None:
    names = [f"{algo} on {env_id}" for algo in algos for env_id in without_entry(algo, env_ids)]
    if names:
        print(f"With default hyperparameters, which are not tuned: {', '.join(names)}", flush=True)


@contextmanager
def _locked(folder: Path, report_only: bool) -> Iterator[None]:
    """
    Make the folder of a comparison if there is none, and lock it for this process.

    :raises ValueError: if it holds other files, if another process uses it, or if there is nothing to report
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--folder {folder} is a file; name a folder")
    if report_only and not (folder / RECORDS).is_file():
        raise ValueError(f"{folder} holds no {RECORDS} to report; name the folder of a comparison, or run one first")
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if names - {".lock"} and not names & {_REFERENCES, RECORDS}:
        raise ValueError(
            f"{folder} holds files, but no comparison. A comparison removes incomplete runs from its folder: "
            "choose an empty --folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    with claimed(folder):
        yield


def _engine(name: str, folder: Path, n_jobs: int | None, address: str | None) -> Engine:
    if n_jobs is not None and n_jobs < 1:
        raise ValueError(f"n_jobs must be at least 1, but is {n_jobs}")
    if name == "ray":
        return RayEngine(folder, n_jobs, address)
    if name != "local":
        raise ValueError(f"engine must be one of {', '.join(ENGINES)}, but is {name!r}")
    if address is not None:
        raise ValueError(f"address {address} is for a Ray cluster: set engine to 'ray' as well")
    return LocalEngine(folder, n_jobs or usable_cores())


def _references(env_kwargs: Mapping[str, Mapping[str, Any]], given: Mapping[str, float], file: Path) -> dict[str, Reference]:
    """Read saved references, so that a report needs no installed environment; measure and save the missing ones."""
    saved: dict[str, Reference] = {}
    if file.is_file():
        try:
            saved = {env_id: Reference(**values) for env_id, values in json.loads(file.read_text()).items()}
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{file} is damaged ({error}); remove it to measure the references again") from error
    # A threshold that an earlier call was given is not used again
    valid = {env_id: each for env_id, each in saved.items() if env_id not in given and each.source != GIVEN}
    measured = references({env_id: kwargs for env_id, kwargs in env_kwargs.items() if env_id not in valid}, given)
    if measured:
        with atomic_write(file) as stream:
            stream.write(json.dumps({env_id: asdict(each) for env_id, each in (saved | measured).items()}, indent=1).encode())
    return {env_id: (valid | measured)[env_id] for env_id in env_kwargs}
