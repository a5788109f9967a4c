"""What a search leaves in its study: trials that no killed worker blocks, and what they were tried with."""

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
from sqlalchemy.exc import SQLAlchemyError

HEARTBEAT = 60
"""Seconds from one sign of life to the next. After two without one a trial counts as lost, and is queued once more."""
_ATTEMPTS = 5
_KEY = "sb3-vpg"


@dataclass(frozen=True)
class StudyOrigin:
    """
    What a search began with.

    :param algo: the algorithm's name on the command line
    :param env_id: environment id
    :param entry: of the hyperparameter file, with what ``-params`` changed; None if it holds what no text can say
    :param gym_packages: modules to import, which register environments; older studies do not know theirs
    """

    algo: str
    env_id: str
    entry: dict[str, Any] | None
    gym_packages: list[str] = field(default_factory=list)

    def note(self, study: optuna.Study) -> None:
        """Write it into a study."""
        study.set_user_attr(_KEY, json.dumps(asdict(self)))

    def check_same(self, study: optuna.Study) -> None:
        """
        :param study: to go on with
        :raises ValueError: if it was begun with something else, whose trials are not to be compared with these
        """
        if _KEY not in study.user_attrs:
            return
        before = asdict(self.read(study))
        for name, now in asdict(self).items():
            # A module may be called otherwise on another machine
            if name != "gym_packages" and None not in (before[name], now) and before[name] != now:
                differs = _difference(name, before[name], now)
                raise ValueError(f"study {study.study_name!r} was begun with {differs}: give this one another --study-name")

    @classmethod
    def read(cls, study: optuna.Study) -> "StudyOrigin":
        """:raises ValueError: if the study was begun by another program"""
        if _KEY not in study.user_attrs:
            raise ValueError(f"study {study.study_name!r} was not begun by sb3-vpg optimize, so its entry is not known")
        return cls(**json.loads(study.user_attrs[_KEY]))


def _difference(name: str, before: Any, now: Any) -> str:
    """:return: the first that differs, of an entry the first key"""
    if isinstance(before, dict) and isinstance(now, dict):
        name = next(key for key in sorted({**before, **now}) if before.get(key) != now.get(key))
        before, now = before.get(name), now.get(name)
    return f"{name} {before!r}, not {now!r}"


def as_json(entry: dict[str, Any]) -> dict[str, Any] | None:
    """:return: a copy, or None if it holds what no text can say"""
    try:
        same: dict[str, Any] = json.loads(json.dumps(entry))
    except TypeError:
        return None
    return same


@contextmanager
def opened(storage: str, **options: Any) -> Iterator[BaseStorage]:
    """
    Open a storage, and close it at the end: Optuna leaves the connections of a database to the garbage collector.

    :param storage: as the zoo's ``--storage``: a journal file that ends in .log, or the URL of a database
    :param options: of ``RDBStorage``, for a database
    :raises ValueError: if it is neither
    """
    if storage.endswith(".log"):
        yield JournalStorage(JournalFileBackend(storage))
        return
    if "://" not in storage or storage.startswith("redis"):
        raise ValueError(
            f"--storage must be a journal file that ends in .log or a URL like sqlite:///FILE, but is {storage!r}"
        )
    database = _database(storage, **options)
    try:
        yield database
    finally:
        database.remove_session()
        database.engine.dispose()


def _database(url: str, **options: Any) -> RDBStorage:
    """Tables are made for a new one. Whoever trips over another process that makes the same ones tries again."""
    for _ in range(_ATTEMPTS - 1):
        try:
            return RDBStorage(url, **options)
        except (SQLAlchemyError, optuna.exceptions.StorageInternalError):
            time.sleep(1.0)
    return RDBStorage(url, **options)


def opened_for_search(storage: str | None) -> AbstractContextManager[BaseStorage | None]:
    """
    Like ``opened``, for workers that share a database: if one is killed, its trial is queued again. Journal files have
    nothing like it, and are opened by the zoo.

    :param storage: as the zoo's ``--storage``
    :return: gives None if it is no database
    """
    if storage is None or storage.endswith(".log"):
        return nullcontext()
    again = RetryHeartbeatStaleTrialCallback(max_retry=1)
    return opened(storage, heartbeat_interval=HEARTBEAT, heartbeat_stale_trial_callback=again)


def create_or_load(study_name: str | None, storage: BaseStorage | None, **kwargs: Any) -> tuple[optuna.Study, bool]:
    """
    :param study_name: None for one that Optuna makes up
    :param storage: None to keep the study in memory
    :param kwargs: others of ``optuna.create_study``
    :return: the study, and whether this process is the one of all that made it
    """
    try:
        return create_study(storage=storage, study_name=study_name, **kwargs), True
    except optuna.exceptions.DuplicatedStudyError:
        study = create_study(storage=storage, study_name=study_name, load_if_exists=True, **kwargs)
    # Before anyone counts those that run
    fail_stale_trials(study)
    return study, False


@contextmanager
def loaded(storage: str, study_name: str | None) -> Iterator[optuna.Study]:
    """
    :param storage: as the zoo's ``--storage``: a journal file that ends in .log, or the URL of a database
    :param study_name: None for the only one there is
    :return: the study, whose storage is closed at the end
    :raises ValueError: if there is none of that name, naming those that there are
    """
    is_file = storage.endswith(".log") or storage.startswith("sqlite:///")
    if is_file and not Path(storage.removeprefix("sqlite:///")).is_file():
        # Optuna would make an empty one
        raise ValueError(f"there is no study in {storage}: no such file")
    with opened(storage) as there:
        names = optuna.get_all_study_names(there)
        if study_name is None and len(names) == 1:
            study_name = names[0]
        if study_name not in names:
            asked = "several studies: name one" if study_name is None else f"no study {study_name!r}: name another"
            raise ValueError(f"{storage} has {asked} with --study-name (it has {', '.join(map(repr, names)) or 'none'})")
        yield optuna.load_study(study_name=study_name, storage=there)
