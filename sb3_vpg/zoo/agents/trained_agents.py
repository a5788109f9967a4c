"""
Find trained agents. A command that names no run takes the latest one in ``logs``; if there is none, the agent that ships with
the package.
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

from sb3_vpg.zoo.advice import command_line
from sb3_vpg.zoo.algorithms import DEFAULT_ALGORITHM, VPG_ALGORITHMS
from sb3_vpg.zoo.flags import LOGS
from sb3_vpg.zoo.own_modules import check_registered, import_modules_of
from sb3_vpg.zoo.package_data import shipped_folder
from sb3_vpg.zoo.safe_yaml import read_yaml

SHIPPED_LOGS = Path(LOGS) / "shipped"
"""Where commands write plots and videos of an agent that ships, whose own folder may be read-only."""
_HAS_OUTPUT_FOLDER = ("evaluate", "record_video")
_NEEDS_CHECKPOINTS = "record_training"
_HELP = {"-h", "--help"}


@dataclass(frozen=True)
class Agent:
    """
    The agent of one run.

    :param algo: the algorithm's name on the command line
    :param env_id: environment id
    :param run: the folder of its run
    """

    algo: str
    env_id: str
    run: Path

    @property
    def settings(self) -> Path:
        """Folder of ``args.yml`` and ``config.yml``."""
        name: str = EnvironmentName(self.env_id)
        return self.run / name

    @property
    def budget(self) -> int:
        """Environment steps of its training: ``-n`` if it was given, else those of its hyperparameters."""
        n_timesteps = int(self.args.get("n_timesteps") or -1)
        return n_timesteps if n_timesteps > 0 else int(float(read_yaml(self.settings / "config.yml")["n_timesteps"]))

    @property
    def args(self) -> dict[str, Any]:
        """Content of ``args.yml``."""
        return read_yaml(self.settings / "args.yml")


def agents_in(folder: Path) -> list[Agent]:
    """
    :param folder: a log folder, the ``-f`` of ``train``
    :return: the latest run with a model for each algorithm and environment, sorted by their names
    """
    latest: dict[tuple[str, str], tuple[int, Agent]] = {}
    for file in folder.glob("*/*/*/args.yml"):
        run = file.parents[1]
        number = re.search(r"_(\d+)$", run.name)
        if number is None or not (run / f"{file.parent.name}.zip").is_file():
            continue
        agent = Agent(run.parent.name, _env_id(file), run)
        key = (agent.algo, agent.env_id)
        if key not in latest or int(number[1]) > latest[key][0]:
            latest[key] = (int(number[1]), agent)
    return [latest[key][1] for key in sorted(latest)]


def _env_id(file: Path) -> str:
    """Return the environment id in an ``args.yml``; if the file cannot be read, the name of its folder."""
    try:
        return str(read_yaml(file).get("env", file.parent.name))
    except ValueError:
        return file.parent.name


def shipped_agent(algo: str, env_id: str) -> Agent | None:
    """Return the agent that ships for an algorithm and an environment, or None."""
    return next((agent for agent in agents_in(shipped_folder()) if (agent.algo, agent.env_id) == (algo, env_id)), None)


def shipped_agent_flags(name: str, flags: Sequence[str]) -> list[str]:
    """
    :param name: of a command that plays a trained agent
    :param flags: of the user
    :return: flags to add so that the command plays the agent that ships; none if the user names a folder or has a run
    :raises ValueError: if neither ``logs`` nor the package has such an agent, or if the latest run has no model
    """
    if _HELP & set(flags):
        return []
    args = _parse(flags)
    runs = Path(args.folder or LOGS) / str(args.algo)
    latest = get_latest_run_id(str(runs), args.env)
    if latest > 0 and not args.selected_by and name != _NEEDS_CHECKPOINTS:
        _check_has_model(runs / f"{args.env}_{latest}", args)
    if args.folder is not None or latest > 0:
        return []
    agent = None if args.selected_by or name == _NEEDS_CHECKPOINTS else shipped_agent(args.algo, args.env.gym_id)
    if agent is None:
        raise ValueError(_no_agent_message(name, args))
    print(f"No run of {agent.algo} on {agent.env_id} in {LOGS}: taking the agent that ships, {agent.run}")
    output = [] if name not in _HAS_OUTPUT_FOLDER or args.output_folder else ["--output-folder", _output_folder(name, agent)]
    return ["--folder", str(shipped_folder()), *output]


def _check_has_model(run: Path, args: argparse.Namespace) -> None:
    if (run / f"{args.env}.zip").is_file():
        return
    number = run.name.rpartition("_")[2]
    resume = command_line("train", args.algo, args.env.gym_id, "--resume", number, folder=args.folder or LOGS)
    # Other algorithms have no --resume
    advice = f" (resume it with: {resume})" if args.algo in VPG_ALGORITHMS else ""
    raise ValueError(
        f"the latest run, {run}, has no model: its training is running or was stopped{advice}. Name another run: --exp-id N"
    )


def requested_model(flags: Sequence[str]) -> tuple[Path | None, Path]:
    """
    :param flags: of a command that plays a trained agent, including those of ``shipped_agent_flags``
    :return: the model that it plays and the folder of its settings; None and an empty path if the command itself will report
        the error, download an agent, or print its help
    :raises ValueError: if there is no such run
    """
    args = _parse(flags)
    which = (args.load_best, args.load_checkpoint, args.load_last_checkpoint)
    try:
        # The command itself prints the same text
        with redirect_stdout(io.StringIO()):
            _, model, run = get_model_path(int(args.exp_id or 0), args.folder or LOGS, args.algo, args.env, *which)
    except ValueError:
        return None, Path()
    except AssertionError as error:
        # The zoo downloads missing agents into this folder
        if "rl-trained-agents" in (args.folder or LOGS) or _HELP & set(flags):
            return None, Path()
        raise ValueError(no_run_message(error, str(args.algo), args.env)) from None
    return Path(model), Path(run) / args.env


def find_model(folder: str, algo: str, env_id: str, exp_id: int = 0, load_best: bool = False) -> tuple[Path, Path]:
    """
    Find a model that ``train`` has written, and import the modules that it was trained with.

    :param folder: log folder, the ``-f`` of ``train``
    :param algo: the algorithm's name on the command line
    :param env_id: environment id
    :param exp_id: number of the run, 0 for the latest
    :param load_best: take the best model of the training's evaluations instead of the last
    :return: the model's file and the folder of its run
    :raises ValueError: if there is no such run, if it has no such model, or if the environment is not registered
    """
    env_name = EnvironmentName(env_id)
    try:
        _, model, run = get_model_path(exp_id, folder, algo, env_name, load_best)
    except AssertionError as error:
        raise ValueError(no_run_message(error, algo, env_name)) from None
    import_modules_of(Path(run) / env_name)
    check_registered(env_id)
    return Path(model), Path(run)


def no_run_message(error: AssertionError, algo: str, env_name: EnvironmentName) -> str:
    """Return the text of the zoo's error with advice."""
    train = command_line("train", algo, env_name.gym_id)
    return f"{error}; name another log folder with -f, or another run with --exp-id, or train one: {train}"


