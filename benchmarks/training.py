"""
How many environment steps per CPU second do VPG, A2C and PPO train on one core?

    python benchmarks/training.py

``learn()`` of a new model is measured, without its construction. Results: training.md and training.json in
benchmarks/results.
"""

from harness.measure import KINDS, interleaved, make_env, rate, ratio

# isort: split
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from harness.phases import PHASES, REST, shares
from harness.report import Goal, goal_table, make_parser, short, table, write_report
from stable_baselines3 import A2C, PPO

from sb3_vpg import VPG

ALGORITHMS: dict[str, Any] = {"VPG": VPG, "A2C": A2C, "PPO": PPO}
NATIVE_ENVS, NATIVE_STEPS = 1024, 32
TITLE = "Speed of training"
NONE, AVERAGE, DEFAULT = (
    'VPG, baseline="none"',
    'VPG, baseline="average"',
    "VPG, 16 full-batch critic steps (default)",
)


@dataclass(frozen=True)
class Training:
    """
    :param label: name in the report, unique among trainings with the same environments
    :param n_steps: environment steps of one measurement, rounded up to complete rollouts
    :param options: arguments that differ from the defaults of the class
    """

    label: str
    algorithm: str
    kind: str
    n_envs: int
    n_steps: int
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.label}, {self.kind}, {self.n_envs}"


def native(label: str, algorithm: str, n_rollouts: int, **options: Any) -> Training:
    """:return: a training on the vector environment, in which every algorithm has rollouts of the same size"""
    n_steps = n_rollouts * NATIVE_ENVS * NATIVE_STEPS
    return Training(label, algorithm, "native", NATIVE_ENVS, n_steps, {"n_steps": NATIVE_STEPS, **options})


TRAININGS = [
    # These sizes are multiples of PPO's default rollout; on 8 environments, exactly one
    *(Training(name, name, "dummy", 1, 8192) for name in ALGORITHMS),
    *(Training(name, name, "dummy", 8, 16384) for name in ALGORITHMS),
    Training("A2C, n_steps=256 as VPG", "A2C", "dummy", 1, 8192, {"n_steps": 256}),
    native(NONE, "VPG", 16, baseline="none"),
    native(AVERAGE, "VPG", 16, baseline="average"),
    native(DEFAULT, "VPG", 4),
    native("VPG, 4 full-batch critic steps", "VPG", 8, n_critic_updates=4),
    native("VPG, 1 full-batch critic step", "VPG", 8, n_critic_updates=1),
    native("VPG, 1 pass of minibatches of 1,024", "VPG", 8, n_critic_updates=1, batch_size=1024),
    native("A2C", "A2C", 8),
    native("PPO", "PPO", 1),
]


def new_model(training: Training) -> Any:
    env = make_env(training.kind, training.n_envs)
    return ALGORITHMS[training.algorithm]("MlpPolicy", env, seed=0, device="cpu", **training.options)


def trainer(training: Training, n_steps: int) -> Callable[[], float]:
    """:return: a function that trains a new model and returns its steps per CPU second"""

    def train() -> float:
        model = new_model(training)

        def learn() -> int:
            return int(model.learn(n_steps).num_timesteps)

        return rate(learn)

    return train


def share_table(shares: dict[str, dict[str, float]]) -> list[str]:
    phases = [*PHASES, REST]
    rows = [[name, *(f"{parts[phase]:.0%}" for phase in phases)] for name, parts in shares.items()]
    return ["## Where the time goes", "", *table(["VPG", *phases], rows)]


