"""
The YAML files that the zoo writes, read without making any Python object that they name: a run's folder may come from anyone.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml


@dataclass(frozen=True)
class PythonTag:
    """
    Stands for a Python object that a file asks for, such as a class.

    :param text: how the file writes it
    """

    text: str

    def __str__(self) -> str:
        return self.text.strip().removesuffix("''").removesuffix("...").strip()


def read_yaml(path: Path) -> dict[str, Any]:
    """
    :param path: an ``args.yml`` or ``config.yml``
    :return: its entries; ``PythonTag`` in place of each Python object
    :raises ValueError: if it is no YAML mapping
    """
    try:
        return dict(yaml.load(path.read_text(), Loader=_PlainLoader))
    except (yaml.YAMLError, UnicodeDecodeError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no readable YAML file: {error}") from error


def as_read_back(value: Any) -> Any:
    """:return: what ``read_yaml`` would return for a value that the zoo has written"""
    return yaml.load(yaml.dump(value), Loader=_PlainLoader)


def has_python_tag(value: Any) -> bool:
    """:return: whether there is a ``PythonTag`` in a value"""
    if isinstance(value, dict):
        return any(map(has_python_tag, (*value.keys(), *value.values())))
    return any(map(has_python_tag, value)) if isinstance(value, (list, tuple, set)) else isinstance(value, PythonTag)


class _PlainLoader(yaml.SafeLoader):
    """Reads tuples and the ``OrderedDict`` of the zoo, and any other Python object as ``PythonTag``."""


def _ordered(loader: yaml.SafeLoader, node: yaml.SequenceNode) -> dict[Any, Any]:
    return dict(*loader.construct_sequence(node, deep=True))


def _tuple(loader: yaml.SafeLoader, node: yaml.SequenceNode) -> tuple[Any, ...]:
    return tuple(loader.construct_sequence(node, deep=True))


_PYTHON = "tag:yaml.org,2002:python/"
_PlainLoader.add_constructor(f"{_PYTHON}object/apply:collections.OrderedDict", _ordered)
_PlainLoader.add_constructor(f"{_PYTHON}tuple", _tuple)
_PlainLoader.add_multi_constructor(_PYTHON, lambda loader, suffix, node: PythonTag(yaml.serialize(node)))
