"""
What our programs print about commands: to be copied into a shell, quoted and without flags that repeat a default; and what to
do where a command finds no module.
"""

import shlex

from sb3_vpg.zoo.algorithms import DEFAULT_ALGORITHM

IMPORT_ADVICE = "add the folder of its module to PYTHONPATH, or run python -m sb3_vpg in that folder"
PYTHON_CONF = "in a Python file that sets hyperparams = {...}, given with -conf conf.py"
"""Where an entry can hold any object."""


def command(name: str, algo: str, env_id: str, *more: str, folder: str = "logs") -> str:
    """
    :param name: of the command
    :param algo: name on the command line
    :param env_id: environment id
    :param more: further words
    :param folder: log folder
    :return: the command
    """
    words = [name, *([] if algo == DEFAULT_ALGORITHM else ["--algo", algo]), "--env", env_id]
    return shlex.join(["sb3-vpg", *words, *([] if folder == "logs" else ["-f", folder]), *more])
