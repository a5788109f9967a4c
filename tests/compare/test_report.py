"""The report of a comparison: a page that needs no other file, the same as Markdown, and all failures and losses."""

import base64
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from comparison_results import comparison, drawn

from sb3_vpg.compare.report import pages as report
from sb3_vpg.compare.report import stats
from sb3_vpg.compare.results import Comparison
from sb3_vpg.compare.score_normalization import Reference


@pytest.fixture(autouse=True, scope="module")
def _few_draws() -> Iterator[None]:
    """Few bootstrap samples: these tests do not depend on the precision of an interval."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stats, "_REPS", 50)
        yield


def written(found: Comparison, folder: Path) -> tuple[str, str]:
    report.write(found, folder, "sb3-vpg compare --envs <A> & B")
    return read(folder)


def read(folder: Path) -> tuple[str, str]:
    return (folder / report.HTML).read_text(), (folder / report.MARKDOWN).read_text()


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a report of a complete comparison."""
    folder = tmp_path_factory.mktemp("usual")
    written(comparison(drawn()), folder)
    return folder


class Page(HTMLParser):
    """Collects the addresses that a browser would load, and the texts of all table cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.cells: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        self.sources += [value for name in ("src", "href") if (value := known.get(name)) is not None]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, "the page is not well-formed"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "td":
            self.cells.append(data)


def test_the_page_needs_no_other_file(usual: Path) -> None:
    page, _ = read(usual)
    parsed = Page(page)
    assert parsed.open == []
    pictures = [source for source in parsed.sources if not source.startswith("#")]
    assert len(pictures) == 5
    for source in pictures:
        kind, _, data = source.partition(",")
        assert kind == "data:image/png;base64"
        assert base64.b64decode(data).startswith(b"\x89PNG")
    assert not re.search(r"@import|url\(|<script", page)
    assert "--envs &lt;A&gt; &amp; B" in page


def test_page_and_markdown_have_the_same_numbers(usual: Path) -> None:
    found = comparison(drawn())
    page, twin = read(usual)
    rows = [line.strip("|").split("|") for line in twin.splitlines() if line.startswith("| ") and "---" not in line]
    heads = [cells for cells, after in zip(rows, [*rows[1:], []], strict=True) if after]
    cells = [cell.strip().strip("*") for row in rows for cell in row]
    assert heads
    for cell in Page(page).cells:
        assert cell in cells
    for algo in ("vpg", "a2c"):
        for estimate in stats.aggregates(found.final(algo)).values():
            assert estimate.text() in twin
    assert stats.improvement(found.final("vpg"), found.final("a2c")).text() in twin
    for picture in re.findall(r"!\[.*?\]\((.*?)\)", twin):
        assert (usual / picture).is_file()


def test_the_same_scores_make_the_same_files(usual: Path, tmp_path: Path) -> None:
    written(comparison(drawn()), tmp_path)
    names = sorted(path.name for path in usual.iterdir())
    assert len(names) == 7
    for name in names:
        assert (usual / name).read_bytes() == (tmp_path / name).read_bytes(), name


def test_losses_of_the_first_algorithm_are_listed(tmp_path: Path) -> None:
    """The first algorithm is far below the other on Acrobot, and above it on CartPole."""
    worse = comparison(lambda algo, env_id, seed: 100.0 + seed - 50 * ((algo == "vpg") == (env_id == "Acrobot-v1")))
    _, twin = written(worse, tmp_path)
    lost = lost_of(twin)
    assert "Acrobot-v1, final return" in lost
    assert "Acrobot-v1, learning curve: VPG is behind A2C at 150 to 1,000 steps" in lost, "the first evaluations are equal"
    assert "intervals do not overlap" in lost
    assert "CartPole-v1" not in lost
    _, twin = written(comparison(lambda algo, env_id, seed: 100.0 + (algo == "vpg")), tmp_path)
    assert "Nowhere among these runs" in twin


def lost_of(twin: str) -> str:
    return twin.partition("## Where VPG loses")[2].partition("\n## ")[0]


def test_points_of_a_curve_and_seconds_are_losses(tmp_path: Path) -> None:
    """VPG is behind at the first and seventh of ten evaluations, and slower; its finished agent is as good as the other."""
    found = comparison(lambda *which: 100.0)
    ahead, behind = [*range(10, 110, 10)], [5, 20, 30, 40, 50, 60, 65, 80, 90, 100]
    records = [
        replace(one, mean_returns=behind if one.task.algo == "vpg" else ahead, cpu_seconds=2.0 + (one.task.algo == "vpg"))
        for one in found.records
        if one.task.env_id == "CartPole-v1"
    ]
    reference = {"CartPole-v1": Reference(0.0, 100.0, "the task's own")}
    found = replace(found, records=records, env_ids=["CartPole-v1"], references=reference)
    lost = lost_of(written(found, tmp_path)[1])
    assert "VPG is behind A2C at 50 to 150, 650 to 750 steps" in lost, "read at every 50 steps"
    assert "CPU seconds: VPG 3, more than A2C 2" in lost
    assert "final return" not in lost.partition("\n- ")[2]


def test_an_environment_without_a_result_is_a_loss(tmp_path: Path) -> None:
    scores = drawn(better=1000.0)
    found = comparison(
        lambda algo, env_id, seed: None if (algo, env_id) == ("vpg", "Acrobot-v1") else scores(algo, env_id, seed)
    )
    assert "Acrobot-v1: VPG has no finished run, unlike A2C" in written(found, tmp_path)[1]
    nothing = comparison(lambda *which: None)
    assert "Acrobot-v1: VPG has no finished run\n" in lost_of(written(nothing, tmp_path)[1])
    alone = replace(nothing, algos=["vpg"])
    assert "Where VPG loses" not in written(alone, tmp_path)[1], "there is no other algorithm"


def test_trained_steps_and_unequal_budgets_are_reported(tmp_path: Path) -> None:
    found = comparison(drawn())
    longer = [replace(one, num_timesteps=1000 + one.task.seed) for one in found.records]
    _, twin = written(replace(found, records=longer), tmp_path)
    assert twin.count("| 1,000 to 1,005 |") == 4
    assert "different numbers of steps" not in twin
    bold = twin.count("**")
    more = [replace(one, task=replace(one.task, n_timesteps=2000)) if one.task.algo == "a2c" else one for one in found.records]
    _, twin = written(replace(found, records=more), tmp_path)
    assert "different numbers of steps" in twin
    assert twin.count("**") == bold - 4, "on two environments the best area is no longer bold"


def test_seconds_are_reported_for_each_machine(tmp_path: Path) -> None:
    """A median over two machines would be the time of neither. An algorithm that is slower on either loses."""
    found = comparison(drawn())
    on_two = [
        replace(one, where="Machine: the other  \nPython", cpu_seconds=20.0 + (one.task.algo == "vpg"))
        if one.task.seed
        else one
        for one in found.records
    ]
    _, twin = written(replace(found, records=on_two), tmp_path)
    assert "used 2 kinds of machine; seconds are given for each: (1) a test; (2) the other." in twin
    assert "20 runs of seeds 1, 2, 3, 4, 5: Machine: the other Python" in twin
    assert "4 runs of seeds 0: Machine: a test" in twin
    assert "CPU s (median, machine 1 / 2)" in twin
    assert twin.count("| 2 / 21 | 3 / 3 |") == 2
    assert "CPU seconds: VPG 2 / 21, more than A2C 2 / 20 on at least one machine" in lost_of(twin)


def test_the_output_of_a_failed_run_is_escaped(tmp_path: Path) -> None:
    failures = {"a2c-CartPole-v1-0": "<class 'int'> ![x](http://nowhere)"}
    page, twin = written(comparison(drawn(), failures=failures), tmp_path)
    assert "```text\n<class 'int'> ![x](http://nowhere)\n```" in twin
    assert "&lt;class" in page
    assert Page(page).open == []


def test_missing_and_failed_runs_and_few_seeds_are_reported(tmp_path: Path) -> None:
    scores = drawn()
    gone = {("vpg", "Acrobot-v1", 1), ("a2c", "CartPole-v1", 0)}
    failures = {"a2c-CartPole-v1-0": "a2c-CartPole-v1-0: out of memory (see output/a2c-CartPole-v1-0.log)"}
    _, twin = written(
        comparison(lambda *which: None if which in gone else scores(*which), n_seeds=5, failures=failures), tmp_path
    )
    assert "18 of 20 runs are finished" in twin
    assert "Fewer than 5 complete seeds, so no intervals over all environments: VPG, A2C" in twin
    assert "1 run not finished yet: vpg-Acrobot-v1-1" in twin
    assert "1 run failed" in twin
    assert "out of memory (see output/a2c-CartPole-v1-0.log)" in twin
    assert "(too few runs)" in twin


@pytest.mark.parametrize("n_finished", [0, 1])
def test_a_report_of_few_runs(n_finished: int, tmp_path: Path) -> None:
    found = comparison(lambda algo, env_id, seed: 90.0 if algo == "a2c" and seed < n_finished else None)
    page, twin = written(found, tmp_path)
    assert f"{2 * n_finished} of 24 runs are finished" in twin
    assert Page(page).open == []


def test_an_entry_with_settings_is_not_called_default(tmp_path: Path) -> None:
    """A peer that nobody has tuned loses for another reason: its entry says so."""
    found = comparison(drawn(), n_seeds=1)
    records = [
        replace(record, task=replace(record.task, entry=record.task.entry | {"gamma": 0.98})) for record in found.records
    ]
    mixed = [new if new.task.algo == "vpg" else old for old, new in zip(found.records, records, strict=True)]
    _, twin = written(replace(found, records=mixed), tmp_path)
    assert "VPG on CartPole-v1: made for 2,000 steps, trained for 1,000</summary>" in twin
    assert "A2C on CartPole-v1: made for 2,000 steps, trained for 1,000; the algorithm's defaults" in twin


def test_the_report_shows_steps_and_hyperparameters_of_every_entry(usual: Path) -> None:
    _, twin = read(usual)
    assert twin.count("made for 2,000 steps, trained for 1,000") == 4
    assert twin.count("trained for 1,000; the algorithm's defaults, which are not tuned") == 4
    assert "policy: MlpPolicy" in twin
    assert "\nMachine: a test" in twin
    assert "kinds of machine" not in twin
