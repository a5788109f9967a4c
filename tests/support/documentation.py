"""
Finds the Python blocks and the commands of the documentation pages, and shortens what they run.

- A ``python`` block runs, and so does each command of a ``bash`` block. Blocks inside MyST directives (grids, cards, tabs)
  count; code cells do not, because the site's build executes them.
- A block of any language whose first line is a comment with a file's name (``# my_envs.py``) is that file.
- A command in the text, as `` `sb3-vpg evaluate --env CartPole-v1` ``, runs if it is complete: it has arguments, and none of
  them is a placeholder such as ``NAME`` or ``…``.
"""

import re
import shlex
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from markdown_it import MarkdownIt

from sb3_vpg.zoo.cli import COMMANDS

ROOT = Path(__file__).parents[2]
HERE = "tests/support/documentation.py"

BEFORE = {
    "push_to_hub": "--local-hub hub",
    "load_from_hub": "--local-hub hub",
    **{name: "--savefig plot.png" for name, command in COMMANDS.items() if command.plots},
}
"""Flags put before the page's, which may replace them: a folder instead of the hub, a file instead of a window."""
AFTER = {
    # all_plots of the zoo fails if there is one run, and one episode in each evaluation
    "train": "-n 512 --eval-freq 256 --eval-episodes 2 --save-freq 512 --verbose 0",
    "optimize": "-n 256 --n-trials 2 --n-evaluations 1 --eval-episodes 1 --verbose 0",
    "evaluate": "-n 3",
    "enjoy": "--no-render -n 50",
    "export": "-n 20",
    "record_video": "-n 30",
    "record_training": "-n 30",
    "benchmark": "-n 2",
    "push_to_hub": "-n 12 --n-eval-episodes 2",
    "load_from_hub": "",
    "compare": "--seeds 1 -n 256 --n-evaluations 1 --eval-episodes 1 --final-episodes 1",
    "best_entry": "",
    "plot_train": "",
    "all_plots": "",
    "plot_from_file": "",
    "rl_zoo3.train": "-n 512 --eval-freq -1 --verbose 0",
    "rl_zoo3.enjoy": "--no-render -n 50",
    "make": "--dry-run",
    "benchmarks/": "--quick",
    "benchmarks/ten_seeds.py": "--seeds 1",
    "benchmarks/reinforce_notebook.py": "--report",
    "examples/": "",
    "examples/reinforce_notebook.py": "--episodes 20",
    "examples/random_weights_notebook.py": "--quick",
    "scripts/train_agents.py": "--envs CartPole-v1 --unsolved",
}
"""Flags put after the page's, so that they replace them: small budgets. Of a program, the most specific entry counts."""
NOT_RUN = {
    "pip": "installs packages, and the tests must need no network",
    "torchrun": "starts several processes; tests/distributed and tests/examples do",
    "python benchmarks/gpu.py": "needs a CUDA device",
    "python -m pytest": "the tests run anyway",
    "python benchmarks/variance.py": "has no --quick; tests/benchmarks/test_variance.py runs its parts",
    "python scripts/make_notebook.py": "executes the lessons for minutes, and so does the site's build",
}
"""What does not run, with the reason: the first words of commands, or ``page: first words`` of an item."""
REQUIRED = {"compare": "--envs", "push_to_hub": "-orga", "load_from_hub": "-orga", "best_entry": "--storage"}
"""Flags without which a command in the text is not complete."""
IN_NEW_PROCESS = {
    "record_video": "loads a window library",
    "record_training": "loads a window library",
    "--track": "wandb patches other libraries",
}
"""Commands and flags that must not run in the tests' own process."""
LONG = {
    **IN_NEW_PROCESS,
    "export": "imports what writes ONNX files",
    "push_to_hub": "films",
    "load_from_hub": "follows push_to_hub",
    "sac": "learns at each step",
}
"""
Commands and flags that take more than about two seconds. So do programs of ``python``, and ``compare`` with several
environments or on a cluster.
"""
_FILE_NAME = re.compile(r"# (\w[\w./-]*\.\w+)\s*$", re.MULTILINE)
_PLACEHOLDER = re.compile(r"(^|=)[A-Z][A-Z_]*$|…|\.\.\.")


