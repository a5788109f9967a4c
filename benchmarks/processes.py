"""
What do two processes gain that train one model, and what does their exchange cost?

    python benchmarks/processes.py

CartPole-v1 and HalfCheetah-v4 with one process, with one and two that torchrun starts, and with two independent runs side by
side, which is the limit of the machine. Takes about 5 minutes. Results: processes.md and .json in benchmarks/results.
"""

from harness.measure import in_fresh_process, interleaved

# isort: split
import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from harness.process_report import ALONE, LIMIT, ONE, TITLE, TWO, Raw, report
from harness.process_runs import run_task
from harness.report import make_parser, write_report
from harness.task_settings import N_ENVS
from tqdm import tqdm

STEPS = {"CartPole-v1": 150_000, "HalfCheetah-v4": 50_000}
"""Environment steps of one training."""
N_EXCHANGES, QUICK_EXCHANGES = 500, 5

Task = dict[str, Any]
Processes = list[dict[str, Any]]


def by_torchrun(task: Task, n_processes: int) -> Any:
    """:return: the result of a task that so many processes do together"""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(n_processes)]
    command = [*torchrun, __file__, "--task", json.dumps(task)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def side_by_side(tasks: list[Task]) -> Processes:
    """:return: what processes measured that know nothing of one another, and train at the same time"""
    commands = [[sys.executable, __file__, "--task", json.dumps({**task, "waits": True})] for task in tasks]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    processes = [subprocess.Popen(command, text=True, **pipes) for command in commands]
    for process in processes:
        assert process.stdout is not None
        line = process.stdout.readline()
        if line != "ready\n":
            raise RuntimeError(f"a run of its own printed {line!r} and ended with {process.wait()}; its error is above")
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    return [json.loads(process.communicate()[0].splitlines()[-1])[0] for process in processes]


def trainings(env_id: str, n_steps: int) -> dict[str, Callable[[], Processes]]:
    """:return: by name in the report, a function that trains and returns what each process measured"""
    task = {"function": "train", "env_id": env_id, "n_envs": N_ENVS, "n_steps": n_steps}
    half = {**task, "n_envs": N_ENVS // 2, "n_steps": n_steps // 2}
    return {
        ALONE: lambda: in_fresh_process(__file__, task),
        ONE: lambda: by_torchrun(task, 1),
        TWO: lambda: by_torchrun(task, 2),
        LIMIT: lambda: side_by_side([half, {**half, "seed": 1}]),
    }


def measure(steps: dict[str, int], repetitions: int, n_exchanges: int) -> Raw:
    raw: Raw = {"runs": {}, "exchange": {}, "n_envs": N_ENVS}
    for env_id, n_steps in tqdm(steps.items()):
        runs = raw["runs"][env_id] = interleaved(trainings(env_id, n_steps), repetitions)
        sizes = {name: runs[TWO][0][0][name] for name in ("n_numbers", "n_bytes")}
        raw["exchange"][env_id] = by_torchrun({"function": "exchange", "repetitions": n_exchanges, **sizes}, 2)
    return raw


def arguments() -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    parser = make_parser(__doc__)
    parser.add_argument(
        "--repetitions", type=int, default=4, help="number of rounds; each measures everything (default: %(default)s)"
    )
    parser.add_argument("--task", help=argparse.SUPPRESS)
    return parser, parser.parse_args()


def main() -> None:
    parser, args = arguments()
    if args.task:
        run_task(args.task)
        return
    steps, repetitions, n_exchanges = STEPS, args.repetitions, N_EXCHANGES
    if args.quick:
        steps, repetitions, n_exchanges = {"CartPole-v1": 2}, 1, QUICK_EXCHANGES
    raw = measure(steps, repetitions, n_exchanges)
    write_report(parser, args, TITLE, report(raw), raw)


if __name__ == "__main__":
    main()
