"""
Does a long run stay as it began? Ten million steps of VPG in one process, with a look at what it holds at every hundredth.

    python benchmarks/soak.py

Memory, open files, threads and the time per million steps of ``learn()`` on the vector CartPole-v1, with all that a long run
has about it: a monitor file, a checkpoint of the whole state of training at every 200th, an evaluation that keeps the best
model at every 20th. Linux alone tells in ``/proc`` what it takes. Results: soak.md, soak.json and soak.png in
benchmarks/results.
"""

from measure import make_env

# isort: split
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from report import Goal, deliver, folder_for, goal_table, parser, table
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback

from sb3_vpg import VPG
from sb3_vpg.checkpoints.callback import TrainingCheckpoint
from sb3_vpg.checkpoints.files import latest
from sb3_vpg.vec_env.gym_vec_env import make_vec_env

N_ENVS, N_STEPS, N_CRITIC_UPDATES = 256, 32, 4
N_SAMPLES, N_CHECKPOINTS, N_EVALUATIONS, N_EVALUATED = 100, 200, 20, 20
PARTS = 10
PROC = Path("/proc/self")
# What the allocator holds goes up and down by 3 %. A leak that keeps below 5 % loses at most 2 bytes a step
MEMORY, TIME = 1.05, 1.2


@dataclass(frozen=True)
class Sample:
    """
    :param steps: environment steps so far
    :param wall: seconds since training began
    :param cpu: seconds of all threads since then, the children's not in it
    :param memory: resident, MB
    :param handles: open file descriptors, one of them that of the look itself
    :param threads: of the process
    :param checkpoint: size of the latest one, KB; 0: none yet
    """

    steps: int
    wall: float
    cpu: float
    memory: float
    handles: int
    threads: int
    checkpoint: float


class SampleCallback(BaseCallback):
    """
    Takes a sample before the first rollout that begins after every so many steps, and when training ends.

    :param every: steps from one to the next
    :param checkpoints: folder of the checkpoints
    :param samples: filled; an argument, so that no checkpoint takes it for a part of the state of training and grows with it
    """

    def __init__(self, every: int, checkpoints: Path, samples: list[Sample]) -> None:
        super().__init__()
        self.every, self.checkpoints, self.samples = every, checkpoints, samples

    def _on_training_start(self) -> None:
        self.begun = time.perf_counter(), time.process_time()

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        if self.num_timesteps // self.every > (self.samples[-1].steps if self.samples else 0) // self.every:
            self._take()

    def _on_training_end(self) -> None:
        if not self.samples or self.num_timesteps > self.samples[-1].steps:
            self._take()

    def _take(self) -> None:
        wall, cpu = time.perf_counter() - self.begun[0], time.process_time() - self.begun[1]
        status = dict(line.split(":", 1) for line in (PROC / "status").read_text().splitlines())
        memory, threads = int(status["VmRSS"].split()[0]) / 1024, int(status["Threads"])
        handles = len(list((PROC / "fd").iterdir()))
        newest = latest(self.checkpoints)
        size = newest.stat().st_size / 1024 if newest else 0.0
        self.samples.append(Sample(self.num_timesteps, wall, cpu, memory, handles, threads, size))