def goals(rates: dict[str, list[float]]) -> list[Goal]:
    def steps(label: str) -> float:
        return float(np.median(rates[f"{label}, native, {NATIVE_ENVS}"]))

    where = f"vector environment of {NATIVE_ENVS:,}, steps/s"
    vpg_to_a2c = ratio(rates["VPG, dummy, 1"], rates["A2C, dummy, 1"])
    return [
        Goal("VPG / A2C, class defaults, DummyVecEnv, 1 environment", vpg_to_a2c, 6.0),
        Goal(f"{NONE}, {where}", steps(NONE), 250_000, form=",.0f"),
        Goal(f"{AVERAGE}, {where}", steps(AVERAGE), 250_000, form=",.0f"),
        Goal(f"{DEFAULT}, {where}", steps(DEFAULT), 40_000, form=",.0f"),
    ]


def rate_table(rates: dict[str, list[float]], sizes: dict[str, int]) -> list[str]:
    rows = []
    for training in TRAININGS:
        measured = rates[training.name]
        peers = [ratio(measured, rates[f"{peer}, {training.kind}, {training.n_envs}"]) for peer in ("A2C", "PPO")]
        median, steps = f"{np.median(measured):,.0f}", f"{sizes[training.name]:,}"
        cells = [KINDS[training.kind], f"{training.n_envs:,}", training.label, steps, median]
        rows.append([*cells, *(f"{number:.2f}" for number in peers)])
    return table(["environment", "n_envs", "", "steps measured", "steps/s", "ratio to A2C", "ratio to PPO"], rows)


def overview(rates: dict[str, list[float]]) -> list[str]:
    """:return: the rounded rates, with one column for each kind and number of environments"""
    columns = {"DummyVecEnv, 1 env": "dummy, 1", "8": "dummy, 8", f"vector env, {NATIVE_ENVS:,}": f"native, {NATIVE_ENVS}"}
    rows = []
    for label in dict.fromkeys(training.label for training in TRAININGS if training.label != DEFAULT):
        names = [f"{label}, {where}" for where in columns.values()]
        if label == "VPG":
            names[-1] = f"{DEFAULT}, native, {NATIVE_ENVS}"
        rows.append([label, *(short(float(np.median(rates[name]))) if name in rates else "" for name in names)])
    return ["## Overview", "", *table(["steps/s", *columns], rows)]


def report(
    rates: dict[str, list[float]], sizes: dict[str, int], parts: dict[str, dict[str, float]], repetitions: int
) -> list[str]:
    """:return: the lines of the report"""
    introduction = [
        "`learn()` of a new model (seed 0) on CartPole-v1: steps per CPU second of one core; the construction of the model is",
        "not counted. On `DummyVecEnv` every algorithm has its defaults: VPG makes 16 critic steps per 256 steps of an",
        "environment, A2C one update per 5, PPO ten passes of minibatches per 2,048. On the vector environment all have",
        f"`n_steps={NATIVE_STEPS}`, and otherwise the defaults except for what is named.",
        "",
        f"Medians over {repetitions} rounds, each of which measures everything once; a ratio is the median of the ratios",
        "within each round.",
        "",
    ]
    measured = ["## Measurements", "", *rate_table(rates, sizes)]
    return [*introduction, *overview(rates), *measured, *goal_table(goals(rates)), *share_table(parts)]


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument(
        "--repetitions", type=int, default=5, help="number of rounds; each measures everything (default: %(default)s)"
    )
    args = parser.parse_args()
    repetitions = 1 if args.quick else args.repetitions
    sizes = {training.name: 1 if args.quick else training.n_steps for training in TRAININGS}
    for training in TRAININGS[: len(ALGORITHMS)]:
        trainer(training, 1)()  # exclude what torch loads at its first use
    rates = interleaved({training.name: trainer(training, sizes[training.name]) for training in TRAININGS}, repetitions)
    ours = [training for training in TRAININGS if training.algorithm == "VPG"]
    parts = {training.name: shares(new_model(training), sizes[training.name]) for training in ours}
    lines = report(rates, sizes, parts, repetitions)
    write_report(parser, args, TITLE, lines, {"steps_per_cpu_second": rates, "steps": sizes, "shares": parts})


if __name__ == "__main__":
    main()
