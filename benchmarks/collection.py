"""
How many environment steps per CPU second does VPG collect, compared with A2C and with random actions?

    python benchmarks/collection.py

Only ``collect_rollouts`` is measured, on one core, with the same ``n_steps`` and network for both algorithms. The policies are
untrained, so episodes are as short as with random actions. Results: collection.md, .json and .png in benchmarks/results.
"""

from harness.measure import KINDS, collector, interleaved, make_env, player, rate, ratio

# isort: split
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from harness.report import Goal, goal_table, make_parser, results_folder, short, table, write_report
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from stable_baselines3 import A2C

from sb3_vpg import VPG
from sb3_vpg.vec_env.fast_step import fast_step

VPG_NAME, NO_CRITIC, A2C_NAME, LIMIT, NO_COPIES = (
    "VPG",
    "VPG, no critic",
    "A2C",
    "random actions",
    "random actions, without copies",
)
ALGORITHMS: dict[str, tuple[Any, dict[str, Any]]] = {
    VPG_NAME: (VPG, {}),
    NO_CRITIC: (VPG, {"baseline": "average"}),
    A2C_NAME: (A2C, {}),
}
TITLE = "Speed of collection"
# Okabe and Ito's palette, which colour-blind readers can distinguish
COLOURS = {VPG_NAME: "#0072B2", NO_CRITIC: "#56B4E9", A2C_NAME: "#D55E00", LIMIT: "#000000", NO_COPIES: "#777777"}
STYLES = {VPG_NAME: "o-", NO_CRITIC: "s-", A2C_NAME: "^-.", LIMIT: "x--", NO_COPIES: "+:"}
N_ENVS = {"dummy": (1, 8, 64), "native": (64, 256, 1024, 4096)}
N_STEPS = {"dummy": 256, "native": 128}

Rates = dict[str, dict[int, dict[str, list[float]]]]
"""By kind and number of environments, and by name in the report: steps per CPU second in each round."""


def measure(kind: str, n_envs: int, seconds: float, repetitions: int) -> dict[str, list[float]]:
    """:return: steps per CPU second of each algorithm, in each round"""
    n_steps = N_STEPS[kind]
    runs = {name: collector(*algorithm, make_env(kind, n_envs), n_steps) for name, algorithm in ALGORITHMS.items()}
    for name, step_of in ((LIMIT, lambda env: env.step), (NO_COPIES, fast_step)):
        env = make_env(kind, n_envs)
        runs[name] = player(env, np.random.default_rng(0).integers(0, 2, (n_steps, n_envs)), step_of(env))
    for run in runs.values():
        run()  # exclude one-time costs from the measurement
    return interleaved({name: lambda run=run: rate(run, seconds) for name, run in runs.items()}, repetitions)


def goals(rates: Rates) -> list[Goal]:
    dummy, native = rates["dummy"], rates["native"]

    def over(n_envs: int, other: str) -> float:
        return ratio(dummy[n_envs][VPG_NAME], dummy[n_envs][other]) if n_envs in dummy else np.nan

    result = [
        Goal("VPG / A2C, DummyVecEnv, 1 environment", over(1, A2C_NAME), 10.0),
        Goal("VPG / A2C, DummyVecEnv, 8 environments", over(8, A2C_NAME), 4.0),
        *(
            Goal(f"VPG / {limit}, DummyVecEnv, {n} environments", over(n, limit), 0.7)
            for limit in (LIMIT, NO_COPIES)
            for n in (8, 64)
        ),
    ]
    for name in (VPG_NAME, NO_CRITIC):
        steps = float(np.median(native[1024][name])) if 1024 in native else np.nan
        result.append(Goal(f"{name}, vector environment of 1,024, steps/s", steps, 1e6, form=",.0f"))
    return result


def overview(rates: Rates) -> list[str]:
    """:return: the rounded rates, with one column for each kind and number of environments"""
    columns = [(kind, n_envs) for kind, by_size in rates.items() for n_envs in by_size]
    prefixes = {"dummy": "", "native": "vector env, "}
    head = ["steps/s", *(f"{prefixes[kind]}{n_envs:,}" for kind, n_envs in columns)]
    rows = [[name, *(short(float(np.median(rates[kind][n_envs][name]))) for kind, n_envs in columns)] for name in COLOURS]
    return ["## Overview", "", "By number of environments; without a name, they are in `DummyVecEnv`.", "", *table(head, rows)]


