"""
Does a killed training continue exactly after ``--resume``? Runs are killed fifty times with ``kill -9``.

    python benchmarks/crash.py

Runs of ``sb3-vpg train`` with different settings are killed repeatedly, and started again with ``--resume``, until they
finish. Three things are checked:

* after each kill, every file of the run is complete (partial files have another name);
* after each start, training continues from the newest checkpoint;
* at the end, weights, evaluations and episodes equal those of the same command without kills, to the last bit.

The kills are at random times over the whole run; some wait for a checkpoint, an evaluation, the start or the end. The same
``--seed`` draws the same times, relative to the length of the run. Results: crash.md and crash.json in benchmarks/results.
"""

import math
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from harness.kill_times import TARGETS, RunSize, draw_kill_times, kill_at
from harness.killed_process import TrainingProcess
from harness.report import Goal, goal_table, make_parser, table, write_report
from harness.run_integrity import damaged_files, differences, name_of_partial
from tqdm import tqdm

from sb3_vpg.checkpoints import latest

CASES = {
    "default": ["--env", "CartPole-v1"],
    "native": ["--env", "CartPole-v1", "--vec-env", "native", "-params", "n_envs:16"],
    "normalised": ["--env", "CartPole-v1", "-params", "normalize:True", "batch_size:100"],
    "whole episodes": ["--env", "CartPole-v1", "-params", "n_episodes:2", "baseline:'leave_one_out'", "n_envs:8"],
    "continuous": ["--env", "Pendulum-v1", "-params", "use_sde:True", "n_envs:4", "n_steps:64"],
    "native, normalised": ["--env", "CartPole-v1", "--vec-env", "native", "-params", "normalize:True", "n_envs:8"],
}
PER_RUN = len(TARGETS) + 1  # kills: one for each target, and one at the end
ROUNDS = 3
QUICK = RunSize(steps=2_000, eval_freq=500, checkpoint_freq=500, episodes=2)


@dataclass
class Kill:
    """
    :param run: name of the run
    :param aim: target of the kill, see ``KillTime``
    :param doing: what the process was doing
    :param steps: steps of the run so far
    :param checkpoint: steps of the newest checkpoint; None if there was none
    :param damaged: the damaged files
    :param taken_up: the steps from which training continued; None if it did not
    :param outcome: "resumed", or what went wrong
    """

    run: str
    aim: str
    doing: str
    steps: int
    checkpoint: int | None
    damaged: list[str]
    taken_up: int | None = None
    outcome: str = "never started again"

    @property
    def lost(self) -> int | None:
        return None if self.taken_up is None else self.steps - self.taken_up


@dataclass
class Run:
    """
    :param name: name in the report
    :param command: the flags in which it differs from other runs
    :param rollout: the most steps of an iteration, during which no checkpoint is written
    :param kills: in order
    :param differences: from the same run without kills
    """

    name: str
    command: list[str]
    rollout: int
    kills: list[Kill] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)


def activity(process: TrainingProcess, parts: Sequence[Path]) -> str:
    """
    :param parts: the partial files and folders that the process left
    :return: what the process was doing
    """
    # The folder for the log of an evaluation exists when the evaluation begins, a file in it when it is over
    names = [(str(name_of_partial(part)), part.is_file()) for part in parts]
    writing = sorted({name for name, is_file in names if is_file or name != "evaluations.npz"})
    if writing:
        return f"writing {', '.join(writing)}"
    if parts:
        return "evaluating"
    if process.last("saving"):
        return "ending"
    if not process.lines:
        return "imports"
    return "making the model" if process.steps < 0 else "training"


def examine(process: TrainingProcess, target: str, run: Run, folder: Path | None, known: set[Path]) -> Kill:
    """
    Record what a kill left behind.

    :param target: what the kill aimed at, see ``KillTime``
    :param folder: of the run; None if there is none yet
    :param known: the partial files that earlier kills left; those of this kill are added
    """
    paths = [] if folder is None else list(folder.rglob("*"))
    new = [path for path in paths if name_of_partial(path) and path not in known]
    known.update(new)
    newest = None if folder is None else latest(folder / "checkpoints")
    checkpoint = None if newest is None else int(newest.name.split("_")[1])
    steps = max(process.steps, checkpoint or 0)
    damaged = [] if folder is None else damaged_files(folder)
    return Kill(run.name, target, activity(process, new), steps, checkpoint, damaged)


