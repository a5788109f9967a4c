"""The committed comparisons: reports agree with their records, and the documentation with the reports."""

import re
from pathlib import Path

import numpy as np
import pytest

from sb3_vpg.compare.runs.records import RECORDS, read
from sb3_vpg.compare.runs.tasks import entry
from sb3_vpg.zoo.safe_yaml import read_yaml

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks/results"
SAME_BUDGET, OWN_BUDGETS, MUJOCO = RESULTS / "comparison", RESULTS / "own_budgets", RESULTS / "mujoco"
every = pytest.mark.parametrize("folder", [SAME_BUDGET, OWN_BUDGETS, MUJOCO], ids=lambda folder: folder.name)
NAMES = {"vpg": "VPG", "a2c": "A2C", "ppo": "PPO", "trpo": "TRPO", "random_search": "RandomSearch"}
COMPARED = [
    pytest.param(folder, env_id, id=f"{folder.name}-{env_id}")
    for folder in (SAME_BUDGET, OWN_BUDGETS, MUJOCO)
    for env_id in read_yaml(folder / "references.json")
]


def twin(folder: Path) -> str:
    return next(folder.rglob("report.md")).read_text()


def middle_half(values: list[float]) -> float:
    cut = len(values) // 4
    return float(np.mean(sorted(values)[cut : len(values) - cut]))


def row(folder: Path, env_id: str, algo: str) -> list[str]:
    """:return: the cells of an algorithm in the table of an environment"""
    table = twin(folder).partition(f"\n## {env_id}\n")[2].partition("\n## ")[0]
    (line,) = [line for line in table.splitlines() if line.startswith(f"| {NAMES[algo]} |")]
    return [cell.strip().strip("*") for cell in line.strip("|").split("|")]


@pytest.mark.parametrize(("folder", "env_id"), COMPARED)
def test_a_report_agrees_with_its_records(folder: Path, env_id: str) -> None:
    records = [record for record in read(folder / RECORDS) if record.task.env_id == env_id]
    for algo in dict.fromkeys(record.task.algo for record in records):
        finals = [float(np.mean(record.final_returns)) for record in records if record.task.algo == algo]
        _, runs, _, final, *_ = row(folder, env_id, algo)
        assert int(runs) == len(finals)
        assert float(final.split()[0]) == pytest.approx(middle_half(finals), abs=0.05)


@every
def test_no_run_is_missing(folder: Path) -> None:
    """Every algorithm has a record for every environment and seed, so no bad result is left out."""
    seeds: dict[tuple[str, str], list[int]] = {}
    for record in read(folder / RECORDS):
        seeds.setdefault((record.task.algo, record.task.env_id), []).append(record.task.seed)
    n_seeds = 5 if folder == OWN_BUDGETS else 10
    for which, found in seeds.items():
        assert sorted(found) == list(range(n_seeds)), which
    algos, env_ids = ({which[side] for which in seeds} for side in (0, 1))
    assert len(seeds) == len(algos) * len(env_ids)


def test_steps_are_equal_or_those_of_each_entry() -> None:
    for record in read(OWN_BUDGETS / RECORDS):
        assert record.task.n_timesteps == int(float(record.task.entry["n_timesteps"])), record.task.name
    budgets = {(record.task.env_id, record.task.n_timesteps) for record in read(SAME_BUDGET / RECORDS)}
    assert len(budgets) == len({env_id for env_id, _ in budgets})


@every
def test_vpg_was_trained_with_the_current_hyperparameters(folder: Path) -> None:
    for record in read(folder / RECORDS):
        if record.task.algo == "vpg":
            assert record.task.entry == entry("vpg", record.task.env_id), record.task.name


@pytest.mark.parametrize("page", ["README.md", "docs/comparisons.md", "docs/environments.md"])
def test_figures_of_the_documentation_stand_in_the_reports(page: str) -> None:
    text = " ".join((ROOT / page).read_text().split())
    figures = re.findall(r"-?[\d.]+ \[-?[\d.]+, -?[\d.]+\]", text)
    assert figures
    reports = "".join(map(twin, (SAME_BUDGET, OWN_BUDGETS, MUJOCO)))
    for figure in figures:
        assert figure in reports, figure


def test_sentences_of_the_documentation_agree_with_the_records() -> None:
    text = " ".join((ROOT / "docs/comparisons.md").read_text().split())
    lunar = {
        algo: [
            float(np.mean(record.final_returns))
            for record in read(SAME_BUDGET / RECORDS)
            if (record.task.algo, record.task.env_id) == (algo, "LunarLander-v3")
        ]
        for algo in NAMES
    }
    n_solved = {algo: sum(score >= 200 for score in finals) for algo, finals in lunar.items()}
    assert n_solved == {"vpg": 1, "a2c": 0, "ppo": 0, "trpo": 1, "random_search": 0}
    assert "only one run of ten of VPG and one of TRPO reach the threshold" in text
    scale = read_yaml(OWN_BUDGETS / "references.json")
    scores = [
        (float(np.mean(record.final_returns)) - scale[record.task.env_id]["random"])
        / (scale[record.task.env_id]["threshold"] - scale[record.task.env_id]["random"])
        for record in read(OWN_BUDGETS / RECORDS)
        if record.task.algo == "vpg"
    ]
    assert f"The worst of its {len(scores)} runs has a normalised score of {min(scores):.3f}" in text
    assert "LunarLander-v3, learning curve: VPG is behind PPO at 20,000 to 60,000 steps" in twin(SAME_BUDGET)
    assert "is below PPO's until 60,000 steps" in text
