"""The attributes that we patch in other libraries exist and are used: an upgrade that changes this fails here."""

import ast
import inspect
from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from pkgutil import resolve_name
from platform import python_version

import pytest
from packaging.version import Version

import sb3_vpg
from sb3_vpg.zoo.patching import PATCHES, patched

SOURCES = sorted(Path(sb3_vpg.__file__).parent.rglob("*.py"))


def lookups(source: str) -> tuple[set[str], set[str], set[tuple[str | None, str]]]:
    """:return: the names that a module reads, the dotted names, and what it imports with ``from ... import ...``"""
    nodes = list(ast.walk(ast.parse(source)))
    names = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    dotted = {ast.unparse(node) for node in nodes if isinstance(node, ast.Attribute)}
    imported = {(node.module, name.name) for node in nodes if isinstance(node, ast.ImportFrom) for name in node.names}
    return names, dotted, imported


def is_looked_up(target: str, user: str) -> bool:
    """:return: whether the source of the module ``user`` would see the patch, in whatever way it reads the attribute"""
    spec = find_spec(user)
    assert spec, f"there is no module {user}"
    names, dotted, imported = lookups(Path(str(spec.origin)).read_text(encoding="utf-8"))
    module, _, path = target.partition(":")
    owner, _, name = path.rpartition(".")
    if owner:
        # A method is found through any object
        return any(text.endswith(f".{name}") for text in dotted)
    if module == user:
        return name in names
    # argparse imports sys as _sys
    return {f"{module}.{name}", f"_{module}.{name}"} & dotted != set() or ((module, name) in imported and name in names)


@pytest.mark.parametrize("target", PATCHES)
def test_what_is_patched_is_there_and_is_used(target: str) -> None:
    patch = PATCHES[target]
    name, _, first = patch.since.rpartition(" ")
    installed = python_version() if name == "Python" else version(name)
    assert Version(installed) >= Version(first), f"{target} needs {patch.since}, but {installed} is installed"
    try:
        resolve_name(target)
    except (ImportError, AttributeError) as error:
        pytest.fail(f"{name} {installed} has no {target}, which we patch because {patch.why}: {error}")
    assert is_looked_up(target, patch.used_in), (
        f"{patch.used_in} no longer looks up {target} with {name} {installed}, so that the patch does nothing. It is "
        f"needed because {patch.why}"
    )


@pytest.mark.parametrize("target", PATCHES)
def test_a_patch_is_seen_and_ends_with_its_block(target: str) -> None:
    """The attribute has the new value inside the block, and the old one afterwards, even if the block raises an error."""
    module, _, path = target.partition(":")
    owner = resolve_name(f"{module}:{path.rpartition('.')[0]}")
    before, value = inspect.getattr_static(owner, path.rpartition(".")[2]), object()
    with pytest.raises(KeyError), patched(target, value) as previous:  # noqa: PT012  # the state inside is the point
        assert (previous, resolve_name(target)) == (before, value)
        raise KeyError
    assert inspect.getattr_static(owner, path.rpartition(".")[2]) is before


def calls(function: str) -> Iterator[tuple[str, ast.expr]]:
    """:return: where our code calls a function, and with what first argument"""
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == function:
                yield f"{source.name}:{node.lineno}", node.args[0]


def test_an_attribute_that_is_not_used_is_noticed() -> None:
    assert not is_looked_up("rl_zoo3.train:subprocess", "rl_zoo3.train")
    assert not is_looked_up("optuna:create_trial", "rl_zoo3.exp_manager")
    assert not is_looked_up("rl_zoo3.utils:create_test_env", "rl_zoo3.train")
    assert not is_looked_up("stable_baselines3.common.vec_env:VecNormalize.save_all", "rl_zoo3.exp_manager")


def test_nothing_else_is_patched() -> None:
    """``replaced`` is only used for our own objects, and each line of the table is used."""
    foreign = [
        place for place, owner in calls("replaced") if ast.unparse(owner) != "self" and not place.startswith("patching.py")
    ]
    assert not foreign, f"{foreign} patch an attribute of another library: add it to PATCHES and use patched()"
    texts = {node.value for source in SOURCES if source.name != "patching.py" for node in constants(source)}
    assert not PATCHES.keys() - texts, "these lines of PATCHES are not used"


def constants(source: Path) -> list[ast.Constant]:
    return [node for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))) if isinstance(node, ast.Constant)]


def test_no_other_line_assigns_to_a_module_or_class_of_others() -> None:
    """There is no ``module.attribute = ...`` and no ``setattr(module, ...)``, which would last until the process ends."""
    found = []
    for source in SOURCES:
        tree = ast.parse(source.read_text(encoding="utf-8"))
        imports = {
            (alias.asname or alias.name).partition(".")[0]
            for node in ast.walk(tree)
            if isinstance(node, (ast.Import, ast.ImportFrom))
            for alias in node.names
        }
        for node in ast.walk(tree):
            assigned = node.targets if isinstance(node, (ast.Assign, ast.Delete)) else []
            if isinstance(node, (ast.AugAssign, ast.AnnAssign)):
                assigned = [node.target]
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "setattr":
                assigned = [ast.Attribute(node.args[0], "", ast.Load())]
            owners = [ast.unparse(target.value) for target in assigned if isinstance(target, ast.Attribute)]
            found += [f"{source.name}:{node.lineno}" for owner in owners if owner.partition(".")[0] in imports]
    assert not found, f"{found} change other libraries for good: use patched()"
