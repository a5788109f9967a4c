"""Sentences about every measure in which the first algorithm of a comparison is not the best."""

from itertools import groupby

import numpy as np

from sb3_vpg.compare.report import stats
from sb3_vpg.compare.report.stats import Estimate
from sb3_vpg.compare.report.tables import EnvScores, number_format, seconds_text
from sb3_vpg.compare.results import Comparison, label, points


def shortfalls(comparison: Comparison, scores: dict[str, dict[str, EnvScores]]) -> list[str]:
    """
    Find the measures in which another algorithm is better than the first.

    :param comparison: the results
    :param scores: by environment and algorithm
    :return: a sentence for each environment and measure: final return, area under the curve, points of the learning curve,
        CPU seconds
    """
    first, sentences = comparison.algos[0], []
    for env_id, by_algo in scores.items():
        if first not in by_algo:
            others_have = f", unlike {' and '.join(map(label, by_algo))}" if by_algo else ""
            sentences.append(f"{env_id}: {label(first)} has no finished run{others_have}")
            continue
        ours = by_algo[first]
        others = {algo: theirs for algo, theirs in by_algo.items() if algo != first}
        measures = [
            ("final return", ours.final, {algo: theirs.final for algo, theirs in others.items()}),
            ("area under the curve", ours.area, {algo: theirs.area for algo, theirs in others.items()}),
        ]
        for name, own, of_others in measures:
            sentences += [f"{env_id}, {name}: {label(first)} {text}" for text in _below(own, of_others)]
        sentences += [f"{env_id}, learning curve: {text}" for text in _behind(comparison, env_id, list(others))]
        sentences += [f"{env_id}, CPU seconds: {text}" for text in _slower(label(first), ours, others)]
    return sentences


def _below(ours: Estimate, others: dict[str, Estimate]) -> list[str]:
    """:return: the estimate of the first algorithm, and those of the algorithms above it"""
    digits = number_format([ours.point])
    above = {algo: theirs for algo, theirs in others.items() if theirs.point > ours.point}
    texts = [f"{label(algo)} {theirs.text(digits)}{_overlap(ours, theirs)}" for algo, theirs in above.items()]
    return [f"{ours.text(digits)}, below {'; '.join(texts)}"] if texts else []


def _overlap(ours: Estimate, theirs: Estimate) -> str:
    if ours.high is None or theirs.low is None:
        return ""
    return " (intervals do not overlap)" if theirs.low > ours.high else " (intervals overlap)"


def _behind(comparison: Comparison, env_id: str, others: list[str]) -> list[str]:
    """:return: which learning curves are above that of the first algorithm, and at which steps"""

    def iqm_curve(algo: str) -> tuple[np.ndarray, np.ndarray]:
        runs = comparison.of(algo, env_id)
        return points(runs[0].task.n_timesteps), stats.iqm_points(np.array([comparison.curve(run) for run in runs]))

    first = comparison.algos[0]
    steps, ours = iqm_curve(first)
    ahead = []
    for algo in others:
        their_steps, theirs = iqm_curve(algo)
        # Only while the other algorithm was trained
        behind = (np.interp(steps, their_steps, theirs) > ours) & (steps <= their_steps[-1])
        if behind.any():
            ahead.append(f"{label(algo)} at {_spans(steps, behind)} steps")
    return [f"{label(first)} is behind {'; '.join(ahead)}"] if ahead else []


def _spans(steps: np.ndarray, chosen: np.ndarray) -> str:
    """:return: the chosen steps as text, neighbouring ones as a range"""
    spans = []
    for is_chosen, group in groupby(zip(steps, chosen, strict=True), key=lambda pair: bool(pair[1])):
        if is_chosen:
            ends = [int(step) for step, _ in group]
            spans.append(f"{ends[0]:,}" if len(ends) == 1 else f"{ends[0]:,} to {ends[-1]:,}")
    return ", ".join(spans)


def _slower(first: str, ours: EnvScores, others: dict[str, EnvScores]) -> list[str]:
    """:return: which algorithms take fewer CPU seconds on any machine, rounded to seconds as in the table"""

    def is_faster(theirs: EnvScores) -> bool:
        pairs = zip(theirs.seconds, ours.seconds, strict=True)
        return any(their is not None and own is not None and round(their) < round(own) for their, own in pairs)

    faster = [f"{label(algo)} {seconds_text(theirs.seconds)}" for algo, theirs in others.items() if is_faster(theirs)]
    on_machine = " on at least one machine" if len(ours.seconds) > 1 else ""
    return [f"{first} {seconds_text(ours.seconds)}, more than {', '.join(faster)}{on_machine}"] if faster else []
