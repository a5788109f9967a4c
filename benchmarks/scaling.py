"""
CPU time and memory of VPG for longer runs, more environments and wider networks.

    python benchmarks/scaling.py

Each measurement is a separate process: CPU time per environment step of ``learn()`` on one core, after one update as a
warm-up, and the peak memory of the process. Results: scaling.md and scaling.json in benchmarks/results.
"""

from harness.measure import in_fresh_process, interleaved, make_env, rate

# isort: split
import argparse
import json
import resource
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from harness.report import Goal, goal_table, make_parser, table, write_report
from tqdm import tqdm

from sb3_vpg import VPG

N_STEPS = 32
CRITICS: dict[str, dict[str, Any]] = {
    "no critic": {"baseline": "average"},
    "4 full-batch critic steps": {"n_critic_updates": 4},
}
TOLERANCE = 1.2
US, MB = "µs of CPU per step", "MB of memory at most"


@dataclass(frozen=True)
class Point:
    """
    :param sweep: the field that varies
    :param critic: a key of ``CRITICS``
    :param total: environment steps
    :param width: units of each of the two hidden layers
    """

    sweep: str
    critic: str
    total: int
    n_envs: int = 256
    width: int = 64

    @property
    def name(self) -> str:
        return f"{self.sweep}: {self.critic}, {self.total} steps, {self.n_envs} environments, width {self.width}"


LENGTHS = {"no critic": (100_000, 300_000, 1_000_000, 3_000_000, 10_000_000)}
LENGTHS["4 full-batch critic steps"] = LENGTHS["no critic"][:4]
POINTS = [
    *(Point("total", critic, total) for critic, totals in LENGTHS.items() for total in totals),
    *(Point("n_envs", critic, 2**18, n_envs) for critic in CRITICS for n_envs in (8, 32, 128, 512, 2048, 4096)),
    *(Point("width", critic, 2**17, width=width) for critic in CRITICS for width in (16, 32, 64, 128, 256, 512)),
]


def peak_memory() -> float:
    """:return: the peak memory of this process in MB"""
    status = Path("/proc/self/status")
    if status.is_file():
        # On Linux, getrusage includes the memory of the process that this one was forked from
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, others kilobytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def measure(point: Point) -> dict[str, float]:
    env = make_env("native", point.n_envs)
    options = {"policy_kwargs": {"net_arch": [point.width, point.width]}, **CRITICS[point.critic]}
    model = VPG("MlpPolicy", env, n_steps=N_STEPS, seed=0, device="cpu", **options)
    model.learn(1)
    return {US: 1e6 / rate(lambda: model.learn(point.total).num_timesteps), MB: peak_memory()}


def measure_all(points: list[Point], repetitions: int) -> dict[str, dict[str, list[float]]]:
    """:return: by name of the point and by quantity, the numbers of all rounds"""
    with tqdm(total=len(points) * repetitions) as bar:

        def task(point: Point) -> Callable[[], dict[str, float]]:
            def run() -> dict[str, float]:
                result: dict[str, float] = in_fresh_process(__file__, asdict(point))
                bar.update()
                return result

            return run

        results = interleaved({point.name: task(point) for point in points}, repetitions)
    return {name: {quantity: [row[quantity] for row in rows] for quantity in (US, MB)} for name, rows in results.items()}


def goals(points: list[Point], measured: dict[str, dict[str, list[float]]]) -> list[Goal]:
    """The cost does not depend on the length of a run: the largest median is at most 20 % above the smallest."""
    result = []
    for critic in CRITICS:
        names = [point.name for point in points if point.sweep == "total" and point.critic == critic]
        for quantity in (US, MB):
            medians = [float(np.median(measured[name][quantity])) for name in names]
            what = f"{critic}, {quantity}: most / least, over totals"
            result.append(Goal(what, max(medians) / min(medians), TOLERANCE, False))
    return result


def sweep_table(sweep: str, points: list[Point], measured: dict[str, dict[str, list[float]]]) -> list[str]:
    rows = []
    for point in points:
        if point.sweep == sweep:
            numbers = measured[point.name]
            low, high = min(numbers[US]), max(numbers[US])
            cells = [point.critic, f"{point.total:,}", f"{point.n_envs:,}", str(point.width)]
            cells += [f"{np.median(numbers[US]):.2f}", f"{low:.2f} to {high:.2f}", f"{np.median(numbers[MB]):,.0f}"]
            rows.append(cells)
    return table(["", "steps", "n_envs", "width", US, "range", MB], rows)


def arguments() -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    parser = make_parser(__doc__)
    parser.add_argument(
        "--repetitions", type=int, default=3, help="number of rounds; each measures every point (default: %(default)s)"
    )
    parser.add_argument("--task", help=argparse.SUPPRESS)
    return parser, parser.parse_args()


def main() -> None:
    parser, args = arguments()
    if args.task:
        print(json.dumps(measure(Point(**json.loads(args.task)))))
        return
    points, repetitions = POINTS, args.repetitions
    if args.quick:
        ends = [point for point in POINTS if point.total in (100_000, 300_000) or point.n_envs == 4096 or point.width == 512]
        points, repetitions = [replace(point, total=point.total // 100) for point in ends if point.critic == "no critic"], 1
        points += [replace(point, critic="4 full-batch critic steps") for point in points]
    measured = measure_all(points, repetitions)
    introduction = [
        f"`learn()` on the vector CartPole-v1 with `n_steps={N_STEPS}`, two hidden layers, and VPG's defaults except for what",
        f"is named. Memory is that of the process, Python and torch included. Medians and ranges; rounds: {repetitions}.",
        "",
    ]
    lines = [*introduction, *goal_table(goals(points, measured))]
    for sweep, title in (("total", "Length of the run"), ("n_envs", "Environments"), ("width", "Width of the network")):
        lines += [f"## {title}", "", *sweep_table(sweep, points, measured)]
    write_report(parser, args, "What a step costs", lines, {"points": measured})


if __name__ == "__main__":
    main()
