"""Commands as our programs print them, to be copied into a shell: quoted, and without flags that repeat a default."""

import shlex

from sb3_vpg.zoo.algorithms import DEFAULT


def command(name: str, algo: str, env_id: str, *more: str, folder: str = "logs") -> str:
    """
    :param name: of the command
    :param algo: name on the command line
    :param env_id: environment id
    :param more: further words
    :param folder: log folder
    :return: the command
    """
    words = [name, *([] if algo == DEFAULT else ["--algo", algo]), "--env", env_id]
    return shlex.join(["sb3-vpg", *words, *([] if folder == "logs" else ["-f", folder]), *more])
