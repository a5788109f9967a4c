"""Hyperparameter files in YAML, to which an entry is added as text, so that the comments of all others stay."""

from pathlib import Path
from typing import Any

import yaml

from sb3_vpg.common.atomic_files import atomic_write
from sb3_vpg.common.locks import folder_lock


def with_entry(path: Path, env_id: str, text: str, force: bool = False) -> None:
    """
    Add an entry to a file, which is made if there is none.

    :param path: the file
    :param env_id: whose entry it is
    :param text: its lines, from ``env_id:`` on
    :param force: replace the one that is there
    :raises ValueError: if there is one and no ``force``, if the file is no mapping in YAML, and if other entries would not be
        what they were
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
                f"{path} has another form than one entry after the other, or entries that build on that for {env_id} (&, *): "
                "name another file with -o, or put the entry in by hand"
            )
        with atomic_write(path) as file:
            file.write(after.encode())


def _read(path: Path, text: str) -> dict[str, Any]:
    try:
        entries = yaml.safe_load(text)
    except yaml.YAMLError as error:
        # Also an anchor that is no longer there
        raise ValueError(f"{path} is, or would become, no readable YAML file: {error}") from error
    if not isinstance(entries, (dict, type(None))):
        raise ValueError(f"{path} must map environment ids to hyperparameters")
    return entries or {}


def _appended(before: str, text: str) -> str:
    if not before.strip():
        return text
    return f"{before.rstrip()}\n\n{text}"


def _replaced(before: str, env_id: str, text: str) -> str:
    """:return: the file with other lines in the place of those of an entry; comments around it stay"""
    root = yaml.compose(before)
    assert isinstance(root, yaml.MappingNode)
    key, value = next(pair for pair in root.value if pair[0].value == env_id)
    lines = before.splitlines(keepends=True)
    first, last = key.start_mark.line, max(key.start_mark.line, _last_line(value, lines))
    return "".join([*lines[:first], text, *lines[last + 1 :]])


def _last_line(node: yaml.Node, lines: list[str]) -> int:
    """:return: that of the last scalar in it; the end of a block is only where the next one begins"""
    if isinstance(node, yaml.ScalarNode):
        return _last_of_text(node, lines) if node.style in ("|", ">") else int(node.end_mark.line)
    parts = [part for pair in node.value for part in (pair if isinstance(pair, tuple) else (pair,))]
    # What an alias stands for lies further up
    return max((_last_line(part, lines) for part in parts), default=int(node.start_mark.line))


def _last_of_text(node: yaml.ScalarNode, lines: list[str]) -> int:
    """:return: of a block of text; comments that follow it are less indented"""
    first, last = int(node.start_mark.line) + 1, min(int(node.end_mark.line), len(lines)) - 1
    indents = [len(line) - len(line.lstrip()) for line in lines]
    inner = next((indents[number] for number in range(first, last + 1) if lines[number].strip()), 0)
    while last >= first and (not lines[last].strip() or indents[last] < inner):
        last -= 1
    return last
