"""
The files of a repository on the hub, looked at as a stranger's before anything is made of them.

The zoo reads ``args.yml`` and ``config.yml`` with a loader that runs code, and unpickles ``vec_normalize.pkl``. Here they are
read as plain data, and what ends up in a run folder is written anew: what playing needs, as plain values, and nothing else.
"""

import io
import json
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from huggingface_sb3 import EnvironmentName, ModelName

from sb3_vpg.exceptions import RefusedFileError
from sb3_vpg.zoo.hub.remotes import check_size
from sb3_vpg.zoo.hub.safe_settings import check_plain, safe_hyperparams
from sb3_vpg.zoo.safe_yaml import has_python_tag, read_yaml

CONFIG, ARGS, ENV_KWARGS, METRICS = "config.yml", "args.yml", "env_kwargs.yml", "train_eval_metrics.zip"
PICKLED_STATISTICS = "vec_normalize.pkl"
METRICS_SIZE = 64 * 2**20
_MODEL_SIZE, _SETTINGS_SIZE, _STATISTICS_SIZE = 512 * 2**20, 2**16, 64 * 2**20
_DEPTH = 20
_CURVES = re.compile(r"\d{1,4}\.monitor\.csv|evaluations\.npz")


@dataclass(frozen=True)
class Repository:
    """
    What a repository holds, once it has been looked at.

    :param model: file
    :param config: hyperparameters as plain values; of what the zoo acts on, that alone which playing needs
    :param args: of ``args.yml`` what is plain and harmless: the seed, the budget
    :param env_kwargs: for the environment
    :param dropped: settings that were left out
    :param metrics: learning curves by their file names
    """

    model: Path
    config: dict[str, Any]
    args: dict[str, Any]
    env_kwargs: dict[str, Any]
    dropped: list[str]
    metrics: dict[str, bytes] = field(repr=False)


def files_wanted(algo: str, env_name: EnvironmentName, trust: bool = False) -> dict[str, int]:
    """
    :param algo: one of ours
    :param env_name: of the environment
    :param trust: whether pickles are read
    :return: the files of a repository that are read, and how large each may be, in bytes
    """
    return {
        ModelName(algo, env_name).filename: _MODEL_SIZE,
        METRICS: METRICS_SIZE,
        **dict.fromkeys((CONFIG, ARGS, ENV_KWARGS), _SETTINGS_SIZE),
        **({PICKLED_STATISTICS: _STATISTICS_SIZE} if trust else {}),
    }


def read_repository(folder: Path, algo: str, env_name: EnvironmentName) -> Repository:
    """
    :param folder: with the files of a repository, none of them too large
    :param algo: one of ours; the user's, as the repository's must be
    :param env_name: of the environment, as well
    :return: what they say
    :raises RefusedFileError: for a file that is missing, damaged, for another agent, or asks for code to be run
    """
    model = folder / ModelName(algo, env_name).filename
    for path in (model, folder / CONFIG, folder / ARGS):
        if not path.is_file():
            raise RefusedFileError(f"{folder} has no {path.name}: it is no repository of {algo} on {env_name.gym_id}")
    config, args = _read(folder / CONFIG), _read(folder / ARGS)
    _check_meant(args, algo, env_name, folder / ARGS)
    env_kwargs = {**_mapping(config, "env_kwargs", folder / CONFIG), **_mapping(args, "env_kwargs", folder / ARGS)}
    if (folder / ENV_KWARGS).exists():
        env_kwargs |= _read(folder / ENV_KWARGS)
    # The one that the agent was filmed with
    env_kwargs.pop("render_mode", None)
    for name, value in env_kwargs.items():
        check_plain(value, f"{folder / ENV_KWARGS}: {name}")
    kept, dropped = safe_hyperparams(config, algo, folder / CONFIG)
    known = {name: args[name] for name in ("seed", "n_timesteps") if type(args.get(name)) in (int, float)}
    metrics = _metrics(folder / METRICS) if (folder / METRICS).exists() else {}
    foreign = [name for name, value in args.items() if has_python_tag(value)]
    return Repository(model, kept, known, env_kwargs, [*dropped, *foreign], metrics)


