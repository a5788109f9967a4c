"""The report of real_tasks.py: its tables, its goals and its figure."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.measure import ratio
from harness.phases import PHASES, REST
from harness.report import Goal, goal_table, short, table

Raw = dict[str, Any]
"""
What the program measured, by part and environment id. ``"collection"``, ``"training"`` and ``"parallel"`` have steps per
second by name, one number for each round; ``"steps"`` has the steps of each training by name, ``"shares"`` the share of each
of VPG's phases, ``"settings"`` the settings by name. ``"repetitions"`` and ``"seconds"`` are numbers.
"""

TITLE = "Steps per second on six environments"
BARE, VPG_NAME, A2C_DEFAULT, A2C_LONG = "bare environment", "VPG", "A2C, n_steps=5", "A2C, n_steps=256"
DUMMY, NORMALIZED = "VPG's step of DummyVecEnv", "VPG's step of VecNormalize"
LAYERS = {
    BARE: BARE,
    DUMMY: "`DummyVecEnv` and `Monitor`",
    NORMALIZED: "`VecNormalize`",
    VPG_NAME: "policy, buffer, callback",
}
"""Names of measurements, each of which contains the one before, and what it adds."""
COLLECTION_GOALS = {  # VPG / A2C, VPG / bare environment
    "CartPole-v1": (5.0, 0.5),
    "Pendulum-v1": (3.0, 0.5),
    "LunarLander-v3": (2.0, 0.75),
    "HalfCheetah-v4": (1.4, 0.85),
    "Hopper-v4": (1.4, 0.85),
}
TRAINING_GOALS = {"LunarLander-v3": 0.6, "HalfCheetah-v4": 0.7}  # VPG / bare environment
# Okabe and Ito's palette, which colour-blind readers can distinguish
COLOURS = {"VPG": "#0072B2", "A2C": "#D55E00", "PPO": "#E69F00"}


def steps(rates: list[float]) -> str:
    return f"{np.median(rates):,.0f}"


def overview(raw: Raw) -> list[str]:
    head = ["steps/s", BARE, "VPG collects", "A2C collects", "VPG trains", "A2C trains", "PPO trains"]
    rows = []
    for env_id, training in raw["training"].items():
        collection = raw["collection"][env_id]
        cells = [collection[BARE], collection[VPG_NAME], collection[A2C_DEFAULT], *(training[name] for name in COLOURS)]
        rows.append([env_id, *(short(float(np.median(rates))) for rates in cells)])
    return ["## Overview", "", *table(head, rows)]


def collection_table(raw: Raw) -> list[str]:
    names = (BARE, VPG_NAME, A2C_DEFAULT, A2C_LONG)
    pairs = [(VPG_NAME, A2C_DEFAULT), (VPG_NAME, A2C_LONG)]
    head = ["steps/s", *names, *(f"{ours} / ({theirs})" for ours, theirs in pairs), f"VPG / {BARE}", f"A2C / {BARE}"]
    rows = []
    for env_id, rates in raw["collection"].items():
        cells = [steps(rates[name]) for name in names]
        cells += [f"{ratio(rates[ours], rates[theirs]):.2f}" for ours, theirs in pairs]
        cells += [f"{ratio(rates[name], rates[BARE]):.0%}" for name in (VPG_NAME, A2C_DEFAULT)]
        rows.append([env_id, *cells])
    return [
        "## Collection",
        "",
        "`collect_rollouts` of untrained models with the defaults of their classes, VPG with its `n_steps=256`. A2C is",
        "measured twice: with its default `n_steps=5`, and with VPG's.",
        "",
        *table(head, rows),
    ]


def training_table(raw: Raw) -> list[str]:
    rows = []
    for env_id, rates in raw["training"].items():
        for name, size in raw["steps"][env_id].items():
            cells = [f"{size:,}", steps(rates[name]), f"{ratio(rates[name], rates[BARE]):.0%}"]
            rows.append([env_id, name, *cells, "" if name == "VPG" else f"{ratio(rates['VPG'], rates[name]):.1f}"])
    head = ["", "", "steps measured", "steps/s", f"share of the {BARE}", "VPG is faster by a factor of"]
    return [
        "## Whole training",
        "",
        "`learn()` of a new model, without its construction. A2C and PPO have rl-zoo3's entries for the task, VPG has the",
        "settings below. Where the zoo's entry has one environment, it was measured with 8, too.",
        "",
        *table(head, rows),
    ]


def layer_table(raw: Raw) -> list[str]:
    """:return: the shares of VPG's collection: of the environment, and of what each layer around it adds"""
    rows = []
    for env_id, rates in raw["collection"].items():
        seconds = [1.0 / np.array(rates[name]) for name in LAYERS]
        added = [seconds[0], *(outer - inner for inner, outer in pairwise(seconds))]
        rows.append([env_id, *(f"{np.median(part / seconds[-1]):.0%}" for part in added)])
    return [
        "## Where the time of collection goes",
        "",
        "Shares of the CPU time of VPG's collection. The environment and VPG's steps of `DummyVecEnv` and `VecNormalize` were",
        "measured with random actions; the last column is the rest of the time.",
        "",
        *table(["environment", *LAYERS.values()], rows),
    ]


