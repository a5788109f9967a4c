"""A film of a trained agent, for who needs the file and not the command."""

import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from sb3_vpg.zoo.own_modules import command_of


def film(algo: str, env_id: str, folder: str, n_timesteps: int, choice: Sequence[str] = ()) -> Path:
    """
    ``sb3-vpg record_video`` in a process of its own, because the zoo's program has no function to call.

    :param algo: name on the command line
    :param env_id: environment id
    :param folder: log folder
    :param n_timesteps: length
    :param choice: further flags
    :return: an mp4 in a temporary folder, for the caller to move
    :raises ValueError: if the environment cannot be filmed
    """
    target = tempfile.mkdtemp(prefix="sb3-vpg-film-")
    command = [*command_of("sb3_vpg"), "record_video", "--algo", algo, "--env", env_id, "-f", folder]
    command += ["-n", str(n_timesteps), "-o", target, *choice]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    films = list(Path(target).glob("*.mp4"))
    if done.returncode or not films:
        last = done.stdout.strip().splitlines()[-1:] or ["no message"]
        raise ValueError(f"{env_id} could not be filmed ({last[0]}); leave the film out with --no-render")
    return films[0]