def set_outcomes(pending: list[Kill], process: TrainingProcess, fresh: bool) -> None:
    """
    Set the outcome of the pending kills if this process continued the training.

    :param pending: the kills since training last continued; emptied if this process continued it
    :param fresh: True if the process was started without ``--resume``, because there was no run folder
    """
    start = process.last("resumed", "restarted", "complete")
    trained = process.last("rollout", "saving")
    if start is None and not (fresh and trained):
        return
    for kill in pending:
        kill.taken_up = start.steps if start else 0
        expected = kill.checkpoint or 0
        kill.outcome = "resumed" if kill.taken_up == expected else f"went on from another point than {expected:,}"
        if kill.damaged:
            kill.outcome = f"damaged: {'; '.join(kill.damaged)}"
    pending.clear()


def find_run(logs: Path) -> Path | None:
    """:return: the folder of the only run"""
    return next(logs.glob("vpg/*_1"), None)


def finished(logs: Path) -> bool:
    """:return: True if the run has written its last file"""
    return any(logs.glob("vpg/*_1/*/finished.txt"))


def kill_and_resume(name: str, case: str, seed: int, number: int, size: RunSize, folder: Path) -> Run:
    """
    Train a reference run without kills, then the same run with kills.

    :param number: of kills; there are fewer if the run ends before
    :return: the kills, and the differences between the two runs
    """
    flags = [*CASES[case], "--seed", str(seed)]
    command = [*flags, *size.flags]
    with TrainingProcess([*command, "-f", str(folder / "reference")]) as reference:
        if reference.finish() != 0:
            raise RuntimeError(f"the run {name} fails without any kill: {' / '.join(reference.lines[-3:])}")
    rollouts = [event.steps for event in reference.events if event.kind == "rollout"]
    run = Run(name, flags, int(max(np.diff([0, *rollouts]))))
    kill_times = draw_kill_times(reference.events, number, seed % 2 == 1, size, np.random.default_rng(seed))
    logs = folder / "killed"
    pending: list[Kill] = []
    known: set[Path] = set()
    for kill_time in [*kill_times, None]:
        run_folder = find_run(logs)
        with TrainingProcess([*command, "-f", str(logs), *(["--resume"] if run_folder else [])]) as process:
            killed = kill_time is not None and kill_at(process, kill_time, lambda: find_run(logs))
            code = 0 if killed else process.finish()
            set_outcomes(pending, process, run_folder is None)
            if kill_time is None or not killed:
                break
            if finished(logs):
                # The kill came after the last file, so it does not count
                continue
            pending.append(examine(process, kill_time.target, run, find_run(logs), known))
            run.kills.append(pending[-1])
    if code != 0:
        for kill in pending or run.kills[-1:]:
            kill.outcome = f"not resumed: {' / '.join(process.lines[-3:])}"
    run.differences = differences(find_run(logs) or logs, find_run(folder / "reference") or folder)
    return run


def kill_and_resume_all(number: int, seed: int, jobs: int, size: RunSize, folder: Path) -> list[Run]:
    """
    Run until there were ``number`` kills in total. A process may end before its kill, so up to ``ROUNDS`` rounds are needed.
    """
    runs: list[Run] = []

    def task(index: int, share: int) -> Run:
        case = list(CASES)[index % len(CASES)]
        return kill_and_resume(f"{index + 1}: {case}", case, 1000 * seed + index + 1, share, size, folder / str(index))

    for _ in range(ROUNDS):
        missing = number - sum(len(run.kills) for run in runs)
        if not missing:
            break
        shares = [len(share) for share in np.array_split(range(missing), math.ceil(missing / PER_RUN))]
        with ThreadPoolExecutor(jobs) as pool:
            try:
                done = pool.map(task, range(len(runs), len(runs) + len(shares)), shares)
                runs += tqdm(done, total=len(shares), desc="runs")
            except BaseException:
                # The pool would wait for its processes
                TrainingProcess.stop_all()
                raise
    return runs


