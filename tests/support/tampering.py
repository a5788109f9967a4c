"""Make a single change in the file of a good model, for tests of malicious files."""

import base64
import copy
import io
import json
import pickle
import sys
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch as th
from helpers import make_model
from torch import nn

from sb3_vpg.persistence.archives import write_archive

Members = dict[str, bytes]
Builder = Callable[[Members, Path], bytes]
"""
Makes the malicious file out of the members of a good model and the path of a marker file, which exists after its code has run.
"""


@dataclass(frozen=True)
class Hostile:
    """
    :param tries: what the file attempts
    :param build: makes the file
    :param says: regular expression for the text of the refusal
    :param advisory: the number of the advisory that described such files first, if any
    """

    tries: str
    build: Builder
    says: str
    advisory: str = ""


Cases = Iterator[tuple[str, Hostile]]


def case(name: str, tries: str, build: Builder, says: str, advisory: str = "") -> tuple[str, Hostile]:
    return name, Hostile(tries, build, says, advisory)


class Payload:
    """An object that creates a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return exec, (f"open({str(self.marker)!r}, 'w').close()",)


class Acting(nn.Module):
    """A layer that counts how often it is built."""

    built = 0

    def __init__(self, *_: Any) -> None:
        super().__init__()
        Acting.built += 1


def good_model() -> Members:
    """:return: the members of a model whose optimisers have moments"""
    file = io.BytesIO()
    make_model().learn(32).save(file)
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def saved(value: Any, **kwargs: Any) -> bytes:
    file = io.BytesIO()
    th.save(value, file, **kwargs)
    return file.getvalue()


def settings(change: Callable[[dict[str, Any]], Any]) -> Builder:
    """:return: a builder that changes the settings"""

    def build(members: Members, marker: Path) -> bytes:
        data = json.loads(members["data"])
        change(data)
        return write_archive({**members, "data": json.dumps(data).encode()})

    return build


def setting(name: str, value: Any) -> Builder:
    return settings(lambda data: data.update({name: value}))


def architecture(value: Any) -> Builder:
    return settings(lambda data: data["policy_kwargs"].update(net_arch=value))


def member(name: str, content: bytes) -> Builder:
    return lambda members, marker: write_archive({**members, name: content})


def tensors(name: str, change: Callable[[dict[Any, Any]], Any]) -> Builder:
    """:return: a builder that changes a state dict"""

    def build(members: Members, marker: Path) -> bytes:
        state = th.load(io.BytesIO(members[f"{name}.pth"]), weights_only=True)
        change(state)
        return write_archive({**members, f"{name}.pth": saved(state)})

    return build


def weight(value: Callable[[th.Tensor], Any]) -> Builder:
    return tensors("policy", lambda state: state.update({"action_net.weight": value(state["action_net.weight"])}))


def moment(key: str, value: Any) -> Builder:
    return tensors("critic_optimizer", lambda state: state["state"][0].update({key: value}))


def with_pickle(members: Members, content: bytes, records: Members | None = None) -> bytes:
    """:return: a model whose weights are an archive of torch's with this pickle"""
    records = {"archive/data.pkl": content, "archive/version": b"3\n", **(records or {})}
    return write_archive({**members, "policy.pth": write_archive(records)})


def tarred(content: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name in ("pickle", "tensors", "storages"):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


def polyglot(members: Members, marker: Path) -> bytes:
    """Torch's old format for readers that start at the front, an archive for those that start at the end."""
    return write_archive({**members, "policy.pth": pickle.dumps(Payload(marker)) + members["policy.pth"]})


def evil_setting(members: Members, marker: Path) -> bytes:
    pickled = base64.b64encode(pickle.dumps(Payload(marker))).decode()
    return setting("gamma", {":type:": "<class 'float'>", ":serialized:": pickled})(members, marker)


def importing(members: Members, marker: Path) -> bytes:
    """Name a module that creates the marker when it is imported."""
    name = f"imported_{marker.parent.name}"
    marker.with_name(f"{name}.py").write_text(f"open({str(marker)!r}, 'w').close()")
    sys.path.append(str(marker.parent))
    sys.path_importer_cache.clear()
    return setting("env", f"{name}:Task-v0")(members, marker)


def lazy(members: Members, marker: Path) -> bytes:
    """Name a class of a module whose ``__getattr__`` creates the marker, as packages with lazy imports."""
    module = ModuleType("lazy_package")
    module.__getattr__ = lambda name: marker.touch()  # type: ignore[method-assign]
    sys.modules["lazy_package"] = module
    return setting("policy_class", {"!class": "lazy_package:Thing"})(members, marker)


def duplicated(members: Members, marker: Path) -> bytes:
    file = io.BytesIO(write_archive(members))
    with warnings.catch_warnings(), zipfile.ZipFile(file, "a") as archive:
        warnings.simplefilter("ignore")
        archive.writestr("data", b"{}")
    return file.getvalue()


def compressed(members: Members, **kwargs: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        for name, size in kwargs.items():
            archive.writestr(name.replace("__", "/"), bytes(size))
    return file.getvalue()


def overlapping(members: Members, marker: Path) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        for number in range(1000):
            again = copy.copy(archive.getinfo("policy.pth"))
            again.filename = f"best_model_{number}.zip"
            archive.filelist.append(again)
    return file.getvalue()


def patched(at: int, value: bytes) -> Builder:
    """:return: a builder that changes the first entry of the archive's directory"""

    def build(members: Members, marker: Path) -> bytes:
        content = write_archive(members)
        start = int.from_bytes(content[-6:-2], "little") + at
        return content[:start] + value + content[start + len(value) :]

    return build


def billion_laughs() -> Any:
    value: Any = [0]
    for _ in range(30):
        value = [value] * 10
    return value


def flood(members: Members, marker: Path) -> bytes:
    large = th.zeros(250_000)
    return tensors("policy", lambda state: state.update({f"w{number}": large for number in range(5000)}))(members, marker)


def array(values: Any) -> dict[str, Any]:
    values = np.asarray(values)
    return {"!array": [values.dtype.str, list(values.shape), base64.b64encode(values.tobytes()).decode()]}


def schedule(kind: str, **state: Any) -> dict[str, Any]:
    return {"!schedule": [f"stable_baselines3.common.utils:{kind}", state]}


def generator(position: int) -> dict[str, Any]:
    key = array(np.arange(624, dtype=np.uint32))
    return {"!generator": ["MT19937", {"bit_generator": "MT19937", "state": {"key": key, "pos": position}}]}


def space(kind: str, **fields: Any) -> dict[str, Any]:
    return {"!space": [kind, fields]}


def scalar(value: int) -> dict[str, Any]:
    numbers = np.asarray(value)
    return {"!scalar": [numbers.dtype.str, [], base64.b64encode(numbers.tobytes()).decode()]}


def bytearray_pickle(size: int) -> bytes:
    return b"\x80\x02cbuiltins\nbytearray\n\x8a\x05" + size.to_bytes(5, "little") + b"\x85R."


DISCRETE = {"start": scalar(0), "dtype": {"!dtype": "<i8"}}
ACTING = {"!class": f"{Acting.__module__}:Acting"}
ANSI = "\x1b[2Jall is well\u202e"
