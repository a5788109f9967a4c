"""README and docs/: links have targets, named files and commands exist, code is Python."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from sb3_vpg.version import __version__
from sb3_vpg.zoo.cli import COMMANDS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES += [page for page in sorted((ROOT / "docs").rglob("*.md")) if "_build" not in page.parts]
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).with_suffix("").as_posix())
# Folders of the repository; logs/ is made by the reader
FOLDERS = ("sb3_vpg", "tests", "benchmarks", "examples", "scripts", "hyperparams", "docs")


def code_blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """:return: the anchors of a page's headings as on GitHub: lower case, no punctuation, hyphens for spaces"""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@each_page
def test_links_have_targets(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        to = (page.parent / name).resolve() if name else page
        assert to.exists(), target
        assert not anchor or anchor in anchors(to), target


@each_page
def test_named_files_exist(page: Path) -> None:
    """CHANGELOG.md is not checked, because it names files of older versions."""
    if page.name == "CHANGELOG.md":
        return
    for path in re.findall(rf"(?<![\w/.])(?:{'|'.join(FOLDERS)})/[\w/.]*\w", page.read_text()):
        assert (ROOT / path).exists(), path


def test_files_and_constants_of_the_architecture_exist() -> None:
    """docs/architecture.md names files by the last parts of their paths."""
    text = (ROOT / "docs/architecture.md").read_text()
    names = re.findall(r"`([\w/]+(?:\.py|/))`", text)
    assert len(names) > 40
    for name in names:
        assert (ROOT / name).exists() or any(list((ROOT / folder).rglob(name)) for folder in FOLDERS), name
    sources = "".join(path.read_text() for path in (ROOT / "sb3_vpg").rglob("*.py"))
    for constant in set(re.findall(r"`([A-Z_]{4,})`", text)) - {"TYPE_CHECKING"}:
        assert re.search(rf"^{constant}\b", sources, re.MULTILINE), constant


@each_page
def test_commands_exist(page: Path) -> None:
    for block in code_blocks(page, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["sb3-vpg"]:
                assert words[1] in COMMANDS, line


@each_page
def test_python_is_python(page: Path) -> None:
    for block in code_blocks(page, "python"):
        compile(block, page.name, "exec")


def test_every_page_is_in_the_readme() -> None:
    """The site's index is checked when the site is built; README is the index on GitHub."""
    readme = (ROOT / "README.md").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert page.stem in ("index", "changelog", "contributing") or f"(docs/{page.name})" in readme, page.name


def test_the_first_program_of_readme_is_that_of_the_site() -> None:
    """The site runs it at each build and shows what it prints."""
    [program] = code_blocks(ROOT / "docs/index.md", re.escape("{code-cell} ipython3"))
    assert program == code_blocks(ROOT / "README.md", "python")[0]
    assert "mean return of 100 episodes: 500.0 of 500" in (ROOT / "README.md").read_text()


def test_the_citation_names_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == __version__
    assert citation["license"] == "MIT"


@pytest.mark.parametrize("page", ["README.md", "docs/speed.md"])
def test_seconds_equal_the_committed_results(page: str) -> None:
    results = (ROOT / "benchmarks/results/time_to_solve.md").read_text()
    measured = set(re.findall(r"\| ([\d.]+), [^|\[]*\[([\d.]+) to ([\d.]+)\]", results))
    figures = re.findall(r"([\d.]+) s\*{0,2} \[([\d.]+), ([\d.]+)\]", (ROOT / page).read_text())
    assert figures
    assert set(figures) <= measured
