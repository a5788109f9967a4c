"""What a run has left in its folder: whether each file is whole, and whether it is that of another run to the last bit."""

import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from sb3_vpg import VPG
from sb3_vpg.checkpoints.files import progress
from sb3_vpg.zoo.safe_yaml import read_yaml


def damage(run: Path) -> list[str]:
    """:return: what is wrong with which file; those that are being written under another name do not count"""
    found = []
    for path in sorted(path for path in run.rglob("*") if path.is_file() and not part_in(path.relative_to(run))):
        try:
            _read_whole(path)
        except Exception as error:
            found.append(f"{path.relative_to(run)}: {type(error).__name__}: {error}")
    return found


def part_in(path: Path) -> str | None:
    """:return: the name of the file that a path is a part of"""
    return next((name.strip(".").rsplit(".", 2)[0] for name in path.parts if name.endswith(".part")), None)


def _read_whole(path: Path) -> None:
    if path.suffix not in _READERS and path.name != ".lock":
        raise ValueError("a name that nobody knows")
    if path.suffix in _READERS:
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
    """:return: return and length of each. :raises ValueError: if a row is cut off"""
    text = path.read_text()
    if not text.endswith("\n"):
        raise ValueError("the last row is cut off")
    header, names, *rows = text.splitlines()
    json.loads(header.removeprefix("#"))
    if names != "r,l,t":
        raise ValueError(f"the columns are {names}")
    cells = [row.split(",") for row in rows]
    return [(float(total), int(length)) for total, length, seconds in cells if float(seconds) >= 0]


def differences(run: Path, other: Path) -> list[str]:
    """:return: what is not in both, or not the same to the last bit: weights, evaluations, episodes"""
    names, others = ({str(path.relative_to(folder)) for path in folder.rglob("*")} for folder in (run, other))
    found = [f"{name}: is not in both" for name in sorted(names ^ others)]
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
            found.append(f"{name}: differs")
    return found


def _weights(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist() if name.endswith(".pth")}


def _arrays(path: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    # numpy leaves a file open that it cannot read
    with path.open("rb") as file, np.load(file) as arrays:
        return {name: (array.dtype.str, array.shape, array.tobytes()) for name, array in arrays.items()}


def _statistics(path: Path) -> list[tuple[bytes, bytes, float]]:
    """:return: mean, variance and count of a ``VecNormalize``, of its observations and of its returns"""
    with path.open("rb") as file:
        normalizer: Any = pickle.load(file)
    found = (normalizer.obs_rms, normalizer.ret_rms)
    return [(np.asarray(one.mean).tobytes(), np.asarray(one.var).tobytes(), float(one.count)) for one in found]


_READERS: dict[str, Callable[[Path], object]] = {
    ".zip": _read_model,
    ".npz": _read_arrays,
    ".csv": episodes,
    ".yml": _read_settings,
    ".txt": _read_text,
    ".pkl": _statistics,
}
