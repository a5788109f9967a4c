"""A comparison from its settings to its report, as a Python function."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sb3_vpg.common.atomic_files import atomic_write
from sb3_vpg.common.locks import claimed
from sb3_vpg.compare.report import pages as report
from sb3_vpg.compare.results import Comparison
from sb3_vpg.compare.runs import attempts
from sb3_vpg.compare.runs.engines import Engine, LocalEngine
from sb3_vpg.compare.runs.ray_engine import RayEngine
from sb3_vpg.compare.runs.records import RECORDS, finished
from sb3_vpg.compare.runs.scheduler import run_all
from sb3_vpg.compare.runs.tasks import Plan, without_entry
from sb3_vpg.compare.score_normalization import GIVEN, Reference, references

ENGINES = ("local", "ray")
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
    n_evaluations: int = 20,
    eval_episodes: int = 5,
    final_episodes: int = 50,
    gym_packages: Sequence[str] = (),
    report_only: bool = False,
    command: str | None = None,
) -> Comparison:
    """
    Train every algorithm on every environment with every seed, and report what came of it.

    Called again with the same settings it does what is missing, and nothing twice.

    :param algos: names on the command line; the first is the one that the report is about
    :param env_ids: environments
    :param seeds: how many, from 0 on, or which
    :param n_timesteps: environment steps of every run, or by environment; None, or an environment that is not there: each
        algorithm has the steps that its own entry was tuned for
    :param folder: log folder of the runs, in the zoo's layout, with the records and the report beside them
    :param engine: ``"local"`` for processes of this machine, ``"ray"`` for a Ray cluster
    :param n_jobs: how many run side by side; None: one for each core
    :param address: of an existing Ray cluster; None: one of its own on this machine
    :param thresholds: normalised 1, by environment; those of the environments' own registrations if there are none
    :param n_evaluations: of each run, evenly spread
    :param eval_episodes: of each of these evaluations
    :param final_episodes: by which each finished agent is scored
    :param gym_packages: modules to import, which register environments
    :param report_only: run nothing, report what is there, with whatever hyperparameters it was run
    :param command: what the report says that it was made by; None: this call
    :return: the results, failures included; the report lies in ``folder/report``
    :raises ValueError: for settings that cannot be run, and if the folder holds runs with other settings, or anything else
    """
    settled = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    steps = dict.fromkeys(env_ids, n_timesteps) if isinstance(n_timesteps, int) else dict(n_timesteps or {})
    if any(number < 1 for number in steps.values()):
        raise ValueError(f"n_timesteps must be at least 1, but are {steps}")
    looks = {"n_evaluations": n_evaluations, "eval_episodes": eval_episodes, "final_episodes": final_episodes}
    tasks = Plan(algos, env_ids, settled, steps, **looks, gym_packages=gym_packages).tasks()
    folder = Path(folder)
    # What is refused is refused before anything is begun
    where = None if report_only else _engine(engine, folder, n_jobs, address)
    with _claimed(folder, report_only):
        records = finished(tasks, folder / RECORDS, any_entry=report_only)
        known = _references({task.env_id: task.env_kwargs for task in tasks}, thresholds or {}, folder / _REFERENCES)
        if where is not None:
            _say_untuned(algos, env_ids)
            run_all(tasks, records, folder / RECORDS, where)
        done = [records[task.name] for task in tasks if task.name in records]
        failures = attempts.failures([task for task in tasks if task.name not in records], folder)
        comparison = Comparison(algos, env_ids, settled, done, known, failures)
        named = {**looks, "thresholds": thresholds, "gym_packages": gym_packages}
        report.write(comparison, folder / "report", command or _call([algos, env_ids, settled, n_timesteps], named))
    return comparison


def _call(settings: Sequence[object], named: Mapping[str, object]) -> str:
    """:return: the call of ``compare`` with what its numbers depend on, as far as it was given"""
    words = [*map(repr, settings), *(f"{name}={value!r}" for name, value in named.items() if value)]
    return f"sb3_vpg.compare.compare({', '.join(words)})"


def _say_untuned(algos: Sequence[str], env_ids: Sequence[str]) -> None:
    untuned = {algo: without_entry(algo, env_ids) for algo in algos}
    names = [f"{algo} on {env_id}" for env_id in env_ids for algo in algos if env_id in untuned[algo]]
    if names:
        print(f"No entry of their own, so the default one, which was not tuned: {', '.join(names)}", flush=True)


@contextmanager
def _claimed(folder: Path, report_only: bool) -> Iterator[None]:
    """
    What a stopped attempt has left of a run is removed, so the folder must be one of comparisons, and of one at a time.

    :raises ValueError: if it holds anything else, if another process is at work in it, and if there is nothing to report
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; the --folder of a comparison is a folder")
    if report_only and not (folder / RECORDS).is_file():
        raise ValueError(f"{folder} holds no {RECORDS} to report; name the folder of a comparison, or run one first")
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if names - {".lock"} and not names & {_REFERENCES, RECORDS}:
        raise ValueError(
            f"{folder} holds other things than a comparison, which removes runs that it finds incomplete: "
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
        raise ValueError(f"there is no engine {name!r}; choose from {', '.join(ENGINES)}")
    if address is not None:
        raise ValueError(f"an address ({address}) is that of a Ray cluster: give engine 'ray' with it")
    return LocalEngine(folder, n_jobs or _cores())


def _cores() -> int:
    """:return: those that this process may use"""
    with suppress(AttributeError):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _references(env_kwargs: Mapping[str, Mapping[str, Any]], given: Mapping[str, float], file: Path) -> dict[str, Reference]:
    """:return: those of the folder where it has them, so that a report can be made where the environments are not installed"""
    saved: dict[str, Reference] = {}
    if file.is_file():
        try:
            saved = {env_id: Reference(**values) for env_id, values in json.loads(file.read_text()).items()}
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{file} is damaged ({error}); remove it, and it is made anew") from error
    # A threshold that was given counts for the call that gave it
    kept = {env_id: one for env_id, one in saved.items() if env_id in env_kwargs and env_id not in given}
    kept = {env_id: one for env_id, one in kept.items() if one.source != GIVEN}
    measured = references({env_id: kwargs for env_id, kwargs in env_kwargs.items() if env_id not in kept}, given)
    if measured:
        with atomic_write(file) as stream:
            everything = {**saved, **measured}
            stream.write(json.dumps({env_id: asdict(one) for env_id, one in everything.items()}, indent=1).encode())
    return {env_id: {**kept, **measured}[env_id] for env_id in env_kwargs}
