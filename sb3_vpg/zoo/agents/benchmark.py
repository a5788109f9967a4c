"""``sb3-vpg benchmark``: trained agents played and tabulated in the form of the zoo's benchmark."""

import argparse
import json
import shlex
import sys
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path

import gymnasium as gym

from sb3_vpg.common.atomic_files import atomic_write
from sb3_vpg.common.system_info import describe
from sb3_vpg.zoo.agents.evaluation import evaluate_run
from sb3_vpg.zoo.agents.trained_agents import LOGS, Agent, agents_in, shipped_folder
from sb3_vpg.zoo.flags import positive
from sb3_vpg.zoo.thresholds import reward_threshold

_SCORE = ("mean_reward", "std_reward", "n_timesteps", "eval_timesteps", "eval_episodes")
_COLUMNS = ("algo", "env_id", *_SCORE, "solved at", "solved")


@dataclass(frozen=True)
class Row:
    """
    :param mean_reward: over the episodes; ``std_reward``: of the episodes, not of their mean
    :param interval: 95 % of the mean, Student's
    :param n_timesteps: that it was trained for
    :param eval_timesteps: steps of all episodes
    :param reward_threshold: of the environment's registration; None where it has none
    """

    algo: str
    env_id: str
    mean_reward: float
    std_reward: float
    interval: tuple[float, float]
    n_timesteps: int
    eval_timesteps: int
    eval_episodes: int
    reward_threshold: float | None

    @property
    def solved(self) -> bool | None:
        """:return: whether the mean reaches the threshold; None where there is none"""
        return None if self.reward_threshold is None else self.mean_reward >= self.reward_threshold

    def cells(self) -> list[str]:
        """:return: of the table"""
        threshold = "" if self.reward_threshold is None else f"{self.reward_threshold:g}"
        counts = [in_thousands(self.n_timesteps), f"{self.eval_timesteps}", f"{self.eval_episodes}"]
        solved = {None: "", True: "yes", False: "no"}[self.solved]
        return [self.algo, self.env_id, f"{self.mean_reward:.3f}", f"{self.std_reward:.3f}", *counts, threshold, solved]


def in_thousands(steps: int) -> str:
    """:return: as the zoo writes a budget, but never rounded: ``"100k"``, ``"1.5M"``, ``"2.048k"``"""
    for unit, name in ((1_000_000, "M"), (1_000, "k")):
        # Three digits after the point are exact then
        if steps >= unit and steps % (unit // 1_000) == 0:
            return f"{steps / unit:.10g}{name}"
    return str(steps)


def score(agent: Agent, n_episodes: int, seed: int, deterministic: bool, device: str) -> Row:
    """:return: the row of one agent"""
    folder, number = str(agent.run.parents[1]), int(agent.run.name.rpartition("_")[2])
    found = evaluate_run(
        folder, agent.algo, agent.env_id, number, n_episodes, seed, deterministic=deterministic, device=device
    )
    return Row(
        agent.algo,
        agent.env_id,
        float(found.returns.mean()),
        float(found.returns.std()),
        found.interval(),
        agent.budget,
        int(found.lengths.sum()),
        len(found.returns),
        reward_threshold(agent.env_id),
    )


def benchmark() -> None:
    """
    The command. Its arguments are ``sys.argv``.

    :raises ValueError: if there is no agent that can be played
    """
    args = _parser().parse_args()
    for module in args.gym_packages:
        import_module(module)
    agents = agents_in(args.folder)
    if not agents:
        raise ValueError(
            f"no trained agents in {args.folder}; name the folder of your runs (-f), or leave -f out to score those that ship"
        )
    rows, left_out = [], []
    for number, agent in enumerate(agents, 1):
        print(f"{number}/{len(agents)}: {agent.algo} on {agent.env_id}", flush=True)
        try:
            rows.append(score(agent, args.n_eval_episodes, args.seed, not args.stochastic, args.device))
        except (gym.error.Error, ImportError, ValueError, OSError) as error:
            # Most often what it is simulated with is not installed, and the others can be played all the same
            left_out.append(f"{agent.algo} on {agent.env_id}: {' '.join(str(error).split())}")
    if not rows:
        raise ValueError(f"none of the agents in {args.folder} can be played here. {left_out[0]}")
    _deliver(args, rows, left_out)


def _deliver(args: argparse.Namespace, rows: list[Row], left_out: list[str]) -> None:
    """Print the page; write it and the numbers."""
    actions = "sampled" if args.stochastic else "deterministic"
    command = shlex.join(["sb3-vpg", "benchmark", *_without_output(sys.argv[1:])])
    lines = [
        "# Performance of trained agents",
        "",
        f"Command: `{command}`",
        "",
        f"Undiscounted return of whole episodes, {actions} actions; `std_reward` is that of the episodes. One run per agent,",
        "trained for `n_timesteps`, so that it says what an agent can do, and not how reliably training gets there.",
        "`solved at` is the mean return of 100 episodes that the environment's registration asks for, where it asks for one.",
        "",
        *(f"| {' | '.join(cells)} |" for cells in (_COLUMNS, ["---"] * len(_COLUMNS), *(row.cells() for row in rows))),
        "",
        *(f"Left out: {text}\n" for text in left_out),
        describe(),
        "",
    ]
    text = "\n".join(lines)
    raw = {"command": command, "machine": describe(), "seed": args.seed, "deterministic": not args.stochastic}
    agents = [{**asdict(row), "solved": row.solved} for row in rows]
    print(f"\n{text}")
    for name, content in (("benchmark.md", text), ("benchmark.json", f"{json.dumps({**raw, 'agents': agents}, indent=1)}\n")):
        with atomic_write(args.benchmark_dir / name) as file:
            file.write(content.encode())
        print(f"Saved {args.benchmark_dir / name}")


def _without_output(flags: list[str]) -> list[str]:
    """:return: the flags without the one that says where the result goes"""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--benchmark-dir")
    return parser.parse_known_args(flags)[1]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Play trained agents and tabulate their scores.")
    text = "log folder whose latest runs are played (default: the agents that ship)"
    parser.add_argument("-f", "--folder", type=Path, default=shipped_folder(), help=text)
    parser.add_argument("-n", "--n-eval-episodes", type=positive, default=100, help="number of episodes of each agent")
    parser.add_argument("--seed", type=int, default=0, help="seed of the environments")
    parser.add_argument("--stochastic", action="store_true", help="sample actions instead of taking the likeliest")
    parser.add_argument("--device", default="auto", help="PyTorch device (ex: cpu, cuda...)")
    folder = Path(LOGS) / "benchmark"
    parser.add_argument("--benchmark-dir", type=Path, default=folder, help=f"where the table goes (default: {folder})")
    parser.add_argument("--gym-packages", nargs="+", default=[], help="modules to import, which register environments")
    return parser
