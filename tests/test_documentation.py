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
        assert (ROOT / path).exists() or path.startswith("docs/_build/"), path


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


def plain(text: str) -> str:
    """:return: the text without bold type and line breaks"""
    return " ".join(text.replace("*", "").split())


RESULTS = [*(ROOT / "benchmarks/results").rglob("*.md"), ROOT / "trained_agents/benchmark.md"]
MEASURED = plain("\n".join(path.read_text() for path in RESULTS))
RESULT_PAGES = [
    ROOT / f"docs/{name}.md"
    for name in ("speed", "reliability", "comparisons", "environments", "checkpoints", "security", "tuning")
]
NUMBER = r"(-?\d[\d,]*(?:\.\d+)?)"
INTERVALS = (rf"{NUMBER}(?: s)? \[{NUMBER}, {NUMBER}\]", rf"{NUMBER} \({NUMBER} to {NUMBER}\)", rf"{NUMBER} ± {NUMBER}")
# How the reports of time_to_solve and variance write an interval
OTHER_INTERVALS = (rf"{NUMBER}, {NUMBER} to {NUMBER} \[{NUMBER} to {NUMBER}\]", rf"{NUMBER} \| {NUMBER} to {NUMBER} \|")
# Computed by other tests: test_trained_agents.py (environments), compare/test_results.py, test_random_weights_notebook.py
DERIVED = {"0.730", "0.744", "7.93", "0.965", "0.313"}


def included(page: Path) -> list[str]:
    """:return: the texts that a page includes"""
    texts = []
    for file, options in re.findall(r"^```\{include\} (\S+)\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE):
        text = (page.parent / file).read_text()
        markers = dict(re.findall(r'^:(start-after|end-before): "(.*)"$', options, re.MULTILINE))
        if "start-after" in markers:
            _, found, text = text.partition(markers["start-after"])
            assert found, (file, markers)
        if "end-before" in markers:
            text, found, _ = text.partition(markers["end-before"])
            assert found, (file, markers)
        texts.append(text)
    return texts


def sentences(page: Path) -> str:
    """:return: the text of a page without code, links and what it includes"""
    return plain(re.sub(r"^```.*?^```|`[^`]*`|\[[^\]]*\]\([^)]*\)", "", page.read_text(), flags=re.DOTALL | re.MULTILINE))


@pytest.mark.parametrize("page", RESULT_PAGES, ids=lambda page: page.stem)
def test_tables_of_results_are_included(page: Path) -> None:
    """Each include finds its markers and shows a table; tables that are typed hold no measurement."""
    for text in included(page):
        assert re.search(r"^\|[ -]*---", text, re.MULTILINE), text
        assert text.count("|\n\n|") == 0
    typed = re.findall(r"^\|.*\|$", page.read_text(), re.MULTILINE)
    assert not [row for row in typed if re.search(r"\d\.\d", re.sub(r"`[^`]*`", "", row))]


@each_page
def test_intervals_stand_in_the_results(page: Path) -> None:
    measured = {found for form in INTERVALS for found in re.findall(form, MEASURED)}
    median_form, variance_form = OTHER_INTERVALS
    measured |= {(middle, low, high) for middle, _, _, low, high in re.findall(median_form, MEASURED)}
    measured |= set(re.findall(variance_form, MEASURED))
    stated = {found for form in INTERVALS for found in re.findall(form, plain(page.read_text()))}
    assert not stated - measured


@pytest.mark.parametrize("page", RESULT_PAGES, ids=lambda page: page.stem)
def test_figures_of_sentences_stand_in_the_results(page: Path) -> None:
    """Every number with a decimal point, and every "so many of so many"."""
    text = sentences(page)
    figures = set(re.findall(r"(?<![\d.])-?\d+\.\d+(?![\d.]*\d)", text)) | set(re.findall(r"\b\d+ of \d+\b", text))
    missing = [figure for figure in figures - DERIVED if not re.search(rf"(?<![\d.]){re.escape(figure)}(?!\d)", MEASURED)]
    assert not missing


def test_statements_about_ten_seeds_are_those_of_the_results() -> None:
    rows = re.findall(r"^\| (\d+) \| (.*) \|$", (ROOT / "benchmarks/results/ten_seeds.md").read_text(), re.MULTILINE)
    assert len(rows) == 10
    assert all(cells.startswith("500.0 | 500.0 | ") and cells.endswith(" | 500.0") for _, cells in rows)
    # Clopper and Pearson's interval, if all runs succeed
    assert f"success rate: {100 * 0.025 ** (1 / len(rows)):.0f} % to 100 %" in sentences(ROOT / "docs/reliability.md")


def test_figures_of_real_tasks_in_the_readme_stand_in_the_report() -> None:
    """Each is a whole cell in a row of a task that the paragraph names."""
    [paragraph] = [text for text in (ROOT / "README.md").read_text().split("\n\n") if "results/real_tasks.md" in text]
    report = (ROOT / "benchmarks/results/real_tasks.md").read_text()
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in report.splitlines() if row.startswith("| ")]
    cells = {cell for task, *row in rows if task and task in paragraph for cell in row}
    figures = re.findall(r"\d[\d,]*\.\d+|\d+ %|\d+k\b", plain(paragraph))
    assert len(figures) > 2
    assert {figure.replace(" %", "%") for figure in figures} <= cells
