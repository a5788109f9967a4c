"""What is the user's own is decided by the first part of a module's name."""

import pytest

from sb3_vpg.common.libraries import is_library


@pytest.mark.parametrize("module", ["builtins", "torch", "torch.nn.modules.linear", "sb3_contrib.trpo", "sb3_vpg"])
def test_modules_of_sb3_vpg_and_of_its_libraries_are_libraries(module: str) -> None:
    assert is_library(module)


@pytest.mark.parametrize("module", ["__main__", "torchvision.models", "my.torch", "sb3"])
def test_other_modules_are_the_users_own(module: str) -> None:
    assert not is_library(module)
