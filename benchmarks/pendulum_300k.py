"""
How many CPU seconds does VPG need for 300,000 steps of Pendulum-v1, and which return does it reach?

Compared with RLtools' PPO (C++), and SB3's A2C and PPO.

    python benchmarks/pendulum_300k.py

CPU seconds of one core for the whole training, and the mean return of 100 episodes of gymnasium's Pendulum-v1 after it. VPG
trains on a vector environment in NumPy, harness/pendulum.py. RLtools is measured if its package is installed (see
harness/rltools_run.py), also in another Python: ``--rltools PYTHON``. Takes 6 minutes, with ``--skip-sb3`` half a minute.
Results: pendulum_300k.md and pendulum_300k.json in benchmarks/results.
"""

from harness.measure import in_fresh_process, rate
from harness.training_run import EVALUATION_SEED, evaluate, evaluation_env

# isort: split
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.wrappers.vector import TransformReward
from harness.hyperparameters import read_dict, zoo_entry
from harness.milestones import spread
from harness.pendulum import PendulumVectorEnv
from harness.phases import REST, seconds_in
from harness.report import Goal, goal_table, make_parser, table, write_report
from harness.task_settings import Entry, MakeEnvs, as_text, dummy, entries, new_model
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv
from tqdm import tqdm

from sb3_vpg import VPG
from sb3_vpg.collection.actors import LeanActor
from sb3_vpg.vec_env import EnvPoolVectorEnv, GymVecEnv

TITLE = "300,000 steps of Pendulum-v1"
ENV_ID, N_STEPS, N_EPISODES = "Pendulum-v1", 300_000, 100
QUICK_STEPS = 10_000
RLTOOLS_RUN = Path(__file__).parent / "harness/rltools_run.py"
VPG_NAME, RLTOOLS = "VPG", "PPO of RLtools, C++"
# Found by a search on seeds from 200 on, which are not measured here
REWARD_SCALE = 0.03
ENTRY: Entry = {
    "n_envs": 64,
    "n_steps": 32,
    "gamma": 0.95,
    "gae_lambda": 0.93,
    "learning_rate": "lin_0.012",
    "vf_learning_rate": "lin_0.01",
    "n_critic_updates": 4,
    "normalize_advantage": True,
    "policy_kwargs": "dict(net_arch=[32, 32], activation_fn=nn.ReLU, log_std_init=0.5)",
}
METHODS = {
    "collection": (VPG, "collect_rollouts"),
    "environment": (GymVecEnv, "step"),
    "choice of actions": (LeanActor, "act"),
    "step of the policy": (VPG, "_train_policy"),
    "fit of the critic": (VPG, "_train_critic"),
}

Run = dict[str, Any]
"""CPU ``"seconds"`` and environment ``"steps"`` of a training, and the mean ``"return"`` after it."""


def vector_env(env_id: str, n_envs: int) -> GymVecEnv:
    """:return: the environments in NumPy"""
    return GymVecEnv(PendulumVectorEnv(n_envs))


def envpool(env_id: str, n_envs: int) -> GymVecEnv:
    """:return: EnvPool's, in C++, which differ a little from gymnasium's"""
    return GymVecEnv(EnvPoolVectorEnv(env_id, n_envs, num_threads=1))


ENVIRONMENTS: dict[str, MakeEnvs] = {"NumPy": vector_env, "EnvPool, C++": envpool, "DummyVecEnv": dummy}


def new_vpg(seed: int) -> VPG:
    """:return: a new model, on environments whose rewards are scaled"""
    options = {key: value for key, value in ENTRY.items() if key != "n_envs"}
    options["policy_kwargs"] = read_dict(options["policy_kwargs"])
    env = GymVecEnv(TransformReward(PendulumVectorEnv(ENTRY["n_envs"]), lambda rewards: REWARD_SCALE * rewards))
    env.seed(seed)
    return VPG("MlpPolicy", env, seed=seed, device="cpu", **options)


def train(model: BaseAlgorithm, n_steps: int) -> Run:
    start = time.process_time()
    model.learn(n_steps)
    seconds = time.process_time() - start
    assert model.env is not None
    score = evaluate(model, evaluation_env(ENV_ID, N_EPISODES, model.env))
    return {"seconds": seconds, "steps": model.num_timesteps, "return": score}


