"""Checks of a run folder: is every file complete, and is it equal to that of another run to the last bit?"""

import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from sb3_vpg import VPG
from sb3_vpg.checkpoints import progress
from sb3_vpg.zoo.safe_yaml import read_yaml


def damaged_files(run: Path) -> list[str]:
    """:return: each damaged file with its error; partial files are not looked at"""
    damaged = []
    for path in sorted(path for path in run.rglob("*") if path.is_file() and not name_of_partial(path.relative_to(run))):
        try:
            _read(path)
        except Exception as error:
            damaged.append(f"{path.relative_to(run)}: {type(error).__name__}: {error}")
    return damaged


def name_of_partial(path: Path) -> str | None:
    """:return: if ``path`` is a partial file, or lies in a partial folder, the name of the complete one; else None"""
    # It is called .NAME.RANDOM.part
    return next((name.strip(".").rsplit(".", 2)[0] for name in path.parts if name.endswith(".part")), None)


def _read(path: Path) -> None:
    if path.name == ".lock":
        return
    if path.suffix not in _READERS:
        raise ValueError("no run has a file of this name")
    _READERS[path.suffix](path)


def _read_model(path: Path) -> None:
    VPG.load(path, device="cpu")
    if path.parent.name == "checkpoints":
        progress(path)


def _read_arrays(path: Path) -> None:
    lengths = {shape[0] for _, shape, _ in _arrays(path).values()}
    if len(lengths) != 1:
        raise ValueError(f"arrays of lengths {lengths}")


def _read_text(path: Path) -> None:
    if not path.read_text().strip():
        raise ValueError("empty")


def _read_settings(path: Path) -> None:
    if not read_yaml(path):
        raise ValueError("empty")


def episodes(path: Path) -> list[tuple[float, int]]:
    """
    :param path: a file of ``Monitor``
    :return: return and length of each episode
    :raises ValueError: if a row is cut off
    """
    text = path.read_text()
    if not text.endswith("\n"):
        raise ValueError("the last row is cut off")
    header, names, *rows = text.splitlines()
    json.loads(header.removeprefix("#"))
    if names != "r,l,t":
        raise ValueError(f"the columns are {names}")
    # The seconds are read, too, so that a row that is cut off within them raises an error
    cells = [(float(total), int(length), float(seconds)) for total, length, seconds in (row.split(",") for row in rows)]
    return [(total, length) for total, length, _ in cells]


def differences(run: Path, other: Path) -> list[str]:
    """:return: files that only one run has, and files whose weights, evaluations, statistics or episodes differ in a bit"""
    names, others = ({str(path.relative_to(folder)) for path in folder.rglob("*")} for folder in (run, other))
    different = [f"{name}: is not in both" for name in sorted(names ^ others)]
    for name in sorted(names & others):
        mine, theirs = run / name, other / name
        if name.endswith(".zip"):
            same = _weights(mine) == _weights(theirs)
        elif name.endswith(".npz"):
            same = _arrays(mine) == _arrays(theirs)
        elif name.endswith(".pkl"):
            same = _statistics(mine) == _statistics(theirs)
        else:
            same = not name.endswith(".monitor.csv") or episodes(mine) == episodes(theirs)
        if not same:
            different.append(f"{name}: differs")
    return different


def _weights(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist() if name.endswith(".pth")}


def _arrays(path: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    # np.load(path) leaves the file open if it cannot read it
    with path.open("rb") as file, np.load(file) as arrays:
        return {name: (array.dtype.str, array.shape, array.tobytes()) for name, array in arrays.items()}


def _statistics(path: Path) -> list[tuple[bytes, bytes, float]]:
    """:return: mean, variance and count of a ``VecNormalize``, of its observations and of its returns"""
    with path.open("rb") as file:
        normalizer: Any = pickle.load(file)
    statistics = (normalizer.obs_rms, normalizer.ret_rms)
    return [(np.asarray(rms.mean).tobytes(), np.asarray(rms.var).tobytes(), float(rms.count)) for rms in statistics]


_READERS: dict[str, Callable[[Path], object]] = {
    ".zip": _read_model,
    ".npz": _read_arrays,
    ".csv": episodes,
    ".yml": _read_settings,
    ".txt": _read_text,
    ".pkl": _statistics,
}
