"""
The lessons of docs/learn/ and the notebook that scripts/make_notebook.py makes of them. Nothing is executed here but the
imports of the lessons: the script executes the notebook, and the site executes the lessons.
"""

import builtins
import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import unquote

import jupytext
import nbformat
import pytest
from nbformat import NotebookNode

ROOT = Path(__file__).parents[2]
RUN_THE_SCRIPT = "run python scripts/make_notebook.py"


def _script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_notebook", ROOT / "scripts" / "make_notebook.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


script = _script()
LESSONS = script.lesson_files()
PAGE = script.LESSONS / "5_is_it_better.md"
each_lesson = pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.stem)


@pytest.fixture(scope="module")
def committed() -> NotebookNode:
    return nbformat.read(script.NOTEBOOK, as_version=4)


def code_cells(lesson: Path) -> list[NotebookNode]:
    return [cell for cell in jupytext.read(lesson, fmt="md:myst").cells if cell.cell_type == "code"]


def headings(cells: list[NotebookNode]) -> list[str]:
    """:return: the headings of Markdown cells, such as "## Exercises", but not comments in their blocks of code"""
    text = "\n".join(re.sub(r"^```.*?^```", "", cell.source, flags=re.DOTALL | re.MULTILINE) for cell in cells)
    return re.findall(r"^#+ .*$", text, re.MULTILINE)


def test_there_are_five_lessons() -> None:
    assert [lesson.name[0] for lesson in LESSONS] == list("12345")


def test_the_notebook_holds_the_lessons(committed: NotebookNode) -> None:
    assert script.differences(committed, script.from_lessons(LESSONS)) == [], RUN_THE_SCRIPT


def test_another_notebook_differs() -> None:
    """So the test above can fail: for a changed source, changed metadata, and a missing cell."""
    made = script.from_lessons([PAGE])
    assert script.differences(made, script.from_lessons([PAGE])) == []
    made.cells[1].source += "!"
    made.cells[2].metadata["tags"] = ["hide-input"]
    assert script.differences(made, script.from_lessons([PAGE])) == [f"{PAGE.stem}-{n} differs" for n in (0, 1)]
    del made.cells[-1]
    assert script.differences(made, script.from_lessons([PAGE]))[-1].startswith("it has ")


def test_every_cell_was_executed_without_an_error_or_a_warning(committed: NotebookNode) -> None:
    cells = [cell for cell in committed.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1)), RUN_THE_SCRIPT
    for cell in cells:
        for output in cell.outputs:
            assert output.output_type != "error", cell.id
            assert output.get("name") != "stderr", cell.id
            assert output.output_type != "stream" or len(output.text.splitlines()) <= 15, f"{cell.id} prints many lines"


def test_the_notebook_is_small_and_holds_no_times(committed: NotebookNode) -> None:
    assert script.NOTEBOOK.stat().st_size < script.MAX_BYTES
    nbformat.validate(committed)
    assert committed.metadata == script.METADATA
    assert committed.metadata.kernelspec.name == "python3"
    assert all(set(cell.metadata) <= {"jupyter", "tags"} for cell in committed.cells)
    assert any("image/png" in output.get("data", {}) for cell in committed.cells for output in cell.get("outputs", []))


def test_links_of_the_notebook_have_targets(committed: NotebookNode) -> None:
    cells = [cell for cell in committed.cells if cell.cell_type == "markdown"]
    anchors = {heading.lstrip("#").strip().replace(" ", "-") for heading in headings(cells)}
    for cell in cells:
        text = re.sub(r"^```.*?^```|`[^`\n]*`", "", cell.source, flags=re.DOTALL | re.MULTILINE)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if target.startswith("#"):
                assert unquote(target[1:]) in anchors, target
            elif not re.match(r"[a-z]+:", target):
                assert (script.NOTEBOOK.parent / target.partition("#")[0]).exists(), target