def environment_rates(seconds: float) -> dict[str, float]:
    """:return: steps per CPU second of the environments alone, without those that are not installed"""
    rates, n_envs = {}, ENTRY["n_envs"]
    for name, make in ENVIRONMENTS.items():
        try:
            env = make(ENV_ID, n_envs)
        except (ImportError, ValueError) as error:
            print(f"left out {name}: {error}", file=sys.stderr)
            continue
        env.reset()
        actions = np.random.default_rng(0).uniform(-2.0, 2.0, (n_envs, 1)).astype(np.float32)

        def play(env: VecEnv = env, actions: np.ndarray = actions) -> int:
            env.step(actions)
            return n_envs

        rates[name] = rate(play, seconds)
        env.close()
    return rates


def phase_shares(n_steps: int) -> dict[str, float]:
    """:return: the share of each phase in the CPU time of a training; they sum to 1"""
    model = new_vpg(0)
    spent, total = seconds_in(METHODS, lambda: model.learn(n_steps))
    in_collection = ("environment", "choice of actions")
    spent["rest of the collection"] = spent.pop("collection") - sum(spent[name] for name in in_collection)
    spent[REST] = total - sum(spent.values())
    order = (*in_collection, "rest of the collection", "step of the policy", "fit of the critic", REST)
    return {name: spent[name] / total for name in order}


def run_rltools(python: str, seeds: int, n_steps: int) -> dict[str, Any]:
    """:return: the ``"runs"``, their ``"settings"``, and the ``"versions"`` of RLtools' packages"""
    task = {"seeds": list(range(seeds)), "steps": n_steps, "evaluation": {"n_episodes": N_EPISODES, "seed": EVALUATION_SEED}}
    result: dict[str, Any] = in_fresh_process(RLTOOLS_RUN, task, python)
    return result


def measure(n_steps: int, seeds: int, sb3: bool, rltools: str | None, seconds: float) -> dict[str, Any]:
    """
    :param sb3: whether to run A2C and PPO, with one seed
    :param rltools: the Python that has the package; None: not measured
    :param seconds: time of the measurement of an environment
    """
    new_vpg(0).learn(QUICK_STEPS)  # exclude what torch loads at its first use
    raw: dict[str, Any] = {"runs": {VPG_NAME: [train(new_vpg(seed), n_steps) for seed in tqdm(range(seeds))]}}
    raw["shares"], raw["environments"] = phase_shares(n_steps), environment_rates(seconds)
    raw["settings"], raw["rltools"] = {VPG_NAME: as_text(ENTRY)}, {}
    if rltools is not None:
        result = run_rltools(rltools, seeds, n_steps)
        raw["runs"][RLTOOLS], raw["rltools"] = result["runs"], result["versions"]
        raw["settings"][RLTOOLS] = as_text(result["settings"])
    for name, (algorithm, entry) in entries(ENV_ID).items() if sb3 else ():
        if algorithm != "VPG":
            raw["settings"][f"{name} of SB3"] = as_text(entry)
            for label, budget in sb3_budgets(name, n_steps).items():
                raw["runs"][label] = [train(new_model(ENV_ID, algorithm, entry), budget)]
    return raw


