"""
How much CPU time do the checks for NaN, infinite and huge numbers take?

    python benchmarks/checks.py

The CPU time of all checks of one rollout on CartPole-v1, as a share of that of ``collect_rollouts``. The full buffer is
checked, and, with ``VecNormalize``, the numbers of each step before they enter its statistics. Rollout and checks are measured
in turn with the same model. Results: checks.md and checks.json in benchmarks/results.
"""

from harness.measure import KINDS, interleaved, make_env, rate

# isort: split
from collections.abc import Callable
from typing import Any

import numpy as np
from harness.report import Goal, goal_table, make_parser, table, write_report
from stable_baselines3.common.vec_env import VecNormalize

from sb3_vpg import VPG
from sb3_vpg.collection.check_nan import check_rollout, raw_check

SIZES = [("dummy", 1), ("dummy", 8), ("dummy", 64), ("native", 64), ("native", 1024)]
N_STEPS = {"dummy": 256, "native": 128}
LIMIT = 1.0  # percent


def tasks(kind: str, n_envs: int, normalized: bool) -> dict[str, Callable[[], int]]:
    """:return: functions that collect a rollout and that check one; each returns 1, the number of rollouts"""
    env: Any = make_env(kind, n_envs)
    env = VecNormalize(env) if normalized else env
    model = VPG("MlpPolicy", env, n_steps=N_STEPS[kind], seed=0, device="cpu")
    _, callback = model._setup_learn(10**9, None)

    def collect() -> int:
        model.collect_rollouts(env, callback, model.rollout_buffer, model.n_steps)
        return 1

    def run_checks() -> int:
        check = raw_check(env, model.policy)
        if check is not None:
            for step in range(1, model.n_steps + 1):
                check(step)
        check_rollout(model.rollout_buffer, model._last_obs, model.policy)
        return 1

    collect()
    run_checks()
    return {"collect": collect, "check": run_checks}


def share(kind: str, n_envs: int, normalized: bool, seconds: float, repetitions: int) -> list[float]:
    """:return: the checks' share of a rollout's CPU time in percent, one number for each round"""
    runs = {name: lambda run=run: rate(run, seconds) for name, run in tasks(kind, n_envs, normalized).items()}
    rates = interleaved(runs, repetitions)
    return list(100.0 * np.divide(rates["collect"], rates["check"]))


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--repetitions", type=int, default=7, help="number of rounds (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=0.5, help="CPU time of each measurement (default: %(default)s)")
    args = parser.parse_args()
    repetitions, seconds = (2, 0.01) if args.quick else (args.repetitions, args.seconds)
    shares = {}
    for normalized in (False, True):
        for kind, n_envs in SIZES:
            name = f"{KINDS[kind]}, {n_envs:,}{' in VecNormalize' if normalized else ''}"
            shares[name] = share(kind, n_envs, normalized, seconds, repetitions)
    lines = [
        "Share of the CPU time of `collect_rollouts` that the checks for NaN, infinite and huge numbers take: medians of",
        f"{repetitions} rounds, and in brackets the lowest and the highest.",
        "",
        *table(
            ["environments", "share"],
            [[name, f"{np.median(rounds):.2f} % ({min(rounds):.2f} to {max(rounds):.2f})"] for name, rounds in shares.items()],
        ),
        *goal_table([Goal(f"{name}, %", float(np.median(rounds)), LIMIT, at_least=False) for name, rounds in shares.items()]),
    ]
    write_report(parser, args, "The cost of the checks for NaN, infinite and huge numbers", lines, {"percent": shares})


if __name__ == "__main__":
    main()