def film_of_training(flags: Sequence[str]) -> Path:
    """Return the path of the film that ``record_training`` writes with these flags."""
    args = _parse(flags)
    if args.output_folder is not None:
        return Path(args.output_folder) / "training.mp4"
    runs = Path(args.folder or LOGS) / str(args.algo)
    number = int(args.exp_id or 0) or get_latest_run_id(str(runs), args.env)
    return (runs / f"{args.env}_{number}" if number > 0 else runs) / "videos" / "training.mp4"


def _output_folder(name: str, agent: Agent) -> str:
    folder = SHIPPED_LOGS / agent.algo / agent.run.name
    return str(folder / "videos" if name == "record_video" else folder)


def _no_agent_message(name: str, args: argparse.Namespace) -> str:
    train = command_line("train", args.algo, args.env.gym_id)
    what = f"no run of {args.algo} on {args.env.gym_id} in {LOGS}"
    if name == _NEEDS_CHECKPOINTS:
        return f"{what} to film; train one that keeps checkpoints: {train} --save-freq 25000. Agents that ship have none"
    if args.selected_by:
        return f"{what}, so there is no {args.selected_by} of it; train one: {train}"
    shipped = ", ".join(agent.env_id for agent in agents_in(shipped_folder()) if agent.algo == args.algo)
    return f"{what}; train one: {train}, or name another folder with -f. Agents of {args.algo} ship for: {shipped or 'none'}"


class _SelectsModel(argparse.Action):
    """Store the value of a flag that selects a run or a model. ``selected_by`` gets the flag as text: ``"--exp-id 3"``."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        setattr(namespace, self.dest, True if self.nargs == 0 else values)
        if self.dest != "exp_id" or values != "0":
            namespace.selected_by = f"{self.option_strings[0]}{'' if self.nargs == 0 else f' {values}'}"


def _parse(flags: Sequence[str]) -> argparse.Namespace:
    """Parse the zoo's flags that select an agent. Errors in them are left to the zoo's own parser."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.set_defaults(selected_by="")
    parser.add_argument("--env", type=EnvironmentName, default=EnvironmentName("CartPole-v1"))
    parser.add_argument("--algo", default=DEFAULT_ALGORITHM)
    parser.add_argument("-f", "--folder")
    parser.add_argument("-o", "--output-folder")
    parser.add_argument("--exp-id", action=_SelectsModel)
    parser.add_argument("--load-checkpoint", action=_SelectsModel)
    for flag in ("--load-best", "--load-last-checkpoint"):
        parser.add_argument(flag, action=_SelectsModel, nargs=0)
    return parser.parse_known_args(list(flags))[0]
