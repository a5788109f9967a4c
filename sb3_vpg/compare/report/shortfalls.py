"""Where the first algorithm of a comparison loses: said in sentences, because nobody looks for that in a table."""

from itertools import groupby

import numpy as np

from sb3_vpg.compare.report import stats
from sb3_vpg.compare.report.stats import Estimate
from sb3_vpg.compare.report.tables import EnvScores, form, seconds_text
from sb3_vpg.compare.results import Comparison, label, points


def shortfalls(comparison: Comparison, scores: dict[str, dict[str, EnvScores]]) -> list[str]:
    """
    :param comparison: of algorithms
    :param scores: by environment and algorithm
    :return: a sentence for each environment and measure in which another algorithm is better than the first: the score of the
        finished agents, the area under the curve, the curve at some of its points, the CPU seconds
    """
    first, sentences = comparison.algos[0], []
    for env_id, found in scores.items():
        if first not in found:
            others_have = f", but {' and '.join(map(label, found))}" if found else ""
            sentences.append(f"{env_id}: {label(first)} has no finished run{others_have}")
            continue
        ours = found[first]
        others = {algo: one for algo, one in found.items() if algo != first}
        above = [
            ("final return", _above(ours.final, {algo: one.final for algo, one in others.items()}), ours.final),
            ("area under the curve", _above(ours.area, {algo: one.area for algo, one in others.items()}), ours.area),
        ]
        for name, named, own in above:
            if named:
                sentences.append(f"{env_id}, {name}: {label(first)} {own.text(form([own.point]))}, below {'; '.join(named)}")
        sentences += [f"{env_id}, learning curve: {text}" for text in _behind(comparison, env_id, list(others))]
        sentences += [f"{env_id}, CPU seconds: {text}" for text in _slower(label(first), ours, others)]
    return sentences


def _above(ours: Estimate, others: dict[str, Estimate]) -> list[str]:
    digits = form([ours.point])
    above = {algo: one for algo, one in others.items() if one.point > ours.point}
    return [f"{label(algo)} {one.text(digits)}{_apart(ours, one)}" for algo, one in above.items()]


def _apart(ours: Estimate, theirs: Estimate) -> str:
    if ours.high is None or theirs.low is None:
        return ""
    return " (intervals apart)" if theirs.low > ours.high else " (intervals overlap)"


def _behind(comparison: Comparison, env_id: str, others: list[str]) -> list[str]:
    """:return: of which algorithms the first is behind, and at which steps"""

    def middle(algo: str) -> tuple[np.ndarray, np.ndarray]:
        runs = comparison.of(algo, env_id)
        found = stats.iqm_points(np.array([comparison.curve(record) for record in runs]))
        return points(runs[0].task.n_timesteps), found

    first = comparison.algos[0]
    steps, ours = middle(first)
    named = []
    for algo in others:
        their_steps, theirs = middle(algo)
        behind = np.interp(steps, their_steps, theirs) > ours
        behind &= steps <= their_steps[-1]
        named += [f"{label(algo)} at {spans}" for spans in [_spans(steps, behind)] if spans]
    return [f"{label(first)} is behind {'; '.join(named)}"] if named else []


def _spans(steps: np.ndarray, chosen: np.ndarray) -> str:
    """:return: runs of neighbouring steps"""
    found = []
    for is_chosen, group in groupby(zip(steps, chosen, strict=True), key=lambda pair: bool(pair[1])):
        if is_chosen:
            ends = [int(step) for step, _ in group]
            found.append(f"{ends[0]:,}" if len(ends) == 1 else f"{ends[0]:,} to {ends[-1]:,}")
    return f"{', '.join(found)} steps" if found else ""


def _slower(first: str, ours: EnvScores, others: dict[str, EnvScores]) -> list[str]:
    """:return: which algorithms take less on one kind of machine or more: to the second, as the table has them"""

    def is_faster(theirs: EnvScores) -> bool:
        pairs = zip(theirs.seconds, ours.seconds, strict=True)
        return any(their is not None and own is not None and round(their) < round(own) for their, own in pairs)

    named = [f"{label(algo)} {seconds_text(one.seconds)}" for algo, one in others.items() if is_faster(one)]
    return [f"{first} {seconds_text(ours.seconds)}, more than {', '.join(named)}"] if named else []
