"""
When does a GPU pay? Steps per second of VPG on the CPU and on the GPU: wide networks, images, many environments.

    python benchmarks/gpu.py

Needs a CUDA device. Results: gpu.md and gpu.json in benchmarks/results.
"""

from harness.measure import interleaved, rate, ratio
from harness.measure import make_env as make_cartpole

# isort: split
import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch as th
from harness.report import make_parser, table, write_report
from stable_baselines3.common.envs import FakeImageEnv
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from sb3_vpg import VPG

TITLE = "CPU and GPU"
NO_DEVICE = "benchmarks/gpu.py compares the CPU with a CUDA device, but torch finds none on this machine"
DEVICES = ("cpu", "cuda")
PIXELS = 84


@dataclass(frozen=True)
class Case:
    """
    :param observations: ``"numbers"``: CartPole-v1 in gymnasium's vector form; ``"images"``: random pixels, which cost the
        environment nothing
    :param n_steps: steps of each environment in a rollout
    :param width: units of each of the two hidden layers
    :param n_critic_updates: passes of the critic
    """

    observations: str
    n_envs: int
    n_steps: int
    width: int
    n_critic_updates: int = 4

    @property
    def name(self) -> str:
        return f"{self.observations}, {self.n_envs} environments of {self.n_steps} steps, width {self.width}"


CASES = [
    Case("numbers", 8, 256, 64),
    Case("numbers", 256, 32, 64),
    Case("numbers", 4096, 32, 64),
    Case("numbers", 256, 32, 512),
    Case("numbers", 4096, 32, 512),
    Case("numbers", 256, 32, 2048),
    Case("images", 8, 32, 64),
    Case("images", 64, 32, 64),
]


def make_env(case: Case) -> VecEnv:
    if case.observations == "numbers":
        return make_cartpole("native", case.n_envs)
    return DummyVecEnv([lambda: FakeImageEnv(PIXELS, PIXELS, n_channels=4, channel_first=True)] * case.n_envs)


def new_model(case: Case, device: str) -> VPG:
    policy = "MlpPolicy" if case.observations == "numbers" else "CnnPolicy"
    options: dict[str, Any] = {"n_steps": case.n_steps, "n_critic_updates": case.n_critic_updates}
    return VPG(policy, make_env(case), seed=0, device=device, policy_kwargs={"net_arch": [case.width] * 2}, **options)


def trainer(case: Case, device: str, n_rollouts: int) -> Callable[[], float]:
    """:return: a function that trains a model for some rollouts and returns its steps per second of wall-clock time"""
    model = new_model(case, device)
    n_steps = n_rollouts * case.n_envs * case.n_steps
    # Excluded: what torch loads at its first use, and the first choice of convolutions
    model.learn(1)
    # The last losses are read from the GPU, so learn() returns when the GPU has finished
    return lambda: rate(lambda: model.learn(n_steps).num_timesteps, clock=time.perf_counter)


def measure(cases: Sequence[Case], n_rollouts: int, repetitions: int) -> dict[str, dict[str, list[float]]]:
    """:return: by name of the case and by device, the steps per second of each round"""
    results = {}
    for case in cases:
        # One case at a time, so that the models of the others take no memory
        tasks = {device: trainer(case, device, n_rollouts) for device in DEVICES}
        results[case.name] = interleaved(tasks, repetitions)
    return results


def report(cases: Sequence[Case], rates: dict[str, dict[str, list[float]]], device_name: str, n_threads: int) -> list[str]:
    """:return: the lines of the report"""
    rows = []
    for case in cases:
        measured = rates[case.name]
        cells = [case.observations, f"{case.n_envs:,}", str(case.n_steps), f"{case.width:,}"]
        cells += [f"{np.median(measured[device]):,.0f}" for device in DEVICES]
        rows.append([*cells, f"{ratio(measured['cuda'], measured['cpu']):.2f}"])
    repetitions = len(next(iter(rates.values()))["cpu"])
    return [
        f"GPU: {device_name}. CPU: {n_threads} threads. `learn()` in steps per second of wall-clock time, without its",
        f"first rollout, with {CASES[0].n_critic_updates} passes of the critic. Numbers: CartPole-v1 in gymnasium's",
        f"vector form. Images: random pixels, 4 x {PIXELS} x {PIXELS}, in `DummyVecEnv`, SB3's convolutions for actor and",
        f"critic. Medians over {repetitions} rounds; a ratio is the median of the ratios within each round.",
        "",
        *table(["observations", "n_envs", "n_steps", "width", "CPU steps/s", "GPU steps/s", "GPU / CPU"], rows),
    ]


def arguments() -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    parser = make_parser(__doc__)
    parser.add_argument(
        "--repetitions", type=int, default=5, help="number of rounds; each measures both devices (default: %(default)s)"
    )
    parser.add_argument("--rollouts", type=int, default=4, help="rollouts of one measurement (default: %(default)s)")
    parser.add_argument(
        "--threads", type=int, default=os.cpu_count(), help="threads of the CPU (default: all cores of the machine)"
    )
    return parser, parser.parse_args()


def main() -> None:
    parser, args = arguments()
    if not th.cuda.is_available():
        sys.exit(NO_DEVICE)
    cases, n_rollouts, repetitions = CASES, args.rollouts, args.repetitions
    if args.quick:
        small = [case for case in CASES if case.n_envs == 8]
        cases, n_rollouts, repetitions = [replace(case, n_envs=2, n_steps=4) for case in small], 1, 1
    th.set_num_threads(args.threads)
    rates, name = measure(cases, n_rollouts, repetitions), th.cuda.get_device_name()
    lines = report(cases, rates, name, args.threads)
    write_report(parser, args, TITLE, lines, {"device": name, "steps_per_second": rates, "cases": [*map(asdict, cases)]})


if __name__ == "__main__":
    main()
