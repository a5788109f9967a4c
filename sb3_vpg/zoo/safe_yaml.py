"""
Read the zoo's YAML files without creating the Python objects that they name, because a run's folder may be untrusted; and
check values of files that others have written.
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sb3_vpg.exceptions import RefusedFileError

# Short, and without the slashes and brackets of paths and calls
_PLAIN_TEXT = re.compile(r"[\w .+-]{0,64}")


@dataclass(frozen=True)
class PythonTag:
    """
    Replaces a Python object that a file names, such as a class.

    :param text: the YAML text of the object
    """

    text: str

    def __str__(self) -> str:
        # yaml.serialize adds an empty value, or an end of the document, after a tag that stands alone
        return self.text.strip().removesuffix("''").removesuffix("...").strip()


def read_yaml(path: Path) -> dict[str, Any]:
    """
    :param path: an ``args.yml`` or ``config.yml``
    :return: its entries, with a ``PythonTag`` for each Python object
    :raises ValueError: if the file is not a YAML mapping
    """
    try:
        return dict(yaml.load(path.read_text(), Loader=_PlainLoader))
    except (yaml.YAMLError, UnicodeDecodeError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a readable YAML mapping: {error}") from error


def as_read_back(value: Any) -> Any:
    """:return: the value as ``read_yaml`` would return it, if the zoo had written it to a file"""
    return yaml.load(yaml.dump(value), Loader=_PlainLoader)


def has_python_tag(value: Any) -> bool:
    """:return: True if the value is or contains a ``PythonTag``"""
    if isinstance(value, dict):
        return any(map(has_python_tag, (*value.keys(), *value.values())))
    return any(map(has_python_tag, value)) if isinstance(value, (list, tuple, set)) else isinstance(value, PythonTag)


def check_plain(value: Any, what: str, largest: float = math.inf) -> None:
    """
    :param value: read from a file
    :param what: its name, for the error
    :param largest: largest absolute value of a number
    :raises RefusedFileError: unless it is a number, a short text that is not a path, or a list or mapping of these
    """
    if value is None or type(value) is bool:
        return
    if type(value) in (int, float) and abs(value) <= largest:
        return
    if isinstance(value, str) and _PLAIN_TEXT.fullmatch(value):
        return
    if isinstance(value, (list, tuple)):
        for item in value:
            check_plain(item, what, largest)
        return
    if isinstance(value, dict):
        for key, item in value.items():
            check_plain(key, what, largest)
            check_plain(item, f"{what}, {key}", largest)
        return
    raise RefusedFileError(f"{what} is {str(value)[:200]!r}: neither a number of a sensible size nor a plain text; refused")


class _PlainLoader(yaml.SafeLoader):
    """Loads tuples, the zoo's ``OrderedDict`` as a dict, and any other Python object as a ``PythonTag``."""


def _ordered(loader: yaml.SafeLoader, node: yaml.SequenceNode) -> dict[Any, Any]:
    return dict(*loader.construct_sequence(node, deep=True))


def _tuple(loader: yaml.SafeLoader, node: yaml.SequenceNode) -> tuple[Any, ...]:
    return tuple(loader.construct_sequence(node, deep=True))


_PYTHON = "tag:yaml.org,2002:python/"
_PlainLoader.add_constructor(f"{_PYTHON}object/apply:collections.OrderedDict", _ordered)
_PlainLoader.add_constructor(f"{_PYTHON}tuple", _tuple)
_PlainLoader.add_multi_constructor(_PYTHON, lambda loader, suffix, node: PythonTag(yaml.serialize(node)))
