"""
How many steps per CPU second does VPG collect, next to A2C, and next to random actions in the same environments?

    python benchmarks/collection.py

``collect_rollouts`` alone, on one core, with the same ``n_steps`` and network for both algorithms. The policy is untrained, as
are the random actions: episodes are short, and there are many resets. Results: collection.md, .json and .png in
benchmarks/results.
"""

from measure import KINDS, interleaved, make_env, rate, ratio

# isort: split
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from report import Goal, deliver, folder_for, goal_table, parser, table
from stable_baselines3 import A2C
from stable_baselines3.common.vec_env import VecEnv

from sb3_vpg import VPG
from sb3_vpg.vec_env.dummy_step import fast_step

VPG_NAME, PLAIN, A2C_NAME, LIMIT, LEAN = "VPG", "VPG, no critic", "A2C", "random actions", "random actions, without copies"
ALGORITHMS: dict[str, tuple[Any, dict[str, Any]]] = {
    VPG_NAME: (VPG, {}),
    PLAIN: (VPG, {"baseline": "average"}),
    A2C_NAME: (A2C, {}),
}
# Okabe and Ito's colours, which the colour-blind can tell apart
COLOURS = {VPG_NAME: "#0072B2", PLAIN: "#56B4E9", A2C_NAME: "#D55E00", LIMIT: "#000000", LEAN: "#777777"}
STYLES = {VPG_NAME: "o-", PLAIN: "s-", A2C_NAME: "^-.", LIMIT: "x--", LEAN: "+:"}
N_ENVS = {"dummy": (1, 8, 64), "native": (64, 256, 1024, 4096)}
N_STEPS = {"dummy": 256, "native": 128}

Rates = dict[str, dict[int, dict[str, list[float]]]]


def collector(algorithm: Any, options: dict[str, Any], env: VecEnv, n_steps: int) -> Callable[[], int]:
    """:return: collects one rollout and says how many steps that were"""
    model = algorithm("MlpPolicy", env, n_steps=n_steps, seed=0, device="cpu", **options)
    _, callback = model._setup_learn(10**9, None)

    def collect() -> int:
        model.collect_rollouts(model.env, callback, model.rollout_buffer, model.n_steps)
        return n_steps * env.num_envs

    return collect


def random_player(env: VecEnv, n_steps: int, step: Callable[[Any], Any]) -> Callable[[], int]:
    """:return: as ``collector``, with actions that were drawn before"""
    actions_TN = np.random.default_rng(0).integers(0, 2, (n_steps, env.num_envs))
    env.reset()

    def play() -> int:
        for actions_N in actions_TN:
            step(actions_N)
        return actions_TN.size

    return play


def measure(kind: str, n_envs: int, seconds: float, repetitions: int) -> dict[str, list[float]]:
    """:return: steps per CPU second of each, in each round"""
    n_steps = N_STEPS[kind]
    runs = {name: collector(*algorithm, make_env(kind, n_envs), n_steps) for name, algorithm in ALGORITHMS.items()}
    env, lean = make_env(kind, n_envs), make_env(kind, n_envs)
    runs[LIMIT], runs[LEAN] = random_player(env, n_steps, env.step), random_player(lean, n_steps, fast_step(lean))
    for run in runs.values():
        run()  # what happens once is not what we measure
    return interleaved({name: lambda run=run: rate(run, seconds) for name, run in runs.items()}, repetitions)


def goals(rates: Rates) -> list[Goal]:
    dummy, native = rates["dummy"], rates["native"]

    def over(n_envs: int, other: str) -> float:
        return ratio(dummy[n_envs][VPG_NAME], dummy[n_envs][other]) if n_envs in dummy else np.nan

    judged = [
        Goal("VPG / A2C, DummyVecEnv, 1 environment", over(1, A2C_NAME), 10.0),
        Goal("VPG / A2C, DummyVecEnv, 8 environments", over(8, A2C_NAME), 4.0),
        *(
            Goal(f"VPG / {limit}, DummyVecEnv, {n} environments", over(n, limit), 0.7)
            for limit in (LIMIT, LEAN)
            for n in (8, 64)
        ),
    ]
    for name in (VPG_NAME, PLAIN):
        steps = float(np.median(native[1024][name])) if 1024 in native else np.nan
        judged.append(Goal(f"{name}, vector environment of 1,024, steps/s", steps, 1e6, form=",.0f"))
    return judged


def rate_table(rates: Rates) -> list[str]:
    head = ["environment", "n_envs", "n_steps", *(f"{name}, steps/s" for name in COLOURS)]
    head += [f"{ours} / {theirs}" for ours in (VPG_NAME, PLAIN) for theirs in (A2C_NAME, LIMIT)]
    rows = []
    for kind, by_size in rates.items():
        for n_envs, found in by_size.items():
            cells = [f"{np.median(found[name]):,.0f}" for name in COLOURS]
            cells += [f"{ratio(found[ours], found[theirs]):.2f}" for ours in (VPG_NAME, PLAIN) for theirs in (A2C_NAME, LIMIT)]
            rows.append([KINDS[kind], f"{n_envs:,}", str(N_STEPS[kind]), *cells])
    return table(head, rows)


def apart(heights: list[float], factor: float = 1.5) -> list[float]:
    """:return: the heights of labels, in pairs pushed away from one another until ``factor`` lies between neighbours"""
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
    # Where nothing is copied, the two limits are one
    names = [name for name in COLOURS if name != LEAN or kind == "dummy"]
    lines = {name: [float(np.median(found[name])) for found in by_size.values()] for name in names}
    heights = apart([steps[-1] for steps in lines.values()])
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


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--repetitions", type=int, default=7, help="rounds; each measures all peers (default: %(default)s)")
    made.add_argument("--seconds", type=float, default=0.5, help="CPU time of each measurement (default: %(default)s)")
    args = made.parse_args()
    repetitions, seconds = (2, 0.01) if args.quick else (args.repetitions, args.seconds)
    rates = {kind: {n_envs: measure(kind, n_envs, seconds, repetitions) for n_envs in sizes} for kind, sizes in N_ENVS.items()}
    introduction = [
        "`collect_rollouts` alone on CartPole-v1: steps per CPU second of one core, 64-64 networks, A2C and VPG with",
        'their defaults but for the same `n_steps`; without a critic means `baseline="average"`. The policy is untrained, so',
        "episodes are short. The random actions were drawn beforehand: `env.step` is all that is left, and the limit for SB3.",
        "VPG steps a `DummyVecEnv` without its copies of arrays and infos; random actions stepped that way are its own limit.",
        "",
        f"Rounds in which all took turns: {repetitions} (medians), {seconds} CPU seconds or one rollout each; a ratio is the",
        "median of the ratios within each round.",
        "",
        "![Steps per second](collection.png)",
        "",
    ]
    lines = [*introduction, *rate_table(rates), *goal_table(goals(rates))]
    deliver(made, args, "Speed of collection", lines, {"steps_per_cpu_second": rates})
    folder = folder_for(args)
    if folder is not None:
        draw(rates, folder / "collection.png")


if __name__ == "__main__":
    main()
