"""The comparison that is committed: its report says what its raw scores say, and README what the report says."""

import re
from pathlib import Path

import numpy as np
import pytest

from sb3_vpg.compare.records import RECORDS, read
from sb3_vpg.compare.tasks import entry
from sb3_vpg.zoo.plain_yaml import read_plain

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "benchmarks/results/comparison"
REFERENCES = read_plain(FOLDER / "references.json")
TWIN = (FOLDER / "report.md").read_text()
NAMES = {"vpg": "VPG", "a2c": "A2C", "ppo": "PPO", "trpo": "TRPO", "random_search": "RandomSearch"}


def middle_half(values: list[float]) -> float:
    cut = len(values) // 4
    return float(np.mean(sorted(values)[cut : len(values) - cut]))


def row(env_id: str, algo: str) -> list[str]:
    """:return: the cells of an algorithm in the table of an environment"""
    table = TWIN.partition(f"\n## {env_id}\n")[2].partition("\n## ")[0]
    (line,) = [line for line in table.splitlines() if line.startswith(f"| {NAMES[algo]} |")]
    return [cell.strip().strip("*") for cell in line.strip("|").split("|")]


@pytest.mark.parametrize("env_id", list(REFERENCES))
def test_the_report_says_what_the_records_say(env_id: str) -> None:
    records = [record for record in read(FOLDER / RECORDS) if record.task.env_id == env_id]
    seeds = {algo: sorted(record.task.seed for record in records if record.task.algo == algo) for algo in NAMES}
    for algo in NAMES:
        finals = [float(np.mean(record.final_returns)) for record in records if record.task.algo == algo]
        _, runs, _, final, *_ = row(env_id, algo)
        assert int(runs) == len(finals) == len(seeds[algo])
        shown = float(final.split()[0])
        assert shown == pytest.approx(middle_half(finals), abs=0.05)


def test_vpg_was_run_with_the_entries_of_today() -> None:
    for record in read(FOLDER / RECORDS):
        if record.task.algo == "vpg":
            ours = dict(entry("vpg", record.task.env_id))
            assert record.task.entry == ours, record.task.name


def test_readme_says_what_the_report_says() -> None:
    section = (ROOT / "README.md").read_text().partition("\n## Comparisons\n")[2].partition("\n## ")[0]
    figures = re.findall(r"-?[\d.]+ \[-?[\d.]+, -?[\d.]+\]", section)
    assert figures
    for figure in figures:
        assert figure in TWIN, figure
