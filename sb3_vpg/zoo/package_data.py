"""Folders at the top of the repository that are installed inside the package."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent


def packaged(name: str) -> Path:
    """
    :param name: ``"hyperparams"`` or ``"trained_agents"``
    :return: the folder: inside the package when installed, beside it in a checkout
    """
    installed = _PACKAGE / name
    return installed if installed.is_dir() else _PACKAGE.parent / name


def shipped_folder() -> Path:
    """:return: the folder of the agents that ship, which has the layout of a log folder"""
    return packaged("trained_agents")
