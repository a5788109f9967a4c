"""
How many steps per second do VPG, A2C and PPO collect and train on six tasks, and how many does the bare environment reach?

    python benchmarks/real_tasks.py

The tasks are CartPole, Pendulum, Acrobot, LunarLander, HalfCheetah and Hopper. Measured on one core: ``collect_rollouts`` and
``learn()`` per CPU second; and collection per second of wall-clock time with several processes or threads. Takes about 8
minutes. Results: real_tasks.md, .json and .png in benchmarks/results.
"""

from harness.measure import collector, interleaved, player, rate

# isort: split
import sys
import time
from collections.abc import Callable
from typing import Any

from harness.phases import shares
from harness.report import make_parser, results_folder, write_report
from harness.task_report import A2C_DEFAULT, A2C_LONG, BARE, DUMMY, NORMALIZED, TITLE, VPG_NAME, Raw, draw, report
from harness.task_settings import (
    N_ENVS,
    VPG_ENTRIES,
    Entry,
    MakeEnvs,
    as_text,
    bare_environments,
    dummy,
    entries,
    envpool,
    new_model,
    normalized,
    random_actions,
    subproc,
)
from stable_baselines3 import A2C
from stable_baselines3.common.vec_env import VecEnv
from tqdm import tqdm

from sb3_vpg import VPG
from sb3_vpg.vec_env.fast_step import fast_step

N_STEPS = 256  # VPG's default
COLLECTORS: dict[str, tuple[Any, int]] = {VPG_NAME: (VPG, N_STEPS), A2C_DEFAULT: (A2C, 5), A2C_LONG: (A2C, N_STEPS)}
# Of one learn(), rounded up to complete rollouts
TRAINING_STEPS = {"VPG": 32_768, "A2C": 2_048, "PPO": 2_048}
QUICK_STEPS = 600
PARALLEL: dict[str, tuple[int, MakeEnvs]] = {
    "DummyVecEnv, 1 environment": (1, dummy),
    "SubprocVecEnv, 1 process": (1, subproc),
    "DummyVecEnv, 2 environments": (2, dummy),
    "SubprocVecEnv, 2 processes": (2, subproc),
    f"DummyVecEnv, {N_ENVS} environments": (N_ENVS, dummy),
    f"EnvPool, {N_ENVS} environments, 1 thread": (N_ENVS, envpool(1)),
    f"EnvPool, {N_ENVS} environments, 2 threads": (N_ENVS, envpool(2)),
}
"""By name in the report: number of environments, and how they are made. ``DummyVecEnv`` comes first for each number."""

Rates = dict[str, list[float]]
"""By name in the report: steps per second in each round."""


def collection(env_id: str, seconds: float, repetitions: int) -> Rates:
    """:return: steps per CPU second of ``collect_rollouts``, and with random actions of the environments that VPG steps"""
    runs = {BARE: bare_environments(env_id, N_STEPS)}
    plain, wrapped = dummy(env_id, N_ENVS), normalized(dummy(env_id, N_ENVS), VPG_ENTRIES[env_id])
    for name, env in ((DUMMY, plain), (NORMALIZED, wrapped)):
        runs[name] = player(env, random_actions(env.action_space, N_STEPS), fast_step(env))
    for name, (algorithm, n_steps) in COLLECTORS.items():
        env = normalized(dummy(env_id, N_ENVS), VPG_ENTRIES[env_id])
        runs[name] = collector(algorithm, {}, env, n_steps)
    for run in runs.values():
        run()  # exclude one-time costs from the measurement
    return interleaved({name: lambda run=run: rate(run, seconds) for name, run in runs.items()}, repetitions)


def training(env_id: str, quick: bool, seconds: float, repetitions: int) -> tuple[Rates, dict[str, int]]:
    """:return: steps per CPU second of ``learn()`` and of the bare environments; the number of steps of each ``learn()``"""
    sizes: dict[str, int] = {}

    def trainer(name: str, algorithm: str, entry: Entry) -> Callable[[], float]:
        def train() -> float:
            model = new_model(env_id, algorithm, entry)
            result = rate(lambda: model.learn(QUICK_STEPS if quick else TRAINING_STEPS[algorithm]).num_timesteps)
            sizes[name] = model.num_timesteps
            return result

        return train

    play = bare_environments(env_id, N_STEPS)
    trainings = {name: trainer(name, *chosen) for name, chosen in entries(env_id).items()}
    return interleaved({BARE: lambda: rate(play, seconds), **trainings}, repetitions), sizes


def parallel(env_id: str, seconds: float, repetitions: int) -> Rates:
    """:return: VPG's collection in steps per second of wall-clock time, without what is not available"""
    entry = VPG_ENTRIES[env_id]
    runs: dict[str, Callable[[], int]] = {}
    opened: list[VecEnv] = []
    try:
        for name, (n_envs, make) in PARALLEL.items():
            try:
                env = normalized(make(env_id, n_envs), entry)
            except (ImportError, ValueError) as error:
                print(f"{env_id}: left out {name}: {error}", file=sys.stderr)
                continue
            opened.append(env)
            runs[name] = collector(VPG, {}, env, N_STEPS)
            runs[name]()
        tasks = {name: lambda run=run: rate(run, seconds, time.perf_counter) for name, run in runs.items()}
        return interleaved(tasks, repetitions)
    finally:
        for env in opened:
            env.close()


def measure(quick: bool, seconds: float, repetitions: int) -> Raw:
    parts: tuple[str, ...] = ("collection", "training", "steps", "shares", "parallel", "settings")
    raw: Raw = {"seconds": seconds, "repetitions": repetitions, **{part: {} for part in parts}}
    # One task with discrete actions and one with continuous ones show that it works
    for env_id in tqdm(["CartPole-v1", "HalfCheetah-v4"] if quick else list(VPG_ENTRIES)):
        raw["collection"][env_id] = collection(env_id, seconds, repetitions)
        raw["training"][env_id], raw["steps"][env_id] = training(env_id, quick, seconds, repetitions)
        n_steps = QUICK_STEPS if quick else TRAINING_STEPS["VPG"]
        raw["shares"][env_id] = shares(new_model(env_id, "VPG", VPG_ENTRIES[env_id]), n_steps)
        raw["parallel"][env_id] = parallel(env_id, seconds, repetitions)
        raw["settings"][env_id] = {name: as_text(entry) for name, (_, entry) in entries(env_id).items()}
    return raw


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument(
        "--repetitions", type=int, default=5, help="number of rounds; each measures everything (default: %(default)s)"
    )
    parser.add_argument("--seconds", type=float, default=0.5, help="time of each measurement (default: %(default)s)")
    args = parser.parse_args()
    repetitions, seconds = (1, 0.01) if args.quick else (args.repetitions, args.seconds)
    raw = measure(args.quick, seconds, repetitions)
    write_report(parser, args, TITLE, report(raw), raw)
    folder = results_folder(args)
    if folder is not None:
        draw(raw, folder / "real_tasks.png")


if __name__ == "__main__":
    main()
