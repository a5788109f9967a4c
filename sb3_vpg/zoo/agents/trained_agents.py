"""
The trained agents that ship with the package, and which agent a command means: that of the latest run in ``logs``, and where
there is none, the one that ships.
"""

import argparse
import io
import re
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_sb3 import EnvironmentName
from rl_zoo3.utils import get_latest_run_id, get_model_path

from sb3_vpg.zoo.algorithms import DEFAULT_ALGORITHM
from sb3_vpg.zoo.commands import command
from sb3_vpg.zoo.package_data import packaged
from sb3_vpg.zoo.safe_yaml import read_yaml

LOGS = "logs"
SHIPPED_LOGS = Path(LOGS) / "shipped"
"""Where commands write what they make of an agent that ships: its own folder may be anywhere, and read-only."""
_WRITES = ("evaluate", "record_video")
_NEEDS_CHECKPOINTS = "record_training"


@dataclass(frozen=True)
class Agent:
    """
    :param algo: the algorithm's name on the command line
    :param env_id: environment id
    :param run: the folder of its run
    """

    algo: str
    env_id: str
    run: Path

    @property
    def settings(self) -> Path:
        """:return: the folder of ``args.yml`` and ``config.yml``"""
        name: str = EnvironmentName(self.env_id)
        return self.run / name

    @property
    def budget(self) -> int:
        """:return: the steps that it was trained for"""
        asked = int(self.args.get("n_timesteps") or -1)
        return asked if asked > 0 else int(float(read_yaml(self.settings / "config.yml")["n_timesteps"]))

    @property
    def args(self) -> dict[str, Any]:
        """:return: what ``args.yml`` says"""
        return read_yaml(self.settings / "args.yml")


def shipped_folder() -> Path:
    """:return: the folder of the agents that ship, laid out as a log folder"""
    return packaged("trained_agents")


def agents_in(folder: Path) -> list[Agent]:
    """
    :param folder: a log folder, the ``-f`` of ``train``
    :return: the latest run of each algorithm and environment that has left a model, in the order of their names
    """
    latest: dict[tuple[str, str], tuple[int, Agent]] = {}
    for file in folder.glob("*/*/*/args.yml"):
        run = file.parents[1]
        number = re.search(r"_(\d+)$", run.name)
        if number is None or not (run / f"{file.parent.name}.zip").is_file():
            continue
        agent = Agent(run.parent.name, _env_id(file), run)
        key = (agent.algo, agent.env_id)
        latest[key] = max(latest.get(key, (0, agent)), (int(number[1]), agent), key=lambda found: found[0])
    return [latest[key][1] for key in sorted(latest)]


def _env_id(file: Path) -> str:
    """:return: of an ``args.yml``; where nothing can be read, the name of its folder"""
    try:
        return str(read_yaml(file).get("env", file.parent.name))
    except ValueError:
        return file.parent.name


def shipped_agent(algo: str, env_id: str) -> Agent | None:
    """:return: the agent that ships for an environment; None if there is none"""
    return next((agent for agent in agents_in(shipped_folder()) if (agent.algo, agent.env_id) == (algo, env_id)), None)


def shipped_agent_flags(name: str, flags: Sequence[str]) -> list[str]:
    """
    :param name: one that plays a trained agent
    :param flags: the user's
    :return: what to add to them to play the agent that ships, where neither they nor ``logs`` name another
    :raises ValueError: if there is no such agent anywhere, or if the latest run has left none
    """
    asked, _ = _parser().parse_known_args(list(flags))
    asked_for_help = {"-h", "--help"} & set(flags)
    if asked_for_help:
        return []
    runs = Path(asked.folder or LOGS) / str(asked.algo)
    latest = get_latest_run_id(str(runs), asked.env)
    if latest > 0 and not asked.particular and name != _NEEDS_CHECKPOINTS:
        _check_has_model(runs / f"{asked.env}_{latest}", asked)
    if asked.folder is not None or latest > 0:
        return []
    agent = None if asked.particular or name == _NEEDS_CHECKPOINTS else shipped_agent(asked.algo, asked.env.gym_id)
    if agent is None:
        raise ValueError(_nothing(name, asked))
    print(f"No run of {agent.algo} on {agent.env_id} in {LOGS}: taking the agent that ships, {agent.run}")
    output = [] if name not in _WRITES or asked.output_folder else ["--output-folder", _output_folder(name, agent)]
    return ["--folder", str(shipped_folder()), *output]


