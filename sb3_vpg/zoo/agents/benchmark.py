"""``sb3-vpg benchmark``: play trained agents and write a table of their scores, in the form of the zoo's benchmark."""

import argparse
import json
import math
import shlex
import sys
from typing import Any

import gymnasium as gym

from sb3_vpg.common.atomic_files import atomic_write
from sb3_vpg.common.system_info import describe
from sb3_vpg.zoo.agents.evaluation import Evaluation, evaluate_run
from sb3_vpg.zoo.agents.flags import benchmark_parser
from sb3_vpg.zoo.agents.trained_agents import Agent, agents_in
from sb3_vpg.zoo.thresholds import reward_threshold


def in_thousands(steps: int) -> str:
    """Return a number of steps in the zoo's short form, but never rounded: ``"100k"``, ``"1.5M"``, ``"2.048k"``."""
    for unit, name in ((1_000_000, "M"), (1_000, "k")):
        # Then three digits after the point are exact
        if steps >= unit and steps % (unit // 1_000) == 0:
            return f"{steps / unit:.10g}{name}"
    return str(steps)


def _record(agent: Agent, score: Evaluation) -> dict[str, Any]:
    """Return the entry of an agent in ``benchmark.json``; ``solved`` is None if its environment has no threshold."""
    threshold = reward_threshold(agent.env_id)
    return {
        "algo": agent.algo,
        "env_id": agent.env_id,
        "mean_reward": score.mean,
        "std_reward": score.std,
        "interval": score.interval,
        "n_timesteps": agent.budget,
        "eval_timesteps": int(score.lengths.sum()),
        "eval_episodes": len(score.returns),
        "reward_threshold": threshold,
        "solved": None if threshold is None else score.mean >= threshold,
    }


def _cells(record: dict[str, Any]) -> dict[str, str]:
    """Return the row of an agent in ``benchmark.md``, by the names of the columns."""
    threshold = record["reward_threshold"]
    return {
        "algo": record["algo"],
        "env_id": record["env_id"],
        "mean_reward": f"{record['mean_reward']:.3f}",
        "std_reward": f"{record['std_reward']:.3f}",
        "n_timesteps": in_thousands(record["n_timesteps"]),
        "eval_timesteps": str(record["eval_timesteps"]),
        "eval_episodes": str(record["eval_episodes"]),
        "solved at": "" if threshold is None else f"{threshold:g}",
        "solved": {None: "", True: "yes", False: "no"}[record["solved"]],
    }


def benchmark() -> None:
    """
    Run the command ``benchmark`` with the arguments in ``sys.argv``.

    :raises ValueError: if no agent can be played
    """
    args = benchmark_parser().parse_args()
    agents = agents_in(args.folder)
    if not agents:
        raise ValueError(
            f"no trained agents in {args.folder}; name the folder of your runs (-f), or leave -f out to score those that ship"
        )
    records, left_out = [], []
    for number, agent in enumerate(agents, 1):
        print(f"{number}/{len(agents)}: {agent.algo} on {agent.env_id}", flush=True)
        try:
            records.append(_record(agent, _evaluate(agent, args)))
        except (gym.error.Error, ImportError, ValueError, OSError) as error:
            # Most often its simulator is not installed; the other agents can still be played
            left_out.append(f"{agent.algo} on {agent.env_id}: {' '.join(str(error).split())}")
    if not records:
        raise ValueError(f"none of the agents in {args.folder} can be played here. {left_out[0]}")
    _write(args, records, left_out)


def _evaluate(agent: Agent, args: argparse.Namespace) -> Evaluation:
    folder, number = str(agent.run.parents[1]), int(agent.run.name.rpartition("_")[2])
    how = {"deterministic": not args.stochastic, "device": args.device}
    return evaluate_run(folder, agent.algo, agent.env_id, number, args.n_eval_episodes, args.seed, **how)


def _overview(record: dict[str, Any]) -> dict[str, str]:
    """Return the row of an agent in the overview, by the names of the columns."""
    cells, (low, high) = _cells(record), record["interval"]
    # The interval is infinite after a single episode
    interval = f" [{low:.3f}, {high:.3f}]" if math.isfinite(low) else ""
    return {
        "environment": record["env_id"],
        "algo": record["algo"],
        "steps": cells["n_timesteps"],
        "mean return [95 %]": f"{cells['mean_reward']}{interval}",
        **{name: cells[name] for name in ("solved at", "solved")},
    }


def _table(rows: list[dict[str, str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (rows[0], ["---"] * len(rows[0]), *(row.values() for row in rows))] + [""]


def _page(command: str, deterministic: bool, records: list[dict[str, Any]], left_out: list[str], machine: str) -> str:
    """Return the text of ``benchmark.md``."""
    actions = "deterministic" if deterministic else "sampled"
    lines = [
        "# Performance of trained agents",
        "",
        f"Command: `{command}`",
        "",
        f"Undiscounted return of whole episodes, {actions} actions; `std_reward` is that of the episodes. One run per agent,",
        "trained for `n_timesteps`, so that it says what an agent can do, and not how reliably training gets there.",
        "`solved at` is the mean return of 100 episodes that the environment's registration asks for, where it asks for one.",
        "",
        *_table(list(map(_cells, records))),
        *(f"Left out: {text}\n" for text in left_out),
        "## Overview",
        "",
        "In brackets is Student's 95 % interval of the mean over the episodes of this agent.",
        "",
        *_table(list(map(_overview, records))),
        machine,
        "",
    ]
    return "\n".join(lines)


def _write(args: argparse.Namespace, records: list[dict[str, Any]], left_out: list[str]) -> None:
    """Print the page, and write it and the numbers into the folder ``--benchmark-dir``."""
    command = shlex.join(["sb3-vpg", "benchmark", *_without_output(sys.argv[1:])])
    text = _page(command, not args.stochastic, records, left_out, describe())
    raw = {"command": command, "machine": describe(), "seed": args.seed, "deterministic": not args.stochastic}
    print(f"\n{text}")
    for name, content in (("benchmark.md", text), ("benchmark.json", f"{json.dumps({**raw, 'agents': records}, indent=1)}\n")):
        with atomic_write(args.benchmark_dir / name) as file:
            file.write(content.encode())
        print(f"Saved {args.benchmark_dir / name}")


def _without_output(flags: list[str]) -> list[str]:
    """Return the flags without ``--benchmark-dir``."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--benchmark-dir")
    return parser.parse_known_args(flags)[1]
