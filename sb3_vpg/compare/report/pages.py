"""Writes the report of a comparison: an HTML page that contains its figures, and the same as Markdown with PNG files."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from sb3_vpg.common.atomic_files import atomic_write
from sb3_vpg.compare.report import explanations, stats, tables
from sb3_vpg.compare.report.figures import Figures
from sb3_vpg.compare.report.shortfalls import shortfalls
from sb3_vpg.compare.report.stats import MIN_RUNS, Estimate
from sb3_vpg.compare.report.tables import Table
from sb3_vpg.compare.results import Comparison, label

HTML, MARKDOWN = "report.html", "report.md"
_NOT_TUNED = {"policy", "n_timesteps", "normalize", "n_envs", "env_kwargs"}
"""Settings that an entry has even if it leaves the algorithm at its defaults."""


@dataclass(frozen=True)
class Section:
    """
    :param title: heading
    :param text: a paragraph
    :param picture: name of a figure
    :param alt: alternative text of the figure
    :param table: a table
    :param lines: items of a list
    :param plain: True if the first row of the table is not to be highlighted
    """

    title: str
    text: str = ""
    picture: str | None = None
    alt: str = ""
    table: Table | None = None
    lines: Sequence[str] = field(default_factory=list)
    plain: bool = False


def write(comparison: Comparison, folder: Path, command: str) -> None:
    """
    Write the HTML page, the Markdown file and the figures to a folder.

    :param comparison: the results
    :param folder: folder for the files
    :param command: the command that the report shows
    """
    # Computed once for figures and tables, because the bootstrap is slow
    finals = {algo: comparison.final(algo) for algo in comparison.algos if comparison.complete_seeds(algo)}
    overall = {algo: stats.aggregates(scores) for algo, scores in finals.items()}
    ours = finals.pop(comparison.algos[0], None)
    improvements = {} if ours is None else {algo: stats.improvement(ours, theirs) for algo, theirs in finals.items()}
    pictures = Figures(comparison, overall, improvements).all()
    content: dict[str, Any] = {
        "title": _title(comparison),
        "summary": _summary(comparison),
        "notes": _notes(comparison),
        "sections": _sections(comparison, overall, improvements),
        "entries": _entries(comparison),
        "failures": list(comparison.failures.values()),
        "hyperparameters": explanations.HYPERPARAMETERS,
        "command": command,
        "folder": explanations.FOLDER,
        "machines": _machines(comparison),
        "images": {name: base64.b64encode(png).decode() for name, png in pictures.items()},
    }
    environment = Environment(
        loader=PackageLoader("sb3_vpg.compare.report"),
        autoescape=select_autoescape(["html.j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    files = {f"{name}.png": png for name, png in pictures.items()}
    files |= {name: environment.get_template(f"{name}.j2").render(content).encode() for name in (HTML, MARKDOWN)}
    for name, data in files.items():
        with atomic_write(folder / name) as file:
            file.write(data)


def _title(comparison: Comparison) -> str:
    names = [label(algo) for algo in comparison.algos]
    return f"{names[0]} compared with {', '.join(names[1:])}" if len(names) > 1 else names[0]


def _summary(comparison: Comparison) -> str:
    algos, envs, seeds = len(comparison.algos), len(comparison.env_ids), len(comparison.seeds)
    counts = f"{_count(algos, 'algorithm')} on {_count(envs, 'environment')} with {_count(seeds, 'seed')} each"
    finished = f"{len(comparison.records)} of {algos * envs * seeds} runs are finished"
    return f"{counts}: {finished}. Intervals: 95 %, stratified bootstrap over runs."


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _notes(comparison: Comparison) -> list[str]:
    """:return: warnings about missing runs and unequal conditions, for the top of the report"""
    notes = []
    few = [label(algo) for algo in comparison.algos if len(comparison.complete_seeds(algo)) < MIN_RUNS]
    if few:
        notes.append(f"Fewer than {MIN_RUNS} complete seeds, so no intervals over all environments: {', '.join(few)}.")
    missing, failed = comparison.missing(), comparison.failures
    if failed:
        notes.append(f"{_count(len(failed), 'run')} failed (not in the results): see Failed runs.")
    if missing:
        shown = ", ".join(missing[:5]) + (", …" if len(missing) > 5 else "")
        notes.append(f"{_count(len(missing), 'run')} not finished yet: {shown}. To continue, run the same command.")
    if any(len(comparison.budgets(env_id)) > 1 for env_id in comparison.env_ids):
        notes.append(
            "The algorithms had different numbers of steps, those of their own hyperparameters. More steps are an advantage "
            "in all results. Areas and percentages of the steps refer to each algorithm's own steps."
        )
    if len(comparison.machines) > 1:
        names = "; ".join(f"({number}) {name}" for number, name in enumerate(comparison.machines, 1))
        notes.append(f"The runs used {len(comparison.machines)} kinds of machine; seconds are given for each: {names}.")
    uneven = [label(algo) for algo in comparison.algos if _is_uneven(comparison, algo)]
    if uneven:
        notes.append(f"Results over all environments use only seeds that finished on each of them: {', '.join(uneven)}.")
    return notes


def _machines(comparison: Comparison) -> list[str]:
    """:return: a line for each machine with its versions; if there are several, with the number and seeds of its runs"""
    seeds: dict[str, list[int]] = {}
    for record in comparison.records:
        seeds.setdefault(" ".join(record.where.split()), []).append(record.task.seed)
    if len(seeds) < 2:
        return list(seeds)
    return [
        f"{_count(len(numbers), 'run')} of seeds {', '.join(map(str, sorted(set(numbers))))}: {where}"
        for where, numbers in sorted(seeds.items())
    ]


def _is_uneven(comparison: Comparison, algo: str) -> bool:
    complete = len(comparison.complete_seeds(algo))
    return any(len(comparison.of(algo, env_id)) != complete for env_id in comparison.env_ids)


def _sections(
    comparison: Comparison, overall: dict[str, dict[str, Estimate]], improvements: dict[str, Estimate]
) -> list[Section]:
    first, sections = label(comparison.algos[0]), []
    scores = {env_id: tables.env_scores(comparison, env_id) for env_id in comparison.env_ids}
    if overall:
        alt = "intervals of four aggregates; " + _alt({algo: estimates["IQM"] for algo, estimates in overall.items()}, "IQM")
        table = tables.aggregates(comparison, overall)
        sections.append(Section("Over all environments", explanations.OVERALL, "aggregates", alt, table))
    sections.append(Section("Final returns", explanations.FINALS, table=tables.final_returns(comparison, scores), plain=True))
    alt = "learning curves of each environment"
    sections.append(Section("Learning curves", explanations.CURVES, "learning_curves", alt))
    if len(comparison.algos) > 1:
        lines = shortfalls(comparison, scores)
        text = explanations.LOSSES.format(first=first) if lines else "Nowhere among these runs."
        sections.append(Section(f"Where {first} loses", text, lines=lines))
    for number, (env_id, by_algo) in enumerate(scores.items()):
        # The first table has the explanation of all
        text = "" if number else explanations.TABLES
        sections.append(Section(env_id, text, table=tables.of_environment(comparison, env_id, by_algo)))
    if overall:
        alt = "sample-efficiency curves"
        sections.append(Section("Sample efficiency", explanations.EFFICIENCY, "sample_efficiency", alt))
        sections.append(Section("Performance profiles", explanations.PROFILES, "profiles", "performance profiles"))
    if improvements:
        table = tables.improvement(comparison.algos[0], improvements)
        alt = _alt(improvements, f"probability that {first} scores higher than")
        sections.append(Section("Probability of improvement", explanations.IMPROVEMENT, "improvement", alt, table, plain=True))
    sections.append(Section("References", explanations.REFERENCES, table=tables.references(comparison), plain=True))
    return sections


def _alt(estimates: dict[str, Estimate], measure: str) -> str:
    return f"{measure} {', '.join(f'{label(algo)} {estimate.text()}' for algo, estimate in estimates.items())}"


def _entries(comparison: Comparison) -> list[dict[str, str]]:
    """:return: title and YAML text of the hyperparameters of each algorithm on each environment"""
    entries = []
    for env_id in comparison.env_ids:
        for algo in comparison.algos:
            runs = comparison.of(algo, env_id)
            if runs:
                task = runs[0].task
                tuned = int(float(task.entry["n_timesteps"]))
                title = f"{label(algo)} on {env_id}: made for {tuned:,} steps, trained for {task.n_timesteps:,}"
                title += "" if task.entry.keys() - _NOT_TUNED else "; the algorithm's defaults, which are not tuned"
                entries.append({"title": title, "text": yaml.safe_dump(task.entry, sort_keys=True).strip()})
    return entries