def measure(total: int, folder: Path) -> list[Sample]:
    """
    Train in this process.

    :param folder: where the monitor file, the checkpoints and the evaluations go
    """
    env = make_vec_env("CartPole-v1", N_ENVS, seed=0, monitor_dir=str(folder))
    model = VPG("MlpPolicy", env, n_steps=N_STEPS, n_critic_updates=N_CRITIC_UPDATES, seed=0, device="cpu")
    samples: list[Sample] = []
    evaluation = EvalCallback(
        make_env("native", N_EVALUATED, seed=1),
        n_eval_episodes=N_EVALUATED,
        eval_freq=total // N_EVALUATIONS // N_ENVS,
        log_path=str(folder),
        best_model_save_path=str(folder),
        verbose=0,
    )
    checkpoint = TrainingCheckpoint(folder / "checkpoints", total // N_CHECKPOINTS, monitor_dir=folder, verbose=0)
    model.learn(total, [evaluation, checkpoint, SampleCallback(total // N_SAMPLES, folder / "checkpoints", samples)])
    env.close()
    return samples


def parts(samples: Sequence[Sample], total: int) -> list[tuple[Sample, float, float]]:
    """:return: the sample at the end of each tenth of the run; seconds of CPU and on the wall per million steps in it"""
    found = []
    before = Sample(0, 0.0, 0.0, 0.0, 0, 0, 0.0)
    for part in range(1, PARTS + 1):
        sample = next(sample for sample in samples if sample.steps >= part * total // PARTS)
        millions = (sample.steps - before.steps) / 1e6
        found.append((sample, (sample.cpu - before.cpu) / millions, (sample.wall - before.wall) / millions))
        before = sample
    return found


def goals(samples: Sequence[Sample], total: int) -> list[Goal]:
    tenths = parts(samples, total)
    early = tenths[0][0]
    late = [sample.memory for sample in samples if sample.steps > early.steps]
    handles, threads = ([getattr(sample, what) for sample in samples] for what in ("handles", "threads"))
    cpu = [seconds for _, seconds, _ in tenths]
    return [
        Goal("memory at the end / after the first tenth", samples[-1].memory / early.memory, MEMORY, False, ".3f"),
        Goal("most memory since / after the first tenth", max(late) / early.memory, MEMORY, False, ".3f"),
        Goal("open files: most - least, over all samples", max(handles) - min(handles), 0, False, "d"),
        Goal("threads: most - least, over all samples", max(threads) - min(threads), 0, False, "d"),
        Goal("CPU per million steps: slowest / fastest tenth", max(cpu) / min(cpu), TIME, False),
    ]


def tenth_table(samples: Sequence[Sample], total: int) -> list[str]:
    head = ["steps", "memory, MB", "open files", "threads", "checkpoint, KB", "CPU s per million", "wall s per million"]
    rows = []
    for sample, cpu, wall in parts(samples, total):
        cells = [f"{sample.steps:,}", f"{sample.memory:.1f}", str(sample.handles), str(sample.threads)]
        rows.append([*cells, f"{sample.checkpoint:.0f}", f"{cpu:.2f}", f"{wall:.2f}"])
    return table(head, rows)


def _plot(axes: Axes, samples: Sequence[Sample], what: str, label: str) -> None:
    values = [getattr(sample, what) for sample in samples]
    axes.plot([sample.steps / 1e6 for sample in samples], values, color="#1f6fb4", linewidth=1.8)
    # From 0, so that flat looks flat and what grows is not hidden
    axes.set(xlabel="million steps", ylabel=label, xlim=(0, None), ylim=(0, max(values) * 1.2))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def draw(samples: Sequence[Sample], path: Path) -> None:
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    memory, handles = figure.subplots(1, 2)
    _plot(memory, samples, "memory", "resident memory, MB")
    _plot(handles, samples, "handles", "open files")
    figure.suptitle(f"{samples[-1].steps / 1e6:,.0f} million steps of VPG in one process")
    figure.savefig(path, dpi=150)


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--steps", type=int, default=10_000_000, help="of the run (default: %(default)s)")
    args = made.parse_args()
    if not (PROC / "fd").is_dir():
        sys.exit("soak.py: what a process holds is read from /proc/self, which there is on Linux alone")
    total = 400_000 if args.quick else args.steps
    with tempfile.TemporaryDirectory() as folder:
        samples = measure(total, Path(folder))
    introduction = [
        f"`learn()` for {total:,} steps on the vector CartPole-v1 with {N_ENVS} environments, `n_steps={N_STEPS}`,",
        f"`n_critic_updates={N_CRITIC_UPDATES}`; a monitor file, {N_CHECKPOINTS} checkpoints, {N_EVALUATIONS} evaluations of",
        f"{N_EVALUATED} episodes. What the process held was looked at {len(samples)} times. It is that of the whole process,",
        "Python and torch included; the times have evaluations and checkpoints in them. Checkpoints grow with the log of the",
        "evaluations, which is in them.",
        "",
    ]
    folder_of_results = folder_for(args)
    picture = []
    if folder_of_results is not None:
        draw(samples, folder_of_results / "soak.png")
        picture = ["![Memory and open files over the run](soak.png)", ""]
    lines = [*introduction, *goal_table(goals(samples, total)), *picture, *tenth_table(samples, total)]
    deliver(made, args, "A long run", lines, {"samples": [asdict(sample) for sample in samples]})


if __name__ == "__main__":
    main()
