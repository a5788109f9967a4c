"""The report of processes.py: its tables, its goal, and a model of more processes than were measured."""

from typing import Any

import numpy as np

from harness.measure import ratio
from harness.process_runs import OBJECTS, SUMS
from harness.report import Goal, goal_table, table

Rounds = list[list[dict[str, Any]]]
"""For each round, what each process measured: see ``harness.process_runs.train``."""
Raw = dict[str, Any]
"""``"runs"``: by environment id and by name in the report, the rounds. ``"exchange"``: by environment id, seconds of a sum and
of an object between two processes. ``"n_envs"``."""

TITLE = "One model on several processes"
ALONE, ONE, TWO = "1 process", "torchrun, 1 process", "torchrun, 2 processes"
LIMIT = "2 independent runs side by side, with half of the environments each"
NAMES = (ALONE, ONE, TWO, LIMIT)
MODELLED = (2, 8, 32, 128)
LONGER = 16
"""The model is also computed for rollouts that are this many times as long."""
GOAL_ENV, GOAL = "HalfCheetah-v4", 1.7


def rates(rounds: Rounds) -> list[float]:
    """:return: steps per second of all processes together, in each round"""
    return [sum(one["steps"] for one in processes) / max(one["seconds"] for one in processes) for processes in rounds]


def cpu_seconds(rounds: Rounds) -> list[float]:
    """:return: CPU seconds of all processes for 100,000 steps, in each round"""
    return [
        1e5 * sum(one["CPU seconds"] for one in processes) / sum(one["steps"] for one in processes) for processes in rounds
    ]


def per_iteration(rounds: Rounds, *keys: str) -> float:
    """:return: the median over rounds and processes of a number, divided by the iterations"""
    numbers = []
    for one in (process for processes in rounds for process in processes):
        number: Any = one
        for key in keys:
            number = number[key]
        numbers.append(number / one["iterations"])
    return float(np.median(numbers))


def overview(raw: Raw) -> list[str]:
    rows = []
    for env_id, runs in raw["runs"].items():
        alone = rates(runs[ALONE])
        for name in NAMES:
            measured = rates(runs[name])
            cells = [
                f"{np.median(measured):,.0f}",
                f"{ratio(measured, alone):.2f}",
                f"{np.median(cpu_seconds(runs[name])):.1f}",
            ]
            rows.append([env_id, name, *cells])
    return ["## Overview", "", *table(["", "", "steps/s", "ratio to 1 process", "CPU s for 100k steps"], rows)]


def exchange_cost(raw: Raw, env_id: str) -> float:
    """:return: seconds that two processes need for the exchanges of one iteration if none waits for the other"""
    costs, rounds = raw["exchange"][env_id], raw["runs"][env_id][TWO]
    return float(sum(per_iteration(rounds, kind, "calls") * costs[kind] for kind in (SUMS, OBJECTS)))


def exchange_table(raw: Raw) -> list[str]:
    rows = []
    for env_id, runs in raw["runs"].items():
        share, two, costs = runs[LIMIT], runs[TWO], raw["exchange"][env_id]
        spent = sum(per_iteration(two, kind, "seconds") for kind in (SUMS, OBJECTS))
        cells = [f"{1e3 * per_iteration(share, *keys):.1f}" for keys in (("rollouts", "seconds"), ("seconds",))]
        for kind in (SUMS, OBJECTS):
            cells += [f"{per_iteration(two, kind, 'calls'):.0f}", f"{1e3 * costs[kind]:.2f}"]
        cells += [f"{1e3 * exchange_cost(raw, env_id):.1f}", f"{1e3 * spent:.1f}"]
        rows.append([env_id, f"{two[0][0]['n_numbers']:,}", *cells])
    head = ["", "numbers in the policy's gradient", "rollout, ms", "iteration, ms", "sums", "ms each", "objects", "ms each"]
    return table([*head, "exchanges of an iteration, ms", "with waiting, ms"], rows)


def modelled(n_processes: int, iteration: float, cost: float, longer: float = 1.0) -> float:
    """
    :param iteration: seconds of an iteration of one process with its share of the environments, without exchanges
    :param cost: seconds of the exchanges of an iteration between two processes
    :param longer: factor of the length of rollouts
    :return: speed of so many processes, each with such a share, over that of one
    """
    return n_processes * longer * iteration / (longer * iteration + (n_processes - 1) * cost)


def model_table(raw: Raw) -> list[str]:
    rows = []
    for env_id, runs in raw["runs"].items():
        iteration, cost = per_iteration(runs[LIMIT], "seconds"), exchange_cost(raw, env_id)
        for longer in (1, LONGER):
            speeds = [modelled(number, iteration, cost, longer) for number in MODELLED]
            what = "as measured" if longer == 1 else f"{longer} times as long"
            rows.append([env_id, what, *(f"{speed:.1f}" for speed in speeds)])
    return table(["", "rollouts", *(f"{number} processes" for number in MODELLED)], rows)


def goals(raw: Raw) -> list[str]:
    """:return: the lines of the goal, and the limit of the machine beside it; none in a quick run without this task"""
    if GOAL_ENV not in raw["runs"]:
        return []
    runs = raw["runs"][GOAL_ENV]
    two, limit = (ratio(rates(runs[name]), rates(runs[ALONE])) for name in (TWO, LIMIT))
    said = f"Two independent runs reach {limit:.2f}: this machine has no more to give two processes."
    return [*goal_table([Goal(f"{GOAL_ENV}: 2 processes / 1", two, GOAL)]), said, ""]


def report(raw: Raw) -> list[str]:
    """:return: the lines of the report"""
    n_envs, n_rounds = raw["n_envs"], len(next(iter(raw["runs"].values()))[ALONE])
    return [
        f"`learn()` with {n_envs} environments in all, in `VecNormalize`, with the settings of real_tasks.py and one thread",
        "for each process; without its start. Steps per second of wall-clock time, and CPU seconds, of all processes.",
        "Two independent runs exchange nothing: what they reach together is the limit of the machine for two processes.",
        "",
        f"Medians over {n_rounds} rounds, each of which measures everything once; a ratio is the median of the ratios within",
        "each round.",
        "",
        *overview(raw),
        *goals(raw),
        "## The exchanges",
        "",
        "Rollout and iteration are those of one process with its share of the environments, alone. A sum adds the gradient or",
        "other numbers of all processes; objects are statistics, decisions and the like. Their cost is measured with two",
        "processes that arrive together. With waiting: what an iteration of the training spent in exchanges, which includes",
        "waiting for the slower process.",
        "",
        *exchange_table(raw),
        "## A model of more processes",
        "",
        "Computed, not measured: the speed of P processes over that of one process with the same share of environments,",
        "`P · t / (t + (P - 1) · c)`, with the iteration t and the cost c of its exchanges from the table above. It assumes a",
        "core for each process, exchanges in a ring between processes of one machine, and that no process waits for a slower",
        "one. A network between machines makes c larger. Longer rollouts make t larger, and c too, by a few numbers for each",
        "step, which the model leaves out.",
        "",
        *model_table(raw),
    ]
