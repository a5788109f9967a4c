"""
What does the look for NaN, infinite and huge numbers cost?

    python benchmarks/checks.py

CPU time of the checks that one rollout of CartPole-v1 goes through, as a share of the whole ``collect_rollouts``: the look at
the filled buffer, and, under ``VecNormalize``, that at each step's numbers before they enter the statistics. Both on the same
model by turns. Results: checks.md and checks.json in benchmarks/results.
"""

from measure import KINDS, interleaved, make_env, rate

# isort: split
from collections.abc import Callable
from typing import Any

import numpy as np
from report import Goal, deliver, goal_table, parser, table
from stable_baselines3.common.vec_env import VecNormalize

from sb3_vpg import VPG
from sb3_vpg.collection.check_nan import check_rollout, raw_check

SIZES = [("dummy", 1), ("dummy", 8), ("dummy", 64), ("native", 64), ("native", 1024)]
N_STEPS = {"dummy": 256, "native": 128}
LIMIT = 1.0  # percent


def tasks(kind: str, n_envs: int, normalized: bool) -> dict[str, Callable[[], int]]:
    """:return: a rollout, and the checks of a rollout; each says for how many rollouts it stands"""
    env: Any = make_env(kind, n_envs)
    env = VecNormalize(env) if normalized else env
    model = VPG("MlpPolicy", env, n_steps=N_STEPS[kind], seed=0, device="cpu")
    _, callback = model._setup_learn(10**9, None)

    def collect() -> int:
        model.collect_rollouts(env, callback, model.rollout_buffer, model.n_steps)
        return 1

    def look() -> int:
        check = raw_check(env, model.policy)
        if check is not None:
            for step in range(1, model.n_steps + 1):
                check(step)
        check_rollout(model.rollout_buffer, model._last_obs, model.policy)
        return 1

    collect()
    look()
    return {"collect": collect, "look": look}


def share(kind: str, n_envs: int, normalized: bool, seconds: float, repetitions: int) -> list[float]:
    """:return: of a rollout's CPU time, in percent, in each round"""
    runs = {name: lambda run=run: rate(run, seconds) for name, run in tasks(kind, n_envs, normalized).items()}
    rates = interleaved(runs, repetitions)
    return list(100.0 * np.divide(rates["collect"], rates["look"]))


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--repetitions", type=int, default=7, help="rounds (default: %(default)s)")
    made.add_argument("--seconds", type=float, default=0.5, help="CPU time of each measurement (default: %(default)s)")
    args = made.parse_args()
    repetitions, seconds = (2, 0.01) if args.quick else (args.repetitions, args.seconds)
    found = {}
    for normalized in (False, True):
        for kind, n_envs in SIZES:
            name = f"{KINDS[kind]}, {n_envs:,}{' in VecNormalize' if normalized else ''}"
            found[name] = share(kind, n_envs, normalized, seconds, repetitions)
    lines = [
        "Share of the CPU time of `collect_rollouts` that goes into the look for NaN, infinite and huge numbers: medians of",
        f"{repetitions} rounds, and in brackets the lowest and the highest.",
        "",
        *table(
            ["environments", "share"],
            [[name, f"{np.median(one):.2f} % ({min(one):.2f} to {max(one):.2f})"] for name, one in found.items()],
        ),
        *goal_table([Goal(f"{name}, %", float(np.median(one)), LIMIT, at_least=False) for name, one in found.items()]),
    ]
    deliver(made, args, "What the look for broken numbers costs", lines, {"percent": found})


if __name__ == "__main__":
    main()