def phase_table(raw: Raw) -> list[str]:
    phases = [*PHASES, REST]
    rows = [[env_id, *(f"{shares[phase]:.0%}" for phase in phases)] for env_id, shares in raw["shares"].items()]
    return [
        "## Where the time of training goes",
        "",
        "Shares of the CPU time of one more `learn()` of VPG, with seed 0.",
        "",
        *table(["environment", *phases], rows),
    ]


def parallel_table(raw: Raw) -> list[str]:
    names = list(dict.fromkeys(name for rates in raw["parallel"].values() for name in rates))
    every = raw["parallel"].values()
    rows = [[name, *(steps(rates[name]) if name in rates else "" for rates in every)] for name in names]
    return [
        "## Processes and threads",
        "",
        "VPG's collection as above, but in steps per second of wall-clock time, since several processes share the work. SB3's",
        "`SubprocVecEnv` has one process for each environment, beside the one of the policy. A cell is empty if the",
        "environment was not available.",
        "",
        *table(["", *raw["parallel"]], rows),
    ]


def setting_table(raw: Raw) -> list[str]:
    rows = [[env_id, name, text] for env_id, texts in raw["settings"].items() for name, text in texts.items()]
    return ["## Settings", "", "What is not named has the default of the class.", "", *table(["", "", "settings"], rows)]


def goals(raw: Raw) -> list[Goal]:
    result = []
    for env_id, (over_a2c, share) in COLLECTION_GOALS.items():
        rates = raw["collection"].get(env_id)
        if rates is not None:
            what = f"{env_id}, collection, VPG / "
            result.append(Goal(f"{what}({A2C_DEFAULT})", ratio(rates[VPG_NAME], rates[A2C_DEFAULT]), over_a2c))
            result.append(Goal(f"{what}{BARE}", ratio(rates[VPG_NAME], rates[BARE]), share, form=".0%"))
    for env_id, share in TRAINING_GOALS.items():
        rates = raw["training"].get(env_id)
        if rates is not None:
            value = ratio(rates["VPG"], rates[BARE])
            result.append(Goal(f"{env_id}, whole training, VPG / {BARE}", value, share, form=".0%"))
    return result


def report(raw: Raw) -> list[str]:
    """:return: the lines of the report"""
    introduction = [
        'Steps per CPU second of one core, except under "Processes and threads". VPG has 8 environments in `DummyVecEnv`,',
        "with `Monitor` inside and `VecNormalize` around (on LunarLander, that normalises rewards only). The bare environment",
        "is `gymnasium.make` without SB3's wrappers, 8 of them, stepped one after the other with random actions that were",
        "drawn in advance. It is the limit for everything that steps these environments in turn. As in the zoo, no",
        "environment has a `render_mode`.",
        "",
        f"Medians over {raw['repetitions']} rounds. A round of a task measures each collection for {raw['seconds']} seconds",
        "or one rollout, and each training once. Ratios, and the shares of collection, are medians of those within each",
        "round.",
        "",
        "![Share of the bare environment's speed](real_tasks.png)",
        "",
    ]
    tables = (overview, collection_table, layer_table, training_table, phase_table, parallel_table, setting_table)
    return [*introduction, *(line for lines in tables for line in lines(raw)), *goal_table(goals(raw))]


def draw_shares(axes: Axes, title: str, rates: dict[str, dict[str, list[float]]], names: dict[str, str]) -> None:
    """
    :param rates: by environment id and name
    :param names: by algorithm, its name in ``rates``
    """
    height = 0.8 / len(names)
    for row, (algorithm, name) in enumerate(names.items()):
        for place, by_name in enumerate(rates.values()):
            share, y = ratio(by_name[name], by_name[BARE]), place + (row - (len(names) - 1) / 2) * height
            axes.barh(y, share, height, color=COLOURS[algorithm], label=algorithm if place == 0 else None)
            label = f" {short(float(np.median(by_name[name])))}"
            axes.annotate(label, (share, y), va="center", fontsize=8, annotation_clip=False)
    axes.set(title=title, xlim=(0, 1.08))
    axes.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def draw(raw: Raw, path: Path) -> None:
    figure = Figure(figsize=(10, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    draw_shares(left, "Collection", raw["collection"], {"VPG": VPG_NAME, "A2C": A2C_DEFAULT})
    draw_shares(right, "Whole training (A2C and PPO: settings of rl-zoo3)", raw["training"], {name: name for name in COLOURS})
    limits = [f"{env_id}\nbare: {short(float(np.median(rates[BARE])))}" for env_id, rates in raw["collection"].items()]
    left.set_yticks(range(len(limits)), limits)
    left.invert_yaxis()
    figure.legend(*right.get_legend_handles_labels(), frameon=False, loc="outside lower center", ncols=len(COLOURS))
    figure.suptitle("Share of the bare environment's speed on one core; the numbers are steps per CPU second")
    figure.savefig(path, dpi=150)
