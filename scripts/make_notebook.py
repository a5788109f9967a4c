"""
Make examples/from_reinforce_to_vpg.ipynb of the lessons in docs/learn/, and execute it.

    python scripts/make_notebook.py           # about two minutes; run it after each change of a lesson
    python scripts/make_notebook.py --check   # only compare the notebook's cells with the lessons

Needs pip install '.[docs]'. What only the site understands becomes plain Markdown: admonitions become quotations, and relative
links start in examples/. The notebook holds no times and no random ids, so two runs differ only in outputs.
"""

import argparse
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jupytext
import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

ROOT = Path(__file__).parents[1]
LESSONS = ROOT / "docs" / "learn"
NOTEBOOK = ROOT / "examples" / "from_reinforce_to_vpg.ipynb"
MAX_BYTES = 1_500_000
FIGURE_DPI = 80
INTRODUCTION = """# From REINFORCE to VPG

This notebook holds the lessons of `docs/learn/`, one after another:

{titles}

You need NumPy and a little calculus, and no knowledge of reinforcement learning. Each lesson starts with its own imports, so
you can run one alone.

To run the cells, install the package in a clone of sb3-vpg: `pip install '.[docs]'`. Each lesson ends with exercises. Their
solutions are folded; click on a folded cell to open it.

`scripts/make_notebook.py` makes this notebook of the lessons. Change a lesson there, not here."""
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"file_extension": ".py", "mimetype": "text/x-python", "name": "python"},
}
_FENCE = re.compile(r"(?P<fence>`{3,}|~{3,}|:{3,})(?:\{(?P<directive>[\w-]+)\})?(?P<argument>.*)")
_INLINE_CODE = re.compile(r"(?P<ticks>`+)(?!`).*?(?<!`)(?P=ticks)(?!`)")
_ROLE = re.compile(r"\{([\w:+-]+)\}`([^`]*)`")
_LINK = re.compile(r"(?P<before>\]\(|<img[^>]*? src=\")(?P<target>[^)\s\"]+)")
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
_ADMONITIONS = ("note", "tip", "hint", "important", "attention", "caution", "warning", "danger", "error", "seealso")
_FOLDED = {"hide-cell", "hide-input", "remove-cell", "remove-input"}
_TITLED = ("admonition", "dropdown")


def lesson_files(folder: Path = LESSONS) -> list[Path]:
    """:return: the lessons in their order"""
    return sorted(folder.glob("[1-5]_*.md"))


def from_lessons(files: list[Path]) -> NotebookNode:
    """
    :param files: the lessons in their order
    :return: the notebook of the lessons, not executed
    :raises ValueError: if a lesson holds a directive or a role of MyST for which there is no plain Markdown
    """
    titles = [_HEADING.findall(file.read_text())[0] for file in files]
    # Some titles begin with their number
    listed = [
        f"{file.stem[0]}. [{title.removeprefix(f'{file.stem[0]}. ')}]({_jupyter(title)})"
        for file, title in zip(files, titles, strict=True)
    ]
    notebook = nbformat.v4.new_notebook(metadata=METADATA)
    notebook.cells.append(nbformat.v4.new_markdown_cell(INTRODUCTION.format(titles="\n".join(listed)), id="introduction"))
    for file in files:
        for number, cell in enumerate(jupytext.read(file, fmt="md:myst").cells):
            cell_id = f"{file.stem}-{number}"
            if cell.cell_type == "code":
                notebook.cells.append(nbformat.v4.new_code_cell(cell.source, id=cell_id, metadata=_metadata(cell)))
            else:
                source = plain_markdown(cell.source, file)
                notebook.cells.append(nbformat.v4.new_markdown_cell(source, id=cell_id))
    return notebook


def _metadata(cell: NotebookNode) -> dict[str, Any]:
    """:return: the metadata of a code cell; Jupyter folds what the site folds or hides"""
    metadata = {key: cell.metadata[key] for key in ("jupyter", "tags") if key in cell.metadata}
    if _FOLDED & set(metadata.get("tags", [])):
        metadata["jupyter"] = {**metadata.get("jupyter", {}), "source_hidden": True}
    return metadata


def plain_markdown(text: str, page: Path) -> str:
    """
    :param text: MyST Markdown
    :param page: the file that holds it, from whose folder relative links start
    :return: Markdown that Jupyter understands, with links that start in examples/
    :raises ValueError: for a directive or a role that is not known
    """
    lines = iter(text.splitlines())
    plain: list[str] = []
    for line in lines:
        fence = _FENCE.match(line)
        if fence is None:
            if not re.match(r"(\([\w-]+\)=|%( .*)?)$", line):  # targets of links, comments
                plain.append(_outside_code(line, page))
            continue
        body = _fenced(lines, fence["fence"], page)
        if fence["directive"]:
            plain += _directive(fence["directive"], fence["argument"].strip(), body, page)
        elif fence["fence"].startswith(":"):
            raise ValueError(f"{page}: {line!r} is not known: name a directive, as in :::{{note}}")
        else:
            plain += [line, *body, fence["fence"]]
    return "\n".join(plain)


def _fenced(lines: Iterator[str], fence: str, page: Path) -> list[str]:
    """:return: the lines up to the end of a fenced block, which is also read"""
    body = []
    for line in lines:
        if re.fullmatch(rf"{fence[0]}{{{len(fence)},}}\s*", line):
            return body
        body.append(line)
    raise ValueError(f"{page}: a block that begins with {fence} has no end: ...{' '.join(body)[:60]}")