@dataclass(frozen=True)
class Item:
    """
    Something that a page asks the reader to run.

    :param page: the file
    :param line: where it is, counted from 1
    :param kind: ``"block"`` of Python, ``"file"`` to write, ``"command"``, or ``"mistake"`` of the page
    :param text: the code, the command as one line, or the sentence that says what to do
    """

    page: Path
    line: int
    kind: str
    text: str

    @property
    def where(self) -> str:
        """The page and the line, as an editor opens them."""
        return f"{self.page.relative_to(ROOT).as_posix()}:{self.line}"

    @property
    def first_words(self) -> str:
        """The first words that say what it does: of Python, not the imports."""
        lines = [line.strip() for line in self.text.splitlines() if line.strip()]
        if self.kind == "block":
            lines = [line for line in lines if not line.startswith(("#", "import ", "from "))] or lines
        return lines[0][:60].strip()

    @property
    def file_name(self) -> str:
        """The name in the first line of a block that is a file."""
        match = _FILE_NAME.match(self.text)
        assert match is not None
        return match[1]

    def not_run(self) -> str | None:
        """Return the key of ``NOT_RUN`` that means this item."""
        start = f"{self.page.relative_to(ROOT).as_posix()}: {self.first_words}"
        keys = (key for key in NOT_RUN if start.startswith(key) or f"{self.text} ".startswith(f"{key} "))
        return next(keys, None)


@dataclass(frozen=True)
class Command:
    """
    :param words: program and arguments
    :param environment: variables that are set before the program's name
    """

    words: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]

    @property
    def own(self) -> bool:
        """Whether it is one of ``sb3-vpg``."""
        return self.words[0] == "sb3-vpg" or self.words[:3] == ("python", "-m", "sb3_vpg")

    @property
    def n_names(self) -> int:
        """The number of words before the arguments: program, module or path, command of ``sb3-vpg``."""
        number = 1 if self.words[0] != "python" else 3 if self.words[1:2] == ("-m",) else 2
        return number + (self.own and len(self.words) > number and not self.words[number].startswith("-"))

    @property
    def name(self) -> str:
        """What ``BEFORE`` and ``AFTER`` call it: a command of ``sb3-vpg``, a module, or a path."""
        name = self.words[self.n_names - 1]
        return name.replace("-", "_") if self.own else name

    @property
    def arguments_of_page(self) -> tuple[str, ...]:
        """The words after the names."""
        return self.words[self.n_names :]

    @property
    def arguments(self) -> tuple[str, ...]:
        """These, with the flags that make the command short. Raise LookupError if no table has them."""
        given = self.arguments_of_page
        if self.name in ("sb3_vpg", "sb3-vpg"):
            return given
        keys = [key for key in AFTER if key == self.name or (key.endswith("/") and self.name.startswith(key))]
        if not keys:
            raise LookupError(f"how is {self.name!r} made short? Add it to AFTER in {HERE}, or to NOT_RUN with the reason")
        return (*shlex.split(BEFORE.get(self.name, "")), *given, *shlex.split(AFTER[max(keys, key=len)]))


def pages() -> list[Path]:
    """Return the pages of the documentation, also those of folders in ``docs``, but not what a build of the site wrote."""
    inside = [path.relative_to(ROOT) for path in sorted((ROOT / "docs").rglob("*.md"))]
    written = [path for path in inside if not any(part[0] in "._" for part in path.parts)]
    return [ROOT / path for path in (Path("README.md"), Path("CONTRIBUTING.md"), *written)]


def items(page: Path) -> list[Item]:
    """Return what a page asks the reader to run, in the page's order."""
    return list(_items(page, page.read_text(), 0))


def _items(page: Path, text: str, offset: int) -> Iterator[Item]:
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        first = offset + token.map[0] + 1 if token.map else 0
        if token.type == "fence":
            yield from _of_fence(page, token.info.strip(), token.content, first + 1)
        for child in token.children or ():
            if child.type == "code_inline" and _is_complete(child.content):
                yield Item(page, first, "command", child.content)