def rate_table(rates: Rates) -> list[str]:
    head = ["environment", "n_envs", "n_steps", *(f"{name}, steps/s" for name in COLOURS)]
    head += [f"{ours} / {theirs}" for ours in (VPG_NAME, NO_CRITIC) for theirs in (A2C_NAME, LIMIT)]
    rows = []
    for kind, by_size in rates.items():
        for n_envs, measured in by_size.items():
            cells = [f"{np.median(measured[name]):,.0f}" for name in COLOURS]
            cells += [
                f"{ratio(measured[ours], measured[theirs]):.2f}"
                for ours in (VPG_NAME, NO_CRITIC)
                for theirs in (A2C_NAME, LIMIT)
            ]
            rows.append([KINDS[kind], f"{n_envs:,}", str(N_STEPS[kind]), *cells])
    return table(head, rows)


def spread_labels(heights: list[float], factor: float = 1.5) -> list[float]:
    """:return: the heights of labels, moved apart until neighbours differ by ``factor``"""
    moved, gap = np.log(heights), np.log(factor)
    order = np.argsort(moved)
    for _ in range(50):
        for below, above in pairwise(order):
            push = max(0.0, gap - moved[above] + moved[below]) / 2
            moved[below] -= push
            moved[above] += push
    return list(np.exp(moved))


def draw_kind(axes: Axes, kind: str, by_size: dict[int, dict[str, list[float]]]) -> None:
    sizes = list(by_size)
    # The vector environment copies nothing, so its two limits are the same
    names = [name for name in COLOURS if name != NO_COPIES or kind == "dummy"]
    lines = {name: [float(np.median(measured[name])) for measured in by_size.values()] for name in names}
    heights = spread_labels([steps[-1] for steps in lines.values()])
    for (name, steps), height in zip(lines.items(), heights, strict=True):
        axes.plot(sizes, steps, STYLES[name], markersize=5, color=COLOURS[name], linewidth=1.8)
        label = {"textcoords": "offset points", "color": COLOURS[name], "va": "center", "annotation_clip": False}
        axes.annotate(name, (sizes[-1], height), (9, 0), **label)
    axes.set(xscale="log", yscale="log", xlabel="environments", title=KINDS[kind])
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def draw(rates: Rates, path: Path) -> None:
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    for axes, (kind, by_size) in zip(figure.subplots(1, len(rates), sharey=True), rates.items(), strict=True):
        draw_kind(axes, kind, by_size)
    figure.axes[0].set_ylabel("environment steps per CPU second")
    figure.suptitle("Collecting experience on CartPole-v1, one core")
    figure.savefig(path, dpi=150)


def report(rates: Rates, seconds: float, repetitions: int) -> list[str]:
    """:return: the lines of the report"""
    introduction = [
        "Only `collect_rollouts`, on CartPole-v1: steps per CPU second of one core, 64-64 networks, A2C and VPG with their",
        'defaults except for the same `n_steps`; without a critic means `baseline="average"`. The policy is untrained, so',
        "episodes are short. The random actions were drawn in advance, so only `env.step` is measured: the limit for SB3. VPG",
        "steps a `DummyVecEnv` without copying arrays and infos; random actions that are stepped in this way are VPG's limit.",
        "",
        f"Medians over {repetitions} rounds, each of which measures everything for {seconds} CPU seconds or one rollout; a",
        "ratio is the median of the ratios within each round.",
        "",
        "![Steps per second](collection.png)",
        "",
    ]
    measured = ["## Measurements", "", *rate_table(rates)]
    return [*introduction, *overview(rates), *measured, *goal_table(goals(rates))]


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument(
        "--repetitions", type=int, default=7, help="number of rounds; each measures everything (default: %(default)s)"
    )
    parser.add_argument("--seconds", type=float, default=0.5, help="CPU time of each measurement (default: %(default)s)")
    args = parser.parse_args()
    repetitions, seconds = (2, 0.01) if args.quick else (args.repetitions, args.seconds)
    rates = {kind: {n_envs: measure(kind, n_envs, seconds, repetitions) for n_envs in sizes} for kind, sizes in N_ENVS.items()}
    write_report(parser, args, TITLE, report(rates, seconds, repetitions), {"steps_per_cpu_second": rates})
    folder = results_folder(args)
    if folder is not None:
        draw(rates, folder / "collection.png")


if __name__ == "__main__":
    main()
