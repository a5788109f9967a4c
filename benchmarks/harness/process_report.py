"""The report of processes.py: its tables, its goal, and a model of more processes than were measured."""

from typing import Any

import numpy as np

from harness.measure import ratio
from harness.report import Goal, goal_table, table

Rounds = list[list[dict[str, Any]]]
"""For each round, what each process measured: see ``harness.process_runs.train``."""
Raw = dict[str, Any]
"""``"runs"``: by environment id and by name in the report, the rounds. ``"exchange"``: by environment id, what
``harness.process_runs.exchange`` measured between two processes. ``"n_envs"``."""

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


def exchange_cost(raw: Raw, env_id: str, longer: float = 1.0) -> float:
    """
    :param longer: factor of the length of rollouts
    :return: seconds that two processes need for the exchanges of one iteration if none waits for the other
    """
    costs = raw["exchange"][env_id]
    n_messages = per_iteration(raw["runs"][env_id][TWO], "exchanges", "calls") - 1
    return float(n_messages * costs["message"] + longer * costs["rollout"])


def exchange_table(raw: Raw) -> list[str]:
    rows = []
    for env_id, runs in raw["runs"].items():
        two, costs = runs[TWO], raw["exchange"][env_id]
        rollout, update = times_of_a_share(raw, env_id)
        milliseconds = [rollout, update, *(costs[name] for name in ("message", "rollout", "sum")), exchange_cost(raw, env_id)]
        milliseconds.append(per_iteration(two, "exchanges", "seconds"))
        cells = [f"{1e3 * seconds:.2f}" for seconds in milliseconds]
        cells.insert(2, f"{per_iteration(two, 'exchanges', 'calls'):.0f}")
        rows.append([env_id, *cells])
    head = [
        "",
        "rollout",
        "update",
        "exchanges",
        "a message",
        "a rollout",
        "a sum",
        "exchanges of an iteration",
        "with waiting",
    ]
    return table(head, rows)


def times_of_a_share(raw: Raw, env_id: str) -> tuple[float, float]:
    """:return: seconds of the rollout and of the rest of an iteration of one process with its share of the environments"""
    share = raw["runs"][env_id][LIMIT]
    rollout = per_iteration(share, "rollouts", "seconds")
    return rollout, per_iteration(share, "seconds") - rollout


def modelled(n_processes: int, rollout: float, update: float, cost: float) -> float:
    """
    :param rollout: seconds of the rollout of one process with its share of the environments
    :param update: seconds of an update from it
    :param cost: seconds of the exchanges of an iteration between two processes
    :return: speed of so many processes, each with such a share, over that of one
    """
    return n_processes * (rollout + update) / (rollout + n_processes * update + (n_processes - 1) * cost)


def model_table(raw: Raw) -> list[str]:
    rows = []
    for env_id in raw["runs"]:
        for longer in (1, LONGER):
            times = [longer * seconds for seconds in times_of_a_share(raw, env_id)]
            speeds = [modelled(number, *times, exchange_cost(raw, env_id, longer)) for number in MODELLED]
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
        "Milliseconds of one iteration. Rollout and update are those of one process with its share of the environments,",
        "alone; the processes gather the rollouts, so each makes the update from those of all. Exchanges: a few messages, and",
        "one with the rollout. Their cost is measured with two processes that arrive together; for comparison also that of a",
        "sum of the policy's gradient, which networks that torch computes exchange at each step. With waiting: what an",
        "iteration of the training spent in exchanges, which includes waiting for the slower process.",
        "",
        *exchange_table(raw),
        "## A model of more processes",
        "",
        "Computed, not measured: the speed of P processes over that of one process with the same share of environments,",
        "`P · (r + u) / (r + P · u + (P - 1) · c)`, with the rollout r, the update u and the cost c of its exchanges from the",
        "table above. It assumes a core for each process of one machine, that exchanges of P processes take P - 1 times as",
        "long as those of two, and that no process waits for a slower one. A network between machines makes c larger. As each",
        "process makes the whole update, no number of processes is faster than `(r + u) / (u + c)`.",
        "",
        *model_table(raw),
    ]
