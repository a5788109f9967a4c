"""
Does a training that is killed go on as if it had not been? Fifty times ``kill -9`` at random moments, and ``--resume``.

    python benchmarks/crash.py

Runs of ``sb3-vpg train``, each of another kind, are killed again and again and started again with ``--resume`` until they are
done. After each kill, every file of the run that has its name has to be whole; after each start, training has to go on from
the newest checkpoint; in the end, the run has to be that of the same command which nobody killed: weights, evaluations and
episodes to the last bit. The moments are drawn over the whole life of a run, and some are aimed at what is most delicate. The
same ``--seed`` draws the same shares of a run's life. Results: crash.md and crash.json in benchmarks/results.
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
from aims import AIMS, Aim, Size, draw, strike
from report import Goal, deliver, goal_table, parser, table
from tqdm import tqdm
from victims import Victim
from wholeness import damage, differences, part_in

from sb3_vpg.checkpoints.files import latest

CASES = {
    "default": ["--env", "CartPole-v1"],
    "native": ["--env", "CartPole-v1", "--vec-env", "native", "-params", "n_envs:16"],
    "normalised": ["--env", "CartPole-v1", "-params", "normalize:True", "batch_size:100"],
    "whole episodes": ["--env", "CartPole-v1", "-params", "n_episodes:2", "baseline:'leave_one_out'", "n_envs:8"],
    "continuous": ["--env", "Pendulum-v1", "-params", "use_sde:True", "n_envs:4", "n_steps:64"],
    "native, normalised": ["--env", "CartPole-v1", "--vec-env", "native", "-params", "normalize:True", "n_envs:8"],
}
PER_RUN = len(AIMS) + 1
ROUNDS = 3
QUICK = Size(steps=2_000, eval_freq=500, checkpoint_freq=500, episodes=2)


@dataclass
class Kill:
    """
    :param run: its name
    :param aim: what it was aimed at
    :param doing: what the process was doing
    :param steps: how far it had come
    :param checkpoint: steps of the newest checkpoint that it left; None: there was none
    :param damaged: files that were not whole
    :param taken_up: the steps from which training went on; None: not at all
    :param outcome: "resumed" if all is well
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
    :param name: of it
    :param command: flags that make it another run than others
    :param rollout: the most steps of an iteration, in which no checkpoint can be written
    :param kills: one after the other
    :param differences: to the same run in one piece
    """

    name: str
    command: list[str]
    rollout: int
    kills: list[Kill] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)


def doing(victim: Victim, parts: Sequence[Path]) -> str:
    """
    :param parts: what it has left of files that were to get their names when they are whole
    :return: what the process was doing
    """
    # The folder for the log of an evaluation is there before it begins, a file in it when it is over
    names = [(str(part_in(part)), part.is_file()) for part in parts]
    writing = sorted({name for name, is_file in names if is_file or name != "evaluations.npz"})
    if writing:
        return f"writing {', '.join(writing)}"
    if parts:
        return "evaluating"
    if victim.last("saving"):
        return "ending"
    if not victim.lines:
        return "imports"
    return "making the model" if victim.steps < 0 else "training"


def examine(victim: Victim, aim: Aim, run: Run, folder: Path | None, known: set[Path]) -> Kill:
    """
    :param folder: of the run; None: there is none yet
    :param known: parts of files that earlier kills have left; those of this one are added
    """
    there = [] if folder is None else list(folder.rglob("*"))
    new = [path for path in there if part_in(path) and path not in known]
    known.update(new)
    newest = None if folder is None else latest(folder / "checkpoints")
    checkpoint = None if newest is None else int(newest.name.split("_")[1])
    steps = max(victim.steps, checkpoint or 0)
    return Kill(run.name, aim.what, doing(victim, new), steps, checkpoint, [] if folder is None else damage(folder))


def judge(pending: list[Kill], victim: Victim, fresh: bool) -> None:
    """
    Settle the kills that this process has gone on from.

    :param pending: those since a process last went on; emptied if this one did
    :param fresh: it was started without ``--resume``, because there was no folder of a run
    """
    told = victim.last("taken up", "begun anew", "complete")
    trained = victim.last("rollout", "saving")
    if told is None and not (fresh and trained):
        return
    for kill in pending:
        kill.taken_up = told.steps if told else 0
        expected = kill.checkpoint or 0
        kill.outcome = "resumed" if kill.taken_up == expected else f"went on from another point than {expected:,}"
        if kill.damaged:
            kill.outcome = f"damaged: {'; '.join(kill.damaged)}"
    pending.clear()


def find(logs: Path) -> Path | None:
    """:return: the folder of the only run"""
    return next(logs.glob("vpg/*_1"), None)


def finished(logs: Path) -> bool:
    """:return: whether the run has come to its last file"""
    return any(logs.glob("vpg/*_1/*/finished.txt"))


def torture(name: str, case: str, seed: int, number: int, size: Size, folder: Path) -> Run:
    """Train a run in one piece and one that is killed so many times, or until it is done. :return: what came of it"""
    rng = np.random.default_rng(seed)
    own = [*CASES[case], "--seed", str(seed)]
    command = [*own, *size.flags]
    with Victim([*command, "-f", str(folder / "whole")]) as whole:
        if whole.finish() != 0:
            raise RuntimeError(f"the run {name} fails without any kill: {' / '.join(whole.lines[-3:])}")
    rollouts = [event.steps for event in whole.events if event.kind == "rollout"]
    run = Run(name, own, int(max(np.diff([0, *rollouts]))))
    aims = draw(whole.events, number, seed % 2 == 1, size, rng)
    logs = folder / "killed"
    pending: list[Kill] = []
    known: set[Path] = set()
    for aim in [*aims, None]:
        there = find(logs)
        with Victim([*command, "-f", str(logs), *(["--resume"] if there else [])]) as victim:
            struck = aim is not None and strike(victim, aim, lambda: find(logs))
            code = 0 if struck else victim.finish()
            judge(pending, victim, there is None)
            if aim is None or not struck:
                break
            if finished(logs):
                # It was too late to do any harm
                continue
            pending.append(examine(victim, aim, run, find(logs), known))
            run.kills.append(pending[-1])
    if code != 0:
        for kill in pending or run.kills[-1:]:
            kill.outcome = f"not resumed: {' / '.join(victim.lines[-3:])}"
    run.differences = differences(find(logs) or logs, find(folder / "whole") or folder)
    return run


def torture_all(number: int, seed: int, jobs: int, size: Size, folder: Path) -> list[Run]:
    """As many runs as it takes, in which a process may end before it is killed, for so many kills in all."""
    runs: list[Run] = []

    def task(index: int, share: int) -> Run:
        case = list(CASES)[index % len(CASES)]
        return torture(f"{index + 1}: {case}", case, 1000 * seed + index + 1, share, size, folder / str(index))

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
                # The pool would wait for them
                Victim.end_all()
                raise
    return runs


def goals(runs: Sequence[Run], number: int, size: Size) -> list[Goal]:
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


def page(runs: Sequence[Run], number: int, size: Size) -> list[str]:
    kills = [kill for run in runs for kill in run.kills]
    whole = sum(not run.differences for run in runs)
    moments = Counter(kill.doing.split(" ")[0] for kill in kills)
    return [
        f"**{_resumed(kills)} of {number} resumed; {whole} of {len(runs)} runs ended to the last bit as if never killed.**",
        "",
        f"Runs of {size.steps:,} steps with a checkpoint every {size.checkpoint_freq:,} and an evaluation of {size.episodes}",
        f"episodes every {size.eval_freq:,}, killed with SIGKILL and started again with `--resume` until they were done. What",
        "the process was doing is told from outside: by what it left half-written under another name, and by what it had",
        "printed last (a table after each rollout). So often:",
        f"{', '.join(f'{what} {count}' for what, count in moments.most_common())}.",
        "",
        *goal_table(goals(runs, number, size)),
        "## Runs",
        "",
        "Compared with the same command in one piece: weights and optimisers of the final model, of the best model and of the",
        "last checkpoints, `evaluations.npz`, statistics of `VecNormalize`, returns and lengths in Monitor's files, and the",
        f"names of all files. All with `{' '.join(size.flags)}`.",
        "",
        *table(["run", "`sb3-vpg train` …", "kills", "differences"], [_run_row(run) for run in runs]),
        "## Kills",
        "",
        "Steps are those that the process had told of, so they may be behind by a rollout. A process that was killed before",
        "it had trained stands at its checkpoint and loses nothing. 0 to go on from: there was no checkpoint yet.",
        "",
        *table(
            ["", "run", "while", "after step", "went on from", "steps lost", "outcome"],
            [_kill_row(index, kill) for index, kill in enumerate(kills, start=1)],
        ),
    ]


def _run_row(run: Run) -> list[str]:
    return [run.name, f"`{' '.join(run.command)}`", str(len(run.kills)), "; ".join(run.differences) or "none"]


def _kill_row(index: int, kill: Kill) -> list[str]:
    numbers = ["none" if number is None else f"{number:,}" for number in (kill.steps, kill.taken_up, kill.lost)]
    return [str(index), kill.run, kill.doing, *numbers, kill.outcome]


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--kills", type=int, default=50, help="in all runs together (default: %(default)s)")
    made.add_argument("--seed", type=int, default=0, help="of the moments and of the runs (default: %(default)s)")
    made.add_argument("--jobs", type=int, default=2, help="runs at a time (default: %(default)s)")
    args = made.parse_args()
    if not hasattr(signal, "SIGKILL"):
        sys.exit("crash.py: this system has no SIGKILL")
    if args.kills < 1:
        sys.exit(f"crash.py: --kills must be at least 1, but is {args.kills}")
    number, size = (2, QUICK) if args.quick else (args.kills, Size())
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory() as folder:
        runs = torture_all(number, args.seed, args.jobs, size, Path(folder))
    deliver(made, args, "Killed and resumed", page(runs, number, size), {"runs": [asdict(run) for run in runs]})


if __name__ == "__main__":
    main()
