"""
Does a long run leak memory, files or threads, or become slower? VPG trains for ten million steps in one process.

    python benchmarks/soak.py

``learn()`` on the vector CartPole-v1, with a monitor file, 200 checkpoints, and 20 evaluations that save the best model.
Memory, open files, threads and CPU time are sampled 100 times. They are read from ``/proc``, so this needs Linux. Results:
soak.md, soak.json and soak.png in benchmarks/results.
"""

from harness.measure import make_env

# isort: split
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from harness.report import Goal, goal_table, make_parser, results_folder, table, write_report
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback

from sb3_vpg import VPG
from sb3_vpg.checkpoints import TrainingCheckpoint, latest
from sb3_vpg.vec_env import make_vec_env

N_ENVS, N_STEPS, N_CRITIC_UPDATES = 256, 32, 4
N_SAMPLES, N_CHECKPOINTS, N_EVALUATIONS, N_EVALUATED = 100, 200, 20, 20
PROC = Path("/proc/self")
# The allocator's memory varies by 3 %. A leak below the limit of 5 % is at most 2 bytes per step
MEMORY_LIMIT, TIME_LIMIT = 1.05, 1.2


@dataclass(frozen=True)
class Sample:
    """
    :param steps: environment steps so far
    :param wall: wall-clock seconds since training began
    :param cpu: CPU seconds of all threads since then, without child processes
    :param memory: resident memory, MB
    :param handles: open file descriptors, including the one that counts them
    :param threads: number of threads of the process
    :param checkpoint: size of the latest checkpoint, KB; 0 if there is none yet
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
    Take a sample before the first rollout after every ``every`` steps, and when training ends.

    :param every: steps between samples
    :param checkpoints: folder of the checkpoints
    :param samples: the list to fill; as an argument it is not part of the checkpoints, which would otherwise grow with it
    """

    def __init__(self, every: int, checkpoints: Path, samples: list[Sample]) -> None:
        super().__init__()
        self.every, self.checkpoints, self.samples = every, checkpoints, samples

    def _on_training_start(self) -> None:
        self.start = time.perf_counter(), time.process_time()

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        if self.num_timesteps // self.every > (self.samples[-1].steps if self.samples else 0) // self.every:
            self._take()

    def _on_training_end(self) -> None:
        if not self.samples or self.num_timesteps > self.samples[-1].steps:
            self._take()

    def _take(self) -> None:
        wall, cpu = time.perf_counter() - self.start[0], time.process_time() - self.start[1]
        status = dict(line.split(":", 1) for line in (PROC / "status").read_text().splitlines())
        memory, threads = int(status["VmRSS"].split()[0]) / 1024, int(status["Threads"])
        handles = len(list((PROC / "fd").iterdir()))
        newest = latest(self.checkpoints)
        size = newest.stat().st_size / 1024 if newest else 0.0
        self.samples.append(Sample(self.num_timesteps, wall, cpu, memory, handles, threads, size))


def measure(total: int, folder: Path) -> list[Sample]:
    """
    Train in this process.

    :param total: environment steps
    :param folder: for the monitor file, the checkpoints and the evaluations
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


def tenths(samples: Sequence[Sample], total: int) -> list[tuple[Sample, float, float]]:
    """:return: for each tenth of the run, the sample at its end, and its CPU and wall-clock seconds per million steps"""
    result = []
    before = Sample(0, 0.0, 0.0, 0.0, 0, 0, 0.0)
    for tenth in range(1, 11):
        sample = next(sample for sample in samples if sample.steps >= tenth * total // 10)
        millions = (sample.steps - before.steps) / 1e6
        result.append((sample, (sample.cpu - before.cpu) / millions, (sample.wall - before.wall) / millions))
        before = sample
    return result


def goals(samples: Sequence[Sample], total: int) -> list[Goal]:
    measured = tenths(samples, total)
    early = measured[0][0]
    late = [sample.memory for sample in samples if sample.steps > early.steps]
    handles, threads = ([getattr(sample, what) for sample in samples] for what in ("handles", "threads"))
    cpu = [seconds for _, seconds, _ in measured]
    return [
        Goal("memory at the end / after the first tenth", samples[-1].memory / early.memory, MEMORY_LIMIT, False, ".3f"),
        Goal("most memory since / after the first tenth", max(late) / early.memory, MEMORY_LIMIT, False, ".3f"),
        Goal("open files: most - least, over all samples", max(handles) - min(handles), 0, False, "d"),
        Goal("threads: most - least, over all samples", max(threads) - min(threads), 0, False, "d"),
        Goal("CPU per million steps: slowest / fastest tenth", max(cpu) / min(cpu), TIME_LIMIT, False),
    ]


def tenth_table(samples: Sequence[Sample], total: int) -> list[str]:
    head = ["steps", "memory, MB", "open files", "threads", "checkpoint, KB", "CPU s per million", "wall s per million"]
    rows = []
    for sample, cpu, wall in tenths(samples, total):
        cells = [f"{sample.steps:,}", f"{sample.memory:.1f}", str(sample.handles), str(sample.threads)]
        rows.append([*cells, f"{sample.checkpoint:.0f}", f"{cpu:.2f}", f"{wall:.2f}"])
    return table(head, rows)


def _plot(axes: Axes, samples: Sequence[Sample], what: str, label: str) -> None:
    values = [getattr(sample, what) for sample in samples]
    axes.plot([sample.steps / 1e6 for sample in samples], values, color="#1f6fb4", linewidth=1.8)
    # From 0, so that small changes do not look large
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
    parser = make_parser(__doc__)
    parser.add_argument("--steps", type=int, default=10_000_000, help="environment steps of the run (default: %(default)s)")
    args = parser.parse_args()
    if not (PROC / "fd").is_dir():
        sys.exit("soak.py: memory and open files are read from /proc/self, which only Linux has")
    total = 400_000 if args.quick else args.steps
    with tempfile.TemporaryDirectory() as folder:
        samples = measure(total, Path(folder))
    introduction = [
        f"`learn()` for {total:,} steps on the vector CartPole-v1 with {N_ENVS} environments, `n_steps={N_STEPS}`,",
        f"`n_critic_updates={N_CRITIC_UPDATES}`; a monitor file, {N_CHECKPOINTS} checkpoints, {N_EVALUATIONS} evaluations of",
        f"{N_EVALUATED} episodes. Memory, open files and threads were sampled {len(samples)} times; they include Python's and",
        "torch's, and the times include evaluations and checkpoints. A checkpoint contains the log of the evaluations, so it",
        "grows with them.",
        "",
    ]
    results = results_folder(args)
    picture = []
    if results is not None:
        draw(samples, results / "soak.png")
        picture = ["![Memory and open files over the run](soak.png)", ""]
    lines = [*introduction, *goal_table(goals(samples, total)), *picture, *tenth_table(samples, total)]
    write_report(parser, args, "A long run", lines, {"samples": [asdict(sample) for sample in samples]})


if __name__ == "__main__":
    main()
