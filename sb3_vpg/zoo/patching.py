"""One attribute of somebody else's module, exchanged for as long as one of our commands runs."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[Any]:
    """
    :param owner: module or object
    :param name: its attribute
    :param value: what the attribute is inside the ``with`` block
    :return: what it was before, and is again afterwards
    """
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield before
    finally:
        setattr(owner, name, before)