def _read(path: Path) -> dict[str, Any]:
    try:
        _check_tree(path)
        found = read_yaml(path)
    except RefusedFileError:
        raise
    except (ValueError, OSError, RecursionError, yaml.YAMLError) as error:
        raise RefusedFileError(f"{path} is no readable YAML file: {error}") from error
    if not all(isinstance(key, str) for key in found):
        raise RefusedFileError(f"{path} must map names to values; refused")
    return found


def _check_tree(path: Path) -> None:
    """A few aliases to aliases are a billion values, or one that holds itself: they are met before anything is built."""
    depth = 0
    for event in yaml.parse(path.read_text(), Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise RefusedFileError(f"{path} refers to the same value more than once (*{event.anchor:.80}); refused")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEPTH:
            raise RefusedFileError(f"{path} holds values inside of values, {_DEPTH} deep and more; refused")


def _check_meant(args: dict[str, Any], algo: str, env_name: EnvironmentName, path: Path) -> None:
    """:raises RefusedFileError: if the agent is another one than the file's name says"""
    for name, meant in (("algo", (algo,)), ("env", (env_name, env_name.gym_id))):
        if args.get(name) not in meant:
            raise RefusedFileError(
                f"{path} is about {name} {str(args.get(name))[:80]!r}, but {meant[-1]!r} was asked for; refused"
            )


def _mapping(settings: dict[str, Any], name: str, path: Path) -> dict[str, Any]:
    value = settings.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict) or has_python_tag(value):
        raise RefusedFileError(f"{path}: {name} must be plain names and values, but is {str(value)[:200]!r}; refused")
    return value


def _metrics(path: Path) -> dict[str, bytes]:
    """:return: Monitor's files as they are, and evaluations read and written anew"""
    found: dict[str, bytes] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            members = [one for one in archive.infolist() if _CURVES.fullmatch(one.filename)]
            check_size(f"{path}, unpacked,", sum(one.file_size for one in members), METRICS_SIZE)
            for one in members:
                content = archive.read(one)
                found[one.filename] = _episodes(content) if one.filename.endswith(".csv") else _evaluations(content, path)
    except RefusedFileError:
        raise
    except Exception as error:  # nothing of the user's is run here, and numpy's readers raise whatever they stumble over
        raise RefusedFileError(
            f"{path} is no archive of learning curves ({type(error).__name__}: {error}); refused"
        ) from error
    return found


def _episodes(content: bytes) -> bytes:
    """:return: the file of a Monitor, as it is, once it is known to be one"""
    head, names, *rows = content.decode().splitlines()
    if not isinstance(json.loads(head.removeprefix("#")), dict) or names.split(",")[:3] != ["r", "l", "t"]:
        raise ValueError("a file of episodes has another head than Monitor's")
    for row in rows:
        list(map(float, row.split(",")[:3]))
    return content


def _evaluations(content: bytes, path: Path) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        check_size(f"{path}: evaluations.npz, unpacked,", sum(one.file_size for one in archive.infolist()), METRICS_SIZE)
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        read = {name: arrays[name] for name in ("timesteps", "results", "ep_lengths")}
    if not all(array.dtype.kind in "iuf" for array in read.values()):
        raise ValueError("evaluations.npz holds something else than numbers")
    if read["timesteps"].ndim != 1 or not read["timesteps"].shape[0] == len(read["results"]) or read["results"].ndim != 2:
        raise ValueError("evaluations.npz has other shapes than those of evaluations")
    file = io.BytesIO()
    np.savez(file, **read)
    return file.getvalue()


@contextmanager
def named_as(repo_id: str, folder: Path, advice: str) -> Iterator[None]:
    """
    Errors call the files by the names that the user knows, not by those of a temporary folder.

    :param repo_id: what the user calls the folder
    :param folder: temporary
    :param advice: where the error has one, this one takes its place
    """
    try:
        yield
    except RefusedFileError as error:
        reason = error.reason.replace(str(folder), repo_id)
        raise RefusedFileError(reason, advice if error.advice else "") from error