def sb3_budgets(name: str, n_steps: int) -> dict[str, int]:
    """:return: environment steps by name in the report: those of VPG, and those of the zoo's entry"""
    own = int(zoo_entry(name.lower(), ENV_ID)["n_timesteps"])
    return {f"{name} of SB3": n_steps, f"{name} of SB3, {own:,} steps": n_steps * own // N_STEPS}


def numbers(runs: list[Run], key: str) -> np.ndarray:
    return np.array([run[key] for run in runs])


def summary(runs: list[Run], key: str, form: str) -> list[str]:
    """:return: two cells: median, quartiles and interval; minimum and maximum"""
    values = numbers(runs, key)
    if len(values) == 1:
        return [format(values[0], form), ""]
    return [spread(values, form), f"{format(values.min(), form)} to {format(values.max(), form)}"]


def result_table(runs: dict[str, list[Run]]) -> list[str]:
    rows = []
    for name, measured in runs.items():
        steps = numbers(measured, "steps") / numbers(measured, "seconds")
        cells = [str(len(measured)), *summary(measured, "seconds", ".2f"), f"{np.median(steps):,.0f}"]
        rows.append([name, *cells, *summary(measured, "return", ".1f")])
    head = ["", "seeds", "CPU s: median, quartiles [95 %]", "min to max", "steps/s"]
    return ["## Overview", "", *table([*head, "return: median, quartiles [95 %]", "min to max"], rows)]


def goals(runs: list[Run]) -> list[Goal]:
    return [
        Goal("VPG: median CPU s", float(np.median(numbers(runs, "seconds"))), 1.5, at_least=False),
        Goal("VPG: median return", float(np.median(numbers(runs, "return"))), -300.0, form=".0f"),
    ]


def about_rltools(versions: dict[str, str]) -> list[str]:
    published = "Its authors' figure is 0.57 s, on another machine."
    if not versions:
        return [f"RLtools was not measured. {published}", ""]
    blas = f"with MKL {versions['mkl']}" if "mkl" in versions else "without MKL, with which it is several times as fast"
    return [
        f"RLtools {versions['rltools']} ran on this machine, {blas}. It has its own Pendulum in C++ and its own settings for",
        f"{N_STEPS:,} steps of it. Its compilation is not counted. {published}",
        "",
    ]


def report(raw: dict[str, Any]) -> list[str]:
    """:return: the lines of the report"""
    runs = raw["runs"]
    every = [
        [str(seed), name, f"{run['steps']:,}", f"{run['seconds']:.2f}", f"{run['return']:.1f}"]
        for name, measured in runs.items()
        for seed, run in enumerate(measured)
    ]
    return [
        f"CPU seconds of one core for the whole training, {N_STEPS:,} environment steps rounded up to complete rollouts,",
        f"without imports and the construction of the model; and the mean return of {N_EPISODES} deterministic episodes after",
        "it, in gymnasium's own environment and from the same initial states for all. Medians and quartiles over seeds; in",
        "brackets the 95 % bootstrap interval of the median. All seeds from 0 on are shown.",
        "",
        f"VPG trains on {ENTRY['n_envs']} environments in NumPy. A2C and PPO train on `DummyVecEnv` with rl-zoo3's",
        "hyperparameters and one seed, also for the zoo's own number of steps.",
        "",
        *about_rltools(raw["rltools"]),
        *result_table(runs),
        *goal_table(goals(runs[VPG_NAME])),
        "## Where VPG's time goes",
        "",
        "Shares of the CPU time of one more training, with seed 0.",
        "",
        *table(list(raw["shares"]), [[f"{share:.0%}" for share in raw["shares"].values()]]),
        f"{ENTRY['n_envs']} environments alone, with random actions, in steps per CPU second:",
        "",
        *table(list(raw["environments"]), [[f"{steps:,.0f}" for steps in raw["environments"].values()]]),
        "## Settings",
        "",
        f"What is not named has the default of the class. VPG's rewards are multiplied by {REWARD_SCALE}.",
        "",
        *table(["", "settings"], [[name, text] for name, text in raw["settings"].items()]),
        "## Every run",
        "",
        *table(["seed", "", "steps", "CPU s", "return"], every),
    ]


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--seeds", type=int, default=10, help="number of seeds, from 0 (default: %(default)s)")
    parser.add_argument("--skip-sb3", action="store_true", help="without A2C and PPO, which take most of the time")
    parser.add_argument("--rltools", metavar="PYTHON", help="Python that has the package rltools (default: this one)")
    args = parser.parse_args()
    rltools = args.rltools or (sys.executable if find_spec("rltools") else None)
    n_steps, seeds, seconds = (QUICK_STEPS, 2, 0.01) if args.quick else (N_STEPS, args.seeds, 1.0)
    raw = measure(n_steps, seeds, not args.skip_sb3, rltools, seconds)
    write_report(parser, args, TITLE, report(raw), raw, complete=not args.skip_sb3)


if __name__ == "__main__":
    main()
