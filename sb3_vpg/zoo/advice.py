"""Texts that our programs print for the user: commands to copy into a shell, and advice that completes an error message."""

import shlex

from sb3_vpg.common import torchrun
from sb3_vpg.zoo.algorithms import DEFAULT_ALGORITHM

IMPORT_ADVICE = "add the folder of its module to PYTHONPATH, or run python -m sb3_vpg in that folder"
PYTHON_CONF = "in a Python file that sets hyperparams = {...}, given with -conf conf.py"
"""Where hyperparameters can be any Python object."""


def command_line(name: str, algo: str, env_id: str, *flags: str, folder: str = "logs") -> str:
    """
    :param name: of the command
    :param algo: name on the command line
    :param env_id: environment id
    :param flags: further flags
    :param folder: log folder
    :return: the command line, quoted for a shell, without flags that repeat a default
    """
    words = [name, *([] if algo == DEFAULT_ALGORITHM else ["--algo", algo]), "--env", env_id]
    program = (
        ["torchrun", "--nproc-per-node", str(torchrun.get_world_size()), "-m", "sb3_vpg"]
        if torchrun.is_launched()
        else ["sb3-vpg"]
    )
    return shlex.join([*program, *words, *([] if folder == "logs" else ["-f", folder]), *flags])
