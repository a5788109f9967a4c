"""Opens the study of a search, and stores in it what the search began with."""

import json
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage, RetryHeartbeatStaleTrialCallback, fail_stale_trials
from optuna.storages.journal import JournalFileBackend
from optuna.study import create_study
from optuna.trial import TrialState
from sqlalchemy.exc import SQLAlchemyError

HEARTBEAT = 60
"""Interval of a worker's heartbeats in seconds. After two missed ones, Optuna queues its trial once more."""
_ATTEMPTS = 5
_KEY = "sb3-vpg"


@dataclass(frozen=True)
class StudyOrigin:
    """
    What a search began with.

    :param algo: name of the algorithm on the command line
    :param env_id: environment id
    :param entry: entry of the hyperparameter file, changed by ``-params``; None if JSON cannot express it
    :param gym_packages: modules to import, which register environments; empty for older studies
    """

    algo: str
    env_id: str
    entry: dict[str, Any] | None
    gym_packages: list[str] = field(default_factory=list)

    def save(self, study: optuna.Study) -> None:
        """Save it as an attribute of a study."""
        study.set_user_attr(_KEY, json.dumps(asdict(self)))

    def check_same(self, study: optuna.Study) -> None:
        """Raise ValueError if a study began with something else: its trials cannot be compared with these."""
        if _KEY not in study.user_attrs:
            return
        before = asdict(self.read(study))
        for name, now in asdict(self).items():
            # Modules may have other names on another machine
            if name != "gym_packages" and None not in (before[name], now) and before[name] != now:
                difference = _difference(name, before[name], now)
                raise ValueError(f"study {study.study_name!r} began with {difference}: choose another --study-name")

    @classmethod
    def read(cls, study: optuna.Study) -> "StudyOrigin":
        """Read it from a study. Raise ValueError if another program created the study."""
        if _KEY not in study.user_attrs:
            raise ValueError(f"study {study.study_name!r} was not created by sb3-vpg optimize, so its entry is unknown")
        return cls(**json.loads(study.user_attrs[_KEY]))


def _difference(name: str, before: Any, now: Any) -> str:
    """:return: the difference as text; for an entry, the first key that differs"""
    if isinstance(before, dict) and isinstance(now, dict):
        name = next(key for key in sorted({**before, **now}) if before.get(key) != now.get(key))
        before, now = before.get(name), now.get(name)
    return f"{name} {before!r}, not {now!r}"


def as_json(entry: dict[str, Any]) -> dict[str, Any] | None:
    """:return: a copy of an entry, or None if JSON cannot express it"""
    try:
        copy: dict[str, Any] = json.loads(json.dumps(entry))
    except TypeError:
        return None
    return copy


@contextmanager
def open_storage(storage: str, **options: Any) -> Iterator[BaseStorage]:
    """
    Open a storage, and close its database connections at the end: Optuna leaves them to the garbage collector.

    :param storage: value of ``--storage``: a journal file that ends in .log, or the URL of a database
    :param options: arguments of ``RDBStorage``, for a database
    :raises ValueError: if it is neither
    """
    if storage.endswith(".log"):
        yield JournalStorage(JournalFileBackend(storage))
        return
    if "://" not in storage or storage.startswith("redis"):
        raise ValueError(
            f"--storage must be a journal file that ends in .log, or a URL like sqlite:///FILE, but is {storage!r}"
        )
    database = _database(storage, **options)
    try:
        yield database
    finally:
        database.remove_session()
        database.engine.dispose()


def _database(url: str, **options: Any) -> RDBStorage:
    """Open a database. If another process creates the tables of a new one at the same time, try again."""
    for _ in range(_ATTEMPTS - 1):
        try:
            return RDBStorage(url, **options)
        except (SQLAlchemyError, optuna.exceptions.StorageInternalError):
            time.sleep(1.0)
    return RDBStorage(url, **options)


def open_search_storage(storage: str | None) -> AbstractContextManager[BaseStorage | None]:
    """
    Open a database so that the trial of a killed worker is queued again. The zoo opens journal files, which cannot do that.

    :param storage: value of ``--storage``
    :return: context manager of the storage, or of None if it is not a database
    """
    if storage is None or storage.endswith(".log"):
        return nullcontext()
    retry = RetryHeartbeatStaleTrialCallback(max_retry=1)
    return open_storage(storage, heartbeat_interval=HEARTBEAT, heartbeat_stale_trial_callback=retry)


def create_or_load(study_name: str | None, storage: BaseStorage | None, **kwargs: Any) -> tuple[optuna.Study, bool]:
    """
    Create a study, or load it if another process has created it.

    :param study_name: name of the study; None for a generated one
    :param storage: storage; None to keep the study in memory
    :param kwargs: other arguments of ``optuna.create_study``
    :return: the study, and True if this process has created it
    """
    try:
        return create_study(storage=storage, study_name=study_name, **kwargs), True
    except optuna.exceptions.DuplicatedStudyError:
        study = create_study(storage=storage, study_name=study_name, load_if_exists=True, **kwargs)
    # For --max-total-trials the zoo counts running trials, and those of killed workers are not running
    fail_stale_trials(study)
    return study, False


def count_trials(study: optuna.Study) -> str:
    """:return: the number of trials in each state, for example "3 complete, 1 pruned" """
    states = [trial.state for trial in study.get_trials(deepcopy=False)]
    return ", ".join(f"{states.count(state)} {state.name.lower()}" for state in TrialState if state in states)


@contextmanager
def load_study(storage: str, study_name: str | None) -> Iterator[optuna.Study]:
    """
    Load a study, and close its storage at the end.

    :param storage: see ``open_storage``
    :param study_name: name of the study; may be None if the storage has only one
    :raises ValueError: if there is no such study; the message lists those in the storage
    """
    is_file = storage.endswith(".log") or storage.startswith("sqlite:///")
    if is_file and not Path(storage.removeprefix("sqlite:///")).is_file():
        # Optuna would create an empty database
        raise ValueError(f"there is no study in {storage}: no such file")
    with open_storage(storage) as opened:
        names = optuna.get_all_study_names(opened)
        if study_name is None and len(names) == 1:
            study_name = names[0]
        if study_name not in names:
            problem = "several studies: name one" if study_name is None else f"no study {study_name!r}: name another"
            raise ValueError(f"{storage} has {problem} with --study-name (it has {', '.join(map(repr, names)) or 'none'})")
        yield optuna.load_study(study_name=study_name, storage=opened)
