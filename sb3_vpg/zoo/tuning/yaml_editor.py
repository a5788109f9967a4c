"""Adds entries to a hyperparameter file as text, so that comments and the layout of all other entries stay."""

from pathlib import Path
from typing import Any

import yaml

from sb3_vpg.common.atomic_files import atomic_write
from sb3_vpg.common.locks import folder_lock


def write_entry(path: Path, env_id: str, text: str, force: bool = False) -> None:
    """
    Write an entry to a YAML file, which need not exist.

    :param path: the file
    :param env_id: environment id, the key of the entry
    :param text: the lines of the entry, the first of which is ``env_id:``
    :param force: replace the entry if the file has one
    :raises ValueError: if the file has the entry and ``force`` is False, if the file is no YAML mapping, or if the edit would
        change other entries
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with folder_lock(path.parent):
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        entries = _read(path, before)
        if env_id in entries and not force:
            raise ValueError(
                f"{path} has an entry for {env_id} already: add --force to replace it, or name another file with -o"
            )
        after = _replaced(before, env_id, text) if env_id in entries else _appended(before, text)
        expected = {**entries, **yaml.safe_load(text)}
        if _read(path, after) != expected:
            raise ValueError(
                f"the entry for {env_id} cannot be written to {path} without changing others, because the file is not one "
                "entry after the other, or because other entries refer to this one (&, *): name another file with -o, or "
                "edit the file by hand"
            )
        with atomic_write(path) as file:
            file.write(after.encode())


def _read(path: Path, text: str) -> dict[str, Any]:
    try:
        entries = yaml.safe_load(text)
    except yaml.YAMLError as error:
        # Also raised if the edit has removed an anchor that another entry uses
        raise ValueError(f"{path} is not valid YAML, or would not be after the edit: {error}") from error
    if not isinstance(entries, (dict, type(None))):
        raise ValueError(f"{path} must map environment ids to hyperparameters")
    return entries or {}


def _appended(before: str, text: str) -> str:
    return f"{before.rstrip()}\n\n{text}" if before.strip() else text


def _replaced(before: str, env_id: str, text: str) -> str:
    """
    Replace an entry.

    An entry is a top-level key, so it ends before the next unindented line. Unindented comments and blank lines before the
    next entry belong to that one.
    """
    root = yaml.compose(before)
    assert isinstance(root, yaml.MappingNode)
    lines = before.splitlines(keepends=True)
    first = next(key.start_mark.line for key, _ in root.value if key.value == env_id)
    end = next((number for number in range(first + 1, len(lines)) if lines[number][0] not in "# \t\r\n"), len(lines))
    while end > first + 1 and (lines[end - 1].startswith("#") or not lines[end - 1].strip()):
        end -= 1
    return "".join([*lines[:first], text, *lines[end:]])