def _check_has_model(run: Path, asked: argparse.Namespace) -> None:
    if (run / f"{asked.env}.zip").is_file():
        return
    number = run.name.rpartition("_")[2]
    resume = command("train", asked.algo, asked.env.gym_id, "--resume", number, folder=asked.folder or LOGS)
    # Other algorithms leave no checkpoints to go on from
    advice = f" (go on with: {resume})" if asked.algo == DEFAULT_ALGORITHM else ""
    raise ValueError(
        f"the latest run, {run}, has no model: it is in training, or was stopped{advice}. Name another run: --exp-id N"
    )


def requested_model(flags: Sequence[str]) -> tuple[Path | None, Path]:
    """
    :param flags: of a command that plays a trained agent, those of ``shipped_agent_flags`` included
    :return: the model that it plays, or None, for which the command itself has words; and the folder of its settings
    :raises ValueError: if there is no such run
    """
    asked, _ = _parser().parse_known_args(list(flags))
    which = (asked.load_best, asked.load_checkpoint, asked.load_last_checkpoint)
    try:
        # What this prints, the command prints too
        with redirect_stdout(io.StringIO()):
            _, model, run = get_model_path(int(asked.exp_id or 0), asked.folder or LOGS, asked.algo, asked.env, *which)
    except ValueError:
        return None, Path()
    except AssertionError as error:
        # The zoo downloads what is missing there
        if "rl-trained-agents" in (asked.folder or LOGS) or {"-h", "--help"} & set(flags):
            return None, Path()
        raise ValueError(no_run(error, str(asked.algo), asked.env)) from None
    return Path(model), Path(run) / asked.env


def no_run(error: AssertionError, algo: str, env_name: EnvironmentName) -> str:
    """:return: what the zoo's error says, with ways out"""
    train = command("train", algo, env_name.gym_id)
    return f"{error}; name another log folder with -f, or another run with --exp-id, or train one: {train}"


def film_of_training(flags: Sequence[str]) -> Path:
    """:return: where ``record_training``, called with these flags, puts its film"""
    asked, _ = _parser().parse_known_args(list(flags))
    if asked.output_folder is not None:
        return Path(asked.output_folder) / "training.mp4"
    runs = Path(asked.folder or LOGS) / str(asked.algo)
    number = int(asked.exp_id or 0) or get_latest_run_id(str(runs), asked.env)
    return (runs / f"{asked.env}_{number}" if number > 0 else runs) / "videos" / "training.mp4"


def _output_folder(name: str, agent: Agent) -> str:
    folder = SHIPPED_LOGS / agent.algo / agent.run.name
    return str(folder / "videos" if name == "record_video" else folder)


def _nothing(name: str, asked: argparse.Namespace) -> str:
    train = command("train", asked.algo, asked.env.gym_id)
    what = f"no run of {asked.algo} on {asked.env.gym_id} in {LOGS}"
    if name == _NEEDS_CHECKPOINTS:
        return f"{what} to film; train one that keeps checkpoints: {train} --save-freq 25000. Agents that ship have none"
    if asked.particular:
        return f"{what}, so there is no {asked.particular} of it; train one: {train}"
    shipped = ", ".join(agent.env_id for agent in agents_in(shipped_folder()) if agent.algo == asked.algo)
    return f"{what}; train one: {train}, or name another folder with -f. Agents of {asked.algo} ship for: {shipped or 'none'}"


class _Particular(argparse.Action):
    """Remembers a flag that names one run or model among several, which no agent that ships can be."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        setattr(namespace, self.dest, True if self.nargs == 0 else values)
        if self.dest != "exp_id" or values != "0":
            namespace.particular = f"{self.option_strings[0]}{'' if self.nargs == 0 else f' {values}'}"


def _parser() -> argparse.ArgumentParser:
    """Of the zoo's flags those that say which agent is meant; the zoo's own parser says what is wrong with them."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.set_defaults(particular="")
    parser.add_argument("--env", type=EnvironmentName, default=EnvironmentName("CartPole-v1"))
    parser.add_argument("--algo", default=DEFAULT_ALGORITHM)
    parser.add_argument("-f", "--folder")
    parser.add_argument("-o", "--output-folder")
    parser.add_argument("--exp-id", action=_Particular)
    parser.add_argument("--load-checkpoint", action=_Particular)
    for flag in ("--load-best", "--load-last-checkpoint"):
        parser.add_argument(flag, action=_Particular, nargs=0)
    return parser
