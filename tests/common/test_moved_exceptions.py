"""The old import paths of exceptions work, with a warning that names the new one."""

import importlib

import pytest

from sb3_vpg import exceptions
from sb3_vpg.moved_exceptions import _MOVED


@pytest.mark.parametrize(("module", "name"), [(module, name) for module, names in _MOVED.items() for name in names])
def test_old_paths_lead_to_the_same_class(module: str, name: str) -> None:
    with pytest.warns(DeprecationWarning, match=rf"{name} has moved: import it from sb3_vpg\.exceptions"):
        found = getattr(importlib.import_module(module), name)
    assert found is getattr(exceptions, name)


def test_import_statements_with_old_paths_work() -> None:
    with pytest.warns(DeprecationWarning, match="archives"):
        from sb3_vpg.archives import RefusedFileError
    with pytest.warns(DeprecationWarning, match="failures"):
        from sb3_vpg.failures import EnvironmentFailedError
    assert issubclass(RefusedFileError, ValueError)
    assert issubclass(EnvironmentFailedError, RuntimeError)


def test_other_names_of_the_old_modules_are_gone() -> None:
    with pytest.raises(ImportError, match="read_archive"):
        from sb3_vpg.archives import read_archive  # noqa: F401  # it must fail
