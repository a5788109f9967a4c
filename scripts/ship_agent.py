"""Copy a run to an agent that ships: only what playing and plotting need, without information about the machine."""

import io
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
import yaml
from huggingface_sb3 import EnvironmentName
from stable_baselines3.common.monitor import load_results

from sb3_vpg.persistence.archives import DATA, WEIGHTS, read_archive, write_archive
from sb3_vpg.persistence.unpacking import weights_of
from sb3_vpg.zoo.agents.learning_curve import EPISODES_PER_ROW
from sb3_vpg.zoo.safe_yaml import has_python_tag, read_yaml

# What playing and repeating the run need; no paths, no account names
_ARGUMENTS = ("algo", "env", "env_kwargs", "seed", "n_timesteps", "vec_env", "eval_freq", "eval_episodes", "n_eval_envs")
_MOST_ROWS = 1000
_SYSTEM_INFO = "system_info.txt"


def ship(run: Path, env_id: str, target: Path, command: str) -> None:
    """
    :param run: folder of a finished run of VPG
    :param env_id: its environment
    :param target: folder of the agent that ships; it is replaced
    :param command: the command that trained it
    :raises ValueError: if a setting of the run is a Python object, which plain YAML cannot hold
    """
    name = EnvironmentName(env_id)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        agent = Path(folder) / target.name
        (agent / name).mkdir(parents=True)
        (agent / f"{name}.zip").write_bytes(bare_model(run / f"{name}.zip"))
        args = read_yaml(run / name / "args.yml")
        _write_plain(agent / name / "args.yml", {key: args[key] for key in _ARGUMENTS if key in args})
        _write_plain(agent / name / "config.yml", read_yaml(run / name / "config.yml"))
        (agent / name / "command.txt").write_text(f"{command}\n")
        (agent / "0.monitor.csv").write_text(compact_monitor(run, env_id))
        shutil.copyfile(run / "evaluations.npz", agent / "evaluations.npz")
        shutil.rmtree(target, ignore_errors=True)
        agent.replace(target)


def bare_model(model: Path) -> bytes:
    """:return: the model's file without the optimisers' moments, the last episodes' statistics and the operating system"""
    members = read_archive(model)
    for name, state in weights_of(members, str(model)).items():
        if "param_groups" in state:
            file = io.BytesIO()
            th.save({**state, "state": {}}, file)
            members[f"{name}{WEIGHTS}"] = file.getvalue()
    data = json.loads(members[DATA])
    for key in ("ep_info_buffer", "ep_success_buffer"):
        data[key]["!deque"][1] = []
    data["tensorboard_log"] = None
    members[DATA] = json.dumps(data).encode()
    info = members.get(_SYSTEM_INFO, b"").decode().splitlines(keepends=True)
    members[_SYSTEM_INFO] = "".join(line for line in info if not line.startswith("- OS:")).encode()
    return write_archive(members)


def compact_monitor(run: Path, env_id: str, most_rows: int = _MOST_ROWS) -> str:
    """
    :param run: folder with ``*.monitor.csv``
    :param env_id: its environment
    :param most_rows: if there are more episodes, a row has the mean return of several and the sum of their lengths, so that
        the number of steps stays the same
    :return: the text of one monitor file, with the episodes in the order in which they ended
    """
    episodes = load_results(str(run))
    per_row = -(-len(episodes) // most_rows)
    starts = np.arange(0, len(episodes), per_row)
    sizes = np.diff([*starts, len(episodes)])
    returns = np.add.reduceat(episodes["r"].to_numpy(np.float64), starts) / sizes
    lengths = np.add.reduceat(episodes["l"].to_numpy(np.int64), starts)
    times = episodes["t"].to_numpy()[starts + sizes - 1]
    header = {"t_start": 0.0, "env_id": env_id, **({EPISODES_PER_ROW: per_row} if per_row > 1 else {})}
    rows = [f"{r:.6g},{length},{t:.2f}" for r, length, t in zip(returns, lengths, times, strict=True)]
    return "\n".join([f"#{json.dumps(header)}", "r,l,t", *rows, ""])


def _write_plain(file: Path, content: dict[str, Any]) -> None:
    if has_python_tag(content):
        raise ValueError(f"{file.name} holds Python objects: {content}; an agent that ships must have plain settings")
    file.write_text(yaml.safe_dump(content))
