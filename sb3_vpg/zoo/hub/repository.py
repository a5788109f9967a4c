"""
Read and check the files of a repository on the hub, which may be malicious.

The zoo reads ``args.yml`` and ``config.yml`` with a loader that runs code, and unpickles ``vec_normalize.pkl``. Here the YAML
files are read as plain data, of which only the values that playing needs are kept.
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
from sb3_vpg.zoo.hub.safe_settings import safe_hyperparams
from sb3_vpg.zoo.safe_yaml import check_plain, has_python_tag, read_yaml

CONFIG, ARGS, ENV_KWARGS, METRICS = "config.yml", "args.yml", "env_kwargs.yml", "train_eval_metrics.zip"
PICKLED_STATISTICS = "vec_normalize.pkl"
METRICS_SIZE = 64 * 2**20
_MODEL_SIZE, _SETTINGS_SIZE, _STATISTICS_SIZE = 512 * 2**20, 2**16, 64 * 2**20
_DEPTH = 20
_CURVES = re.compile(r"\d{1,4}\.monitor\.csv|evaluations\.npz")


@dataclass(frozen=True)
class Repository:
    """
    The checked content of a repository.

    :param model: path of the model, which has not been read yet
    :param config: hyperparameters as plain values, without those that could run code and that playing does not need
    :param args: the values of ``args.yml`` that are kept: ``seed`` and ``n_timesteps``
    :param env_kwargs: arguments of the environment
    :param dropped: names of the settings that were left out
    :param metrics: content of the learning curves, by file name
    """

    model: Path
    config: dict[str, Any]
    args: dict[str, Any]
    env_kwargs: dict[str, Any]
    dropped: list[str]
    metrics: dict[str, bytes] = field(repr=False)


def files_wanted(algo: str, env_name: EnvironmentName, trust: bool = False) -> dict[str, int]:
    """
    :param algo: one of our algorithms
    :param env_name: of the environment
    :param trust: whether pickles are read
    :return: the files of a repository that are read, with the largest size allowed for each, in bytes
    """
    return {
        ModelName(algo, env_name).filename: _MODEL_SIZE,
        METRICS: METRICS_SIZE,
        **dict.fromkeys((CONFIG, ARGS, ENV_KWARGS), _SETTINGS_SIZE),
        **({PICKLED_STATISTICS: _STATISTICS_SIZE} if trust else {}),
    }


def read_repository(folder: Path, algo: str, env_name: EnvironmentName) -> Repository:
    """
    :param folder: with the files of a repository, whose sizes have been checked
    :param algo: algorithm that the user has named
    :param env_name: environment that the user has named
    :return: the checked content
    :raises RefusedFileError: for a file that is missing, damaged, of another agent, or that could make the zoo run code
    """
    model = folder / ModelName(algo, env_name).filename
    for path in (model, folder / CONFIG, folder / ARGS):
        if not path.is_file():
            raise RefusedFileError(f"{folder} has no {path.name}: it is not a repository of {algo} on {env_name.gym_id}")
    config, args = _read_settings(folder / CONFIG), _read_settings(folder / ARGS)
    _check_agent(args, algo, env_name, folder / ARGS)
    env_kwargs = {**_mapping(config, "env_kwargs", folder / CONFIG), **_mapping(args, "env_kwargs", folder / ARGS)}
    if (folder / ENV_KWARGS).exists():
        env_kwargs |= _read_settings(folder / ENV_KWARGS)
    # The zoo saves the render mode of its video
    env_kwargs.pop("render_mode", None)
    for name, value in env_kwargs.items():
        check_plain(value, f"{folder / ENV_KWARGS}: {name}")
    kept, dropped = safe_hyperparams(config, algo, folder / CONFIG)
    kept_args = {name: args[name] for name in ("seed", "n_timesteps") if type(args.get(name)) in (int, float)}
    metrics = _metrics(folder / METRICS) if (folder / METRICS).exists() else {}
    tagged = [name for name, value in args.items() if has_python_tag(value)]
    return Repository(model, kept, kept_args, env_kwargs, [*dropped, *tagged], metrics)


def _read_settings(path: Path) -> dict[str, Any]:
    try:
        _check_tree(path)
        settings = read_yaml(path)
    except RefusedFileError:
        raise
    except (ValueError, OSError, RecursionError, yaml.YAMLError) as error:
        raise RefusedFileError(f"{path} is not a readable YAML file: {error}") from error
    if not all(isinstance(key, str) for key in settings):
        raise RefusedFileError(f"{path} must map names to values; refused")
    return settings


def _check_tree(path: Path) -> None:
    """
    Raise RefusedFileError for aliases and for deep nesting, before any value is built.

    A few aliases of aliases can make a billion values, or one that contains itself.
    """
    depth = 0
    for event in yaml.parse(path.read_text(), Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise RefusedFileError(f"{path} refers to the same value more than once (*{event.anchor:.80}); refused")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEPTH:
            raise RefusedFileError(f"{path} nests values more than {_DEPTH} deep; refused")


def _check_agent(args: dict[str, Any], algo: str, env_name: EnvironmentName, path: Path) -> None:
    """Raise RefusedFileError if ``args.yml`` names another algorithm or environment than the user."""
    for name, allowed in (("algo", (algo,)), ("env", (env_name, env_name.gym_id))):
        if args.get(name) not in allowed:
            raise RefusedFileError(
                f"{path} is about {name} {str(args.get(name))[:80]!r}, but {allowed[-1]!r} was requested; refused"
            )


def _mapping(settings: dict[str, Any], name: str, path: Path) -> dict[str, Any]:
    value = settings.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict) or has_python_tag(value):
        raise RefusedFileError(f"{path}: {name} must be plain names and values, but is {str(value)[:200]!r}; refused")
    return value


def _metrics(path: Path) -> dict[str, bytes]:
    """Return the monitor files, which are checked, and ``evaluations.npz``, which is checked and saved again."""
    curves: dict[str, bytes] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if _CURVES.fullmatch(member.filename)]
            check_size(f"{path}, unpacked,", sum(member.file_size for member in members), METRICS_SIZE)
            for member in members:
                name, content = member.filename, archive.read(member)
                curves[name] = _checked_monitor(content) if name.endswith(".csv") else _saved_again(content, path)
    except RefusedFileError:
        raise
    except Exception as error:  # no code of the user runs here, and NumPy's readers raise many kinds of errors
        raise RefusedFileError(
            f"{path} is not an archive of learning curves ({type(error).__name__}: {error}); refused"
        ) from error
    return curves


def _checked_monitor(content: bytes) -> bytes:
    """Return the content of a monitor file. Raise an error if it is not one."""
    head, names, *rows = content.decode().splitlines()
    if not isinstance(json.loads(head.removeprefix("#")), dict) or names.split(",")[:3] != ["r", "l", "t"]:
        raise ValueError("the first lines are not those of a monitor file")
    for row in rows:
        list(map(float, row.split(",")[:3]))
    return content


def _saved_again(content: bytes, path: Path) -> bytes:
    """Return ``evaluations.npz``, saved again from its arrays. Raise an error if they are not those of ``EvalCallback``."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        check_size(f"{path}: evaluations.npz, unpacked,", sum(member.file_size for member in archive.infolist()), METRICS_SIZE)
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        read = {name: arrays[name] for name in ("timesteps", "results", "ep_lengths")}
    if not all(array.dtype.kind in "iuf" for array in read.values()):
        raise ValueError("evaluations.npz contains values that are not numbers")
    if read["timesteps"].ndim != 1 or not read["timesteps"].shape[0] == len(read["results"]) or read["results"].ndim != 2:
        raise ValueError("the shapes in evaluations.npz do not fit together")
    file = io.BytesIO()
    np.savez(file, **read)
    return file.getvalue()


@contextmanager
def naming_repository(repo_id: str, folder: Path, advice: str) -> Iterator[None]:
    """
    In the message of a RefusedFileError, replace the temporary folder by the name of the repository.

    :param repo_id: organization and name of the repository
    :param folder: temporary folder with its files
    :param advice: replaces the error's own advice, if it has one
    """
    try:
        yield
    except RefusedFileError as error:
        reason = error.reason.replace(str(folder), repo_id)
        raise RefusedFileError(reason, advice if error.advice else "") from error
