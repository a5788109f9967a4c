"""An environment with some of the distributions of the current one, which are linked and not installed again."""

import venv
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def declared(texts: list[str]) -> set[str]:
    """
    :param texts: requirements of a distribution, without its extras
    :return: the names of all distributions that they require, directly or indirectly
    """
    required: set[tuple[str, str]] = set()
    pending = [(text, "") for text in texts]
    while pending:
        text, parent_extra = pending.pop()
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": parent_extra}):
            continue
        for extra in {"", *requirement.extras}:
            name_and_extra = (canonicalize_name(requirement.name), extra)
            if name_and_extra not in required:
                required.add(name_and_extra)
                pending += [(text, extra) for text in distribution(requirement.name).requires or []]
    return {name for name, _ in required}


def make_linked_environment(folder: Path, requirements: list[str]) -> Path:
    """
    Create an environment in which only these distributions and those that they require can be imported.

    :param folder: of the environment
    :param requirements: of the environment
    :return: its Python
    """
    venv.create(folder)
    (site_packages,) = folder.rglob("site-packages")
    for name in declared(requirements):
        for top in {file.parts[0] for file in distribution(name).files or [] if ".." not in file.parts}:
            link = site_packages / top
            if not link.exists():
                link.symlink_to(distribution(name).locate_file(top))
    return next(folder.glob("*/python"))
