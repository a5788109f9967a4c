"""
Every Python block and every command of the documentation runs.

One test for each block and each command; the items of a page run in order, in a folder of their own. ``make test`` leaves out
the long ones. All of them, with their number at the end:

    python -m pytest tests/test_documentation_runs.py --documentation --numprocesses 2 --dist loadscope

``-k command_line`` runs a page, always in one process, because loadscope splits a test's id at its last ``::``. Code cells of
the lessons run when the site is built. A failure says where the block is; ``tests/support/documentation.py`` has the tables of
what is made short, of what is long, and of what does not run.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from documentation import AFTER, HERE, NOT_RUN, ROOT, Item, items, long_items, pages, parse, repeated_items
from short_runs import PageRun, page_run

from sb3_vpg.zoo.cli import COMMANDS

BY_PAGE = {page: items(page) for page in pages()}
ALL = [item for of_page in BY_PAGE.values() for item in of_page]
REPEATED = repeated_items(BY_PAGE.values())


def parameters() -> list[object]:
    """Return the item of each test."""
    found: list[object] = []
    for page, of_page in BY_PAGE.items():
        name = page.relative_to(ROOT).with_suffix("").as_posix()
        long = long_items(of_page)
        for item in of_page:
            words = item.first_words.replace("::", ":")
            marks = [pytest.mark.documentation] if item in long else []
            found.append(pytest.param(item, id=f"{name}::{item.line} {words}", marks=marks))
    return found


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Item], None]]:
    """A function that runs an item. Each page begins in an empty folder, in which nothing of the last page is known."""
    with ExitStack() as stack:
        readers: dict[Path, PageRun] = {}

        def run(item: Item) -> None:
            if item.page not in readers:
                stack.close()
                readers.clear()
                readers[item.page] = stack.enter_context(page_run(tmp_path_factory.mktemp(item.page.stem)))
            readers[item.page].run(item)

        yield run


# Budgets are so small that some schedules end at once; other libraries warn, too
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("item", parameters())
def test_it_runs(item: Item, read: Callable[[Item], None], record_property: Callable[[str, object], None]) -> None:
    """Each block and each command of each page runs, in the order of the page."""
    record_property("documentation", item.kind)
    if key := item.not_run():
        pytest.skip(f"{key}: {NOT_RUN[key]}")
    if item in REPEATED:
        pytest.skip(f"{REPEATED[item].where} runs it")
    read(item)


def test_every_command_can_be_short() -> None:
    """A new command needs an entry."""
    assert not COMMANDS.keys() - AFTER.keys(), f"add these to AFTER in {HERE}"


def test_what_does_not_run_is_on_a_page() -> None:
    """Each reason has its block or command."""
    used = {item.not_run() for item in ALL}
    assert not NOT_RUN.keys() - used, f"no page has these: remove them from NOT_RUN in {HERE}"


PAGE = """# Title

Run `sb3-vpg train --env CartPole-v1`; the command `sb3-vpg train` takes `sb3-vpg train --env NAME`, and
`python benchmarks/variance.py` makes a picture. `python -m sb3_vpg` is the same.

````{grid-item-card} Card
```bash
A=1 sb3-vpg optimize --env X \\
    -n 5    # a comment
cd here && sb3-vpg compare | less
```
````

:::{card}
```python
import sb3_vpg
print("card")
```
:::

```{code-cell} ipython3
not_run()
```

```{code-block} python
:caption: x

if True:

    print("directive")
```

1. A list:

   ```yaml
   # my.yml
   a: 1
   ```

```text
not run
```

```console
$ not run
```
"""


def test_blocks_and_commands_are_found(tmp_path: Path) -> None:
    """Items of directives, lists and text are found with their lines; names of commands and code cells are not items."""
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    found = [(item.line, item.kind, item.text) for item in items(page)]
    assert [(line, kind) for line, kind, _ in found] == [
        (3, "command"),
        (3, "command"),
        (8, "command"),
        (10, "command"),
        (10, "mistake"),
        (16, "block"),
        (28, "block"),
        (36, "file"),
        (45, "mistake"),
    ]
    texts = [text for _, _, text in found]
    assert texts[:4] == [
        "sb3-vpg train --env CartPole-v1",
        "python benchmarks/variance.py",
        "A=1 sb3-vpg optimize --env X -n 5",
        "cd here",
    ]
    assert texts[5:8] == ['import sb3_vpg\nprint("card")\n', 'if True:\n\n    print("directive")\n', "# my.yml\na: 1\n"]
    command = parse(items(page)[2])
    assert command.environment == (("A", "1"),)
    assert command.arguments[:4] == ("--env", "X", "-n", "5")
    assert "--n-trials" in command.arguments


def test_an_item_that_needs_a_long_one_is_long(tmp_path: Path) -> None:
    """A command that reads a file of a long one cannot run without it."""
    page = tmp_path / "page.md"
    page.write_text("```bash\nsb3-vpg train --track -f logs/a\nsb3-vpg evaluate -f logs/a\nsb3-vpg evaluate -f logs/b\n```\n")
    of_page = items(page)
    assert long_items(of_page) == set(of_page[:2])