def goals(runs: Sequence[Run], number: int, size: RunSize) -> list[Goal]:
    kills = [kill for run in runs for kill in run.kills]
    bound = {run.name: size.checkpoint_freq + run.rollout for run in runs}
    costly = [kill for kill in kills if kill.lost is None or kill.lost > bound[kill.run]]
    return [
        Goal("kills after which training was resumed from the newest checkpoint", _resumed(kills), number, form="d"),
        Goal("kills that left a damaged file", sum(bool(kill.damaged) for kill in kills), 0, False, "d"),
        Goal("kills that cost more steps than from one checkpoint to the next, and a rollout", len(costly), 0, False, "d"),
        Goal("runs that ended as if they had not been killed", sum(not run.differences for run in runs), len(runs), form="d"),
    ]


def _resumed(kills: Sequence[Kill]) -> int:
    return sum(kill.outcome == "resumed" for kill in kills)


def page(runs: Sequence[Run], number: int, size: RunSize) -> list[str]:
    kills = [kill for run in runs for kill in run.kills]
    equal = sum(not run.differences for run in runs)
    activities = Counter(kill.doing.split(" ")[0] for kill in kills)
    return [
        f"**{_resumed(kills)} of {number} resumed; {equal} of {len(runs)} runs ended to the last bit as if never killed.**",
        "",
        f"Runs of {size.steps:,} steps with a checkpoint every {size.checkpoint_freq:,} and an evaluation of {size.episodes}",
        f"episodes every {size.eval_freq:,}, killed with SIGKILL and started again with `--resume` until they were finished.",
        "What the process was doing is seen from its partial files and from its last lines of output (a table after each",
        "rollout). Kills by activity:",
        f"{', '.join(f'{what} {count}' for what, count in activities.most_common())}.",
        "",
        *goal_table(goals(runs, number, size)),
        "## Runs",
        "",
        "Compared with the same command without kills: weights and optimisers of the final model, the best model and the",
        "last checkpoints, `evaluations.npz`, statistics of `VecNormalize`, returns and lengths in Monitor's files, and the",
        f"names of all files. All with `{' '.join(size.flags)}`.",
        "",
        *table(["run", "`sb3-vpg train` …", "kills", "differences"], [_run_row(run) for run in runs]),
        "## Kills",
        "",
        "Steps are those that the process had printed, so they may be behind by a rollout. A process that was killed before",
        "it had trained loses nothing: its steps are those of its checkpoint. Resumed from step 0: there was no checkpoint.",
        "",
        *table(
            ["", "run", "while", "after step", "resumed from step", "steps lost", "outcome"],
            [_kill_row(index, kill) for index, kill in enumerate(kills, start=1)],
        ),
    ]


def _run_row(run: Run) -> list[str]:
    return [run.name, f"`{' '.join(run.command)}`", str(len(run.kills)), "; ".join(run.differences) or "none"]


def _kill_row(index: int, kill: Kill) -> list[str]:
    numbers = ["none" if number is None else f"{number:,}" for number in (kill.steps, kill.taken_up, kill.lost)]
    return [str(index), kill.run, kill.doing, *numbers, kill.outcome]


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--kills", type=int, default=50, help="number of kills in all runs together (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the kill times and of the runs (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time (default: %(default)s)")
    args = parser.parse_args()
    if not hasattr(signal, "SIGKILL"):
        sys.exit("crash.py: this system has no SIGKILL")
    if args.kills < 1:
        sys.exit(f"crash.py: --kills must be at least 1, but is {args.kills}")
    number, size = (2, QUICK) if args.quick else (args.kills, RunSize())
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory() as folder:
        runs = kill_and_resume_all(number, args.seed, args.jobs, size, Path(folder))
    write_report(parser, args, "Killed and resumed", page(runs, number, size), {"runs": [asdict(run) for run in runs]})


if __name__ == "__main__":
    main()
