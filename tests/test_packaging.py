"""The wheel contains what it should, and works without a checkout."""

import subprocess
import sys
import sysconfig
import venv
import zipfile
from email import message_from_bytes
from email.message import Message
from importlib import import_module
from importlib.metadata import distributions, version
from pathlib import Path

import pytest
from linked_environment import declared
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import sb3_vpg

ROOT = Path(__file__).parent.parent
with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(ROOT / "scripts")
    test_pythons = import_module("test_pythons")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(ROOT)], check=True)
    return next(folder.glob("*.whl"))


# Modules of distributions that the wheel does not declare cannot be imported, although they are installed
BLOCKER = """
import sys
from importlib.machinery import PathFinder

UNDECLARED = frozenset({names!r})


class Declared(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in UNDECLARED else super().find_spec(name, path, target)


sys.meta_path[sys.meta_path.index(PathFinder)] = Declared
"""


def distributions_of_modules() -> dict[str, set[str]]:
    """:return: the distributions of each module; before Python 3.11, ``packages_distributions`` finds only some of them"""
    owners: dict[str, set[str]] = {}
    for installed in distributions():
        for file in installed.files or []:
            if file.suffix in (".py", ".so") and ".." not in file.parts:
                owners.setdefault(file.parts[0].partition(".")[0], set()).add(canonicalize_name(installed.metadata["Name"]))
    return owners


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """
    Install the wheel into a new environment, in which only it and its dependencies can be imported. The dependencies are those
    of the current environment, so that they are not installed again.

    :return: the folder of the environment's programs
    """
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder)
    programs = folder / ("Scripts" if sys.platform == "win32" else "bin")
    install = [sys.executable, "-m", "pip", "--python", programs / "python", "install", "--quiet", "--no-deps", wheel]
    subprocess.run(install, check=True)
    (site_packages,) = folder.rglob("site-packages")
    (ours,) = distributions(name="sb3-vpg", path=[str(site_packages)])
    # torch imports optree, a dependency of EnvPool, wherever it is installed
    allowed = declared(ours.requires or []) | {"sb3-vpg", "optree"}
    undeclared = {module for module, names in distributions_of_modules().items() if not allowed & names}
    (site_packages / "sitecustomize.py").write_text(BLOCKER.format(names=sorted(undeclared)))
    (site_packages / "declared.pth").write_text(sysconfig.get_path("purelib"))
    return programs


@pytest.mark.expensive
@pytest.mark.parametrize("name", ["pytest", "wandb", "mujoco", "ray"])
def test_undeclared_packages_cannot_be_imported(name: str, installed: Path) -> None:
    """Otherwise the test of the installed command line could not detect an undeclared dependency."""
    done = subprocess.run([installed / "python", "-c", f"import {name}"], capture_output=True, text=True)
    assert f"No module named '{name}'" in done.stderr


def test_the_installed_version_is_the_one_in_the_code() -> None:
    assert version("sb3-vpg") == sb3_vpg.__version__


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    """The metadata of the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return message_from_bytes(archive.read(f"sb3_vpg-{sb3_vpg.__version__}.dist-info/METADATA"))


@pytest.fixture(scope="module")
def bounds(metadata: Message) -> dict[str, SpecifierSet]:
    """The allowed versions of each dependency, with those of the extras."""
    specifiers: dict[str, SpecifierSet] = {}
    for requirement in map(Requirement, metadata.get_all("Requires-Dist", [])):
        specifiers[requirement.name] = specifiers.get(requirement.name, SpecifierSet()) & requirement.specifier
    return specifiers


@pytest.mark.expensive
def test_every_dependency_has_a_lower_bound(bounds: dict[str, SpecifierSet]) -> None:
    """Without one, ``make test-lowest`` would install the first release of all."""
    assert len(bounds) > 20
    assert not [name for name, admitted in bounds.items() if ">=" not in {specifier.operator for specifier in admitted}]


@pytest.mark.expensive
def test_torch_is_not_older_than_the_fix_of_cve_2026_24747(bounds: dict[str, SpecifierSet]) -> None:
    """The weights reader of torch before 2.10 can corrupt memory."""
    assert "2.9.1" not in bounds["torch"]
    assert "2.10.0" in bounds["torch"]


@pytest.mark.expensive
def test_pinned_versions_satisfy_the_bounds(bounds: dict[str, SpecifierSet]) -> None:
    lines = [line.partition("#")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines()]
    pinned = [Requirement(line) for line in lines if line]
    pins = {canonicalize_name(pin.name): pin for pin in pinned if pin.marker is None or pin.marker.evaluate()}
    for name, admitted in bounds.items():
        (specifier,) = pins[canonicalize_name(name)].specifier
        assert specifier.version in admitted, name


@pytest.mark.expensive
def test_the_declared_python_versions_are_tested(metadata: Message) -> None:
    prefix = "Programming Language :: Python :: "
    declared_versions = [text.removeprefix(prefix) for text in metadata.get_all("Classifier", []) if text.startswith(prefix)]
    assert declared_versions == test_pythons.declared_versions()
    assert metadata["Requires-Python"] == f">={declared_versions[0]}"
    assert "{}.{}".format(*sys.version_info) in declared_versions


@pytest.mark.expensive
def test_the_wheel_contains_hyperparameters_and_agents_but_no_tests(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for needed in ("sb3_vpg/hyperparams/vpg.yml", "sb3_vpg/py.typed", "sb3_vpg/zoo/cli.py"):
        assert needed in names
    templates = {file.relative_to(ROOT).as_posix() for file in (ROOT / "sb3_vpg").rglob("*.j2")}
    assert {name for name in names if name.endswith(".j2")} == templates
    assert "sb3_vpg/zoo/hub/templates/model_card.md.j2" in templates
    agents = ROOT / "trained_agents"
    shipped = {f"sb3_vpg/trained_agents/{file.relative_to(agents).as_posix()}" for file in agents.rglob("*") if file.is_file()}
    assert {name for name in names if name.startswith("sb3_vpg/trained_agents/")} == shipped
    assert "sb3_vpg/trained_agents/vpg/CartPole-v1_1/CartPole-v1.zip" in shipped
    assert {name.split("/")[0] for name in names} == {"sb3_vpg", f"sb3_vpg-{sb3_vpg.__version__}.dist-info"}


@pytest.mark.expensive
def test_the_command_line_of_the_installed_wheel_trains(installed: Path, tmp_path: Path) -> None:
    def run(*arguments: str) -> str:
        command = [installed / "sb3-vpg", *arguments]
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    assert run("--version").startswith(f"sb3-vpg {sb3_vpg.__version__}")
    assert "ships, " in run("enjoy", "--env", "CartPole-v1", "--no-render", "-n", "20"), "before any training"
    assert "site-packages" in run("train", "--env", "CartPole-v1", "-n", "600", "--eval-freq", "-1"), "not the checkout's file"
    assert (tmp_path / "logs/vpg/CartPole-v1_1/CartPole-v1.zip").is_file()
    assert "Return over 2 episodes" in run("evaluate", "--env", "CartPole-v1", "-n", "2")
    run("enjoy", "--env", "CartPole-v1", "--no-render", "-n", "20")
    run("record_video", "--env", "CartPole-v1", "-n", "20")
    run("plot_train", "-e", "CartPole-v1", "-f", "logs", "--savefig", "curve.png")
    search = ["optimize", "--env", "CartPole-v1", "--n-trials", "1", "-n", "600"]
    run(*search, "--storage", "sqlite:///study.db", "--study-name", "s")