def _directive(name: str, argument: str, body: list[str], page: Path) -> list[str]:
    """:return: the lines of plain Markdown for a directive"""
    options: dict[str, str] = {}
    while body and (option := re.match(r":([\w-]+):\s*(.*)$", body[0])):
        options[option[1]] = option[2]
        body = body[1:]
    if name in _ADMONITIONS or name in _TITLED:
        title = _outside_code(argument, page) if name in _TITLED else name.capitalize().replace("Seealso", "See also")
        # Text behind {note} is the beginning of its body
        text = body if name in _TITLED or not argument else [argument, *body]
        quoted = plain_markdown("\n".join(text).strip("\n"), page).splitlines()
        return [f"> **{title}**", ">", *(f"> {line}".rstrip() for line in quoted)]
    if name == "math":
        return ["$$", *([argument] if argument else []), *body, "$$"]
    if name in ("image", "figure"):
        image = f"![{options.get('alt', '')}]({argument})"
        return [_outside_code(image, page), *(["", plain_markdown("\n".join(body), page)] if any(body) else [])]
    raise ValueError(f"{page}: scripts/make_notebook.py knows no plain Markdown for the directive {{{name}}}")


def _outside_code(line: str, page: Path) -> str:
    """:return: the line with plain roles and with links that start in examples/, except in inline code"""
    line = _ROLE.sub(lambda role: _role(role, page), line)
    parts, end = [], 0
    for code in _INLINE_CODE.finditer(line):
        parts += [_LINK.sub(_relink(page), line[end : code.start()]), code.group()]
        end = code.end()
    return "".join([*parts, _LINK.sub(_relink(page), line[end:])])


def _role(role: re.Match[str], page: Path) -> str:
    if role[1] == "math":
        return f"${role[2]}$"
    raise ValueError(f"{page}: scripts/make_notebook.py knows no plain Markdown for the role {{{role[1]}}}")


def _relink(page: Path) -> Callable[[re.Match[str]], str]:
    def relinked(link: re.Match[str]) -> str:
        return link["before"] + _target(link["target"], page)

    return relinked


def _target(target: str, page: Path) -> str:
    """:return: the target of a link, seen from the notebook: a heading for a lesson, else a path from examples/"""
    if re.match(r"[a-z][a-z+.-]*:", target):
        return target
    name, _, anchor = target.partition("#")
    file = (page.parent / name).resolve() if name else page.resolve()
    if file in [lesson.resolve() for lesson in lesson_files(page.parent)]:
        return _heading_anchor(file, anchor)
    return Path(os.path.relpath(file, NOTEBOOK.parent)).as_posix() + (f"#{anchor}" if anchor else "")


def _heading_anchor(lesson: Path, anchor: str) -> str:
    """
    :param lesson: a lesson
    :param anchor: a heading in GitHub's form; empty: the title
    :return: the heading in Jupyter's form
    """
    headings = _HEADING.findall(lesson.read_text())
    for heading in headings:
        if not anchor or re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") == anchor:
            return _jupyter(heading)
    raise ValueError(f"{lesson} has no heading #{anchor}")


def _jupyter(heading: str) -> str:
    """:return: the target of a link to a heading, as Jupyter names it"""
    return "#" + quote(heading.replace(" ", "-"))


def execute(notebook: NotebookNode) -> None:
    """
    Run all cells in one kernel, in the folder of the notebook.

    :raises CellExecutionError: if a cell fails
    :raises ValueError: if a cell prints a warning, which a reader would not expect
    """
    with tempfile.TemporaryDirectory() as folder:
        settings = Path(folder) / "matplotlibrc"
        settings.write_text(f"figure.dpi: {FIGURE_DPI}\n")
        # One thread: small networks are slower with more
        env = {**os.environ, "MATPLOTLIBRC": str(settings), "OMP_NUM_THREADS": "1"}
        client = NotebookClient(
            notebook,
            timeout=600,
            kernel_name="python3",
            record_timing=False,
            coalesce_streams=True,
            resources={"metadata": {"path": str(NOTEBOOK.parent)}},
        )
        client.execute(env=env)
    notebook.metadata = NotebookNode(METADATA)  # without the version of Python
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.get("name") == "stderr":
                raise ValueError(f"cell {cell.id} prints to stderr: {output.text[:500]}")


def differences(notebook: NotebookNode, expected: NotebookNode) -> list[str]:
    """:return: what differs in the cells of two notebooks, except for outputs and counts"""
    parts = [[(cell.id, cell.cell_type, cell.source, cell.metadata) for cell in each.cells] for each in (notebook, expected)]
    found = [f"{new[0]} differs" for old, new in zip(*parts, strict=False) if old != new]
    if len(parts[0]) != len(parts[1]):
        found.append(f"it has {len(parts[0])} cells instead of {len(parts[1])}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--check", action="store_true", help="execute nothing; fail if the notebook's cells are not those of the lessons"
    )
    notebook = from_lessons(lesson_files())
    if parser.parse_args().check:
        found = differences(nbformat.read(NOTEBOOK, as_version=4), notebook)
        if found:
            sys.exit(f"{NOTEBOOK.name}: {'; '.join(found)}. Run python scripts/make_notebook.py")
        return
    execute(notebook)
    nbformat.validate(notebook)
    text = nbformat.writes(notebook) + "\n"
    if len(text.encode()) > MAX_BYTES:
        sys.exit(f"The notebook has {len(text.encode()):,} bytes, more than {MAX_BYTES:,}: make figures smaller")
    NOTEBOOK.write_text(text)
    print(f"{NOTEBOOK.relative_to(ROOT)}: {len(notebook.cells)} cells, {len(text.encode()):,} bytes")


if __name__ == "__main__":
    main()