@each_lesson
def test_the_first_cell_says_what_to_install(lesson: Path) -> None:
    """Where a module is missing, the error of the first cell names it and the command."""

    def without_matplotlib(name: str, *args: Any, **kwargs: Any) -> ModuleType:
        if name.partition(".")[0] == "matplotlib":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return __import__(name, *args, **kwargs)

    namespace = {"__builtins__": {**vars(builtins), "__import__": without_matplotlib}}
    with pytest.raises(ModuleNotFoundError, match=re.escape("pip install '.[docs]'")) as caught:
        exec(code_cells(lesson)[0].source, namespace)
    assert "matplotlib" in str(caught.value)


@each_lesson
def test_a_lesson_ends_with_exercises_whose_solutions_are_folded(lesson: Path, committed: NotebookNode) -> None:
    cells = [cell for cell in committed.cells if cell.id.startswith(f"{lesson.stem}-")]
    assert cells, RUN_THE_SCRIPT
    last = [heading for heading in headings([cell for cell in cells if cell.cell_type == "markdown"]) if heading[:3] == "## "]
    assert last[-2:] == ["## Exercises", "## Where to go next"]
    start = next(number for number, cell in enumerate(cells) if "## Exercises" in cell.source)
    code = [cell for cell in cells[start:] if cell.cell_type == "code"]
    solutions = [number for number, cell in enumerate(code) if "hide-cell" in cell.metadata.get("tags", [])]
    assert len(solutions) >= 2
    for number in solutions:
        assert code[number].metadata.jupyter.source_hidden is True
        assert "right" in printed(code[number])
        assert "assert " in code[number].source
        # The cell for the reader comes before it, and runs unsolved
        assert "hide-cell" not in code[number - 1].metadata.get("tags", [])
        assert "not solved yet" in printed(code[number - 1])


def printed(cell: NotebookNode) -> str:
    return "".join(output.get("text", "") for output in cell.outputs)


@each_lesson
def test_cells_are_short(lesson: Path) -> None:
    for cell in code_cells(lesson):
        assert len(cell.source.splitlines()) <= 40, cell.source
        assert max(map(len, cell.source.splitlines())) <= 127, cell.source


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("```{note}\nRead `a`.\n\nTwice.\n```\nEnd", "> **Note**\n>\n> Read `a`.\n>\n> Twice.\nEnd"),
        (":::{seealso} The first\nand the second\n:::", "> **See also**\n>\n> The first\n> and the second"),
        ("```{admonition} A title\n:class: tip\n\nText\n```", "> **A title**\n>\n> Text"),
        ("````{tip}\n```python\nx = 1\n```\n````", "> **Tip**\n>\n> ```python\n> x = 1\n> ```"),
        ("```{math}\nx^2\n```", "$$\nx^2\n$$"),
        ("{math}`x^2` and $y$", "$x^2$ and $y$"),
        ("```{image} ../../benchmarks/a.png\n:alt: A\n```", "![A](../benchmarks/a.png)"),
        ("(target)=\n% a comment\nText", "Text"),
        ("[a](../speed.md#many) and `[b](../x.md)`", "[a](../docs/speed.md#many) and `[b](../x.md)`"),
        ("![c](../../benchmarks/c.png) [d](https://a.org/b.md)", "![c](../benchmarks/c.png) [d](https://a.org/b.md)"),
        ('<img alt="e" src="../../benchmarks/e.gif">', '<img alt="e" src="../benchmarks/e.gif">'),
        ("[f](5_is_it_better.md) [g](#an-interval-by-bootstrap)", "[f](#5.-Is-it-better%3F) [g](#An-interval-by-bootstrap)"),
        ("```python\n[h](../x.md) % no comment\n```", "```python\n[h](../x.md) % no comment\n```"),
    ],
)
def test_what_only_the_site_understands_becomes_plain_markdown(text: str, plain: str) -> None:
    assert script.plain_markdown(text, PAGE) == plain


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("```{tableofcontents}\n```", r"the directive \{tableofcontents\}"),
        ("See {doc}`speed`.", r"the role \{doc\}"),
        ("```{note}\nText", "has no end"),
        ("[a](#no-such-heading)", "has no heading #no-such-heading"),
        (":::\nText\n:::", "name a directive"),
    ],
)
def test_what_is_not_known_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        script.plain_markdown(text, PAGE)