def _of_fence(page: Path, info: str, content: str, first: int) -> Iterator[Item]:
    """:param first: the line of the page on which the content begins"""
    directive, _, argument = info.partition("}")
    if directive in ("{code-block", "{code", "{sourcecode"):
        info = argument.strip()
        code = re.sub(r"\A(?:(?::[\w-]+:.*|\s*)\n)*", "", content)
        first += content.count("\n") - code.count("\n")
        content = code
    elif info.startswith("{code-cell}"):
        return
    elif info.startswith("{"):
        yield from _items(page, content, first - 1)
        return
    language = info.split()[0] if info else ""
    if language in ("sh", "shell", "console", "py", "python3"):
        yield Item(page, first, "mistake", f"a block of {language!r} does not run: write ```bash or ```python, or ```text")
    elif _FILE_NAME.match(content):
        yield Item(page, first, "file", content)
    elif language == "python":
        yield Item(page, first, "block", content)
    elif language == "bash":
        yield from _commands(page, content, first)


def _commands(page: Path, block: str, first: int) -> Iterator[Item]:
    """The commands of a block; a line that ends in a backslash goes on in the next."""
    for match in re.finditer(r"(?:.*\\\n)*.+", block):
        line = first + block[: match.start()].count("\n")
        try:
            words = [*_split(match[0].replace("\\\n", " ")), "&&"]
        except ValueError as error:
            yield Item(page, line, "mistake", f"{error}: {match[0]}")
            continue
        while words:
            end = words.index("&&")
            strange = [word for word in words[:end] if re.fullmatch(r"[();<>|&]+", word) or "$" in word]
            if strange:
                yield Item(page, line, "mistake", f"{strange[0]!r} needs a shell: write plain commands, or ```text")
            elif end:
                yield Item(page, line, "command", shlex.join(words[:end]))
            words = words[end + 1 :]


def _split(line: str) -> list[str]:
    """:return: the words of a line of shell, without its comment"""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    return list(lexer)


def parse(item: Item) -> Command:
    """Return the command of an item."""
    words = _split(item.text)
    n_variables = next(index for index, word in enumerate(words) if not re.match(r"\w+=", word))
    variables = (word.partition("=") for word in words[:n_variables])
    return Command(tuple(words[n_variables:]), tuple((name, value) for name, _, value in variables))


def _is_complete(text: str) -> bool:
    """:return: whether code in the text is a command to run, not only a name or a pattern of one"""
    if not re.match(r"(sb3-vpg|python) \S", text):
        return False
    words = text.split()
    command = Command(tuple(words), ())
    given = words[1 if words[0] == "python" and words[1].endswith(".py") else command.n_names :]
    is_pattern = any(_PLACEHOLDER.search(word) for word in given)
    return bool(given) and not is_pattern and REQUIRED.get(command.name, given[0]) in given


def repeated_items(of_pages: Collection[Sequence[Item]]) -> dict[Item, Item]:
    """Return the repository's programs that an earlier page runs, too, with its item: they do not depend on the page."""
    first: dict[str, Item] = {}
    for item in chain.from_iterable(of_pages):
        if re.match(r"python (benchmarks|examples|scripts)/", item.text):
            first.setdefault(item.text, item)
    return {item: first[item.text] for item in chain.from_iterable(of_pages) if first.get(item.text, item) != item}


def long_items(of_page: Sequence[Item]) -> set[Item]:
    """
    Return the items that take more than about two seconds, and those that need a file of them.

    :param of_page: all items of a page
    """
    found: set[Item] = set()
    files: set[str] = set()
    for item in of_page:
        if _is_long(item) or any(file in item.text for file in files):
            found.add(item)
            words = parse(item).arguments_of_page if item.kind == "command" else ()
            files |= {word for word in words if re.search(r"\w[./]\w", word)}
    return found


def _is_long(item: Item) -> bool:
    if item.kind != "command":
        return False
    command = parse(item)
    if command.name == "compare":
        of_envs = " ".join(command.words).partition("--envs ")[2].partition(" -")[0]
        return len(of_envs.split()) > 1 or "ray" in command.words
    return (command.words[0] == "python" and not command.own) or bool({command.name, *command.words} & LONG.keys())
