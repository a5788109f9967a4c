"""
What torchrun tells its processes, in variables of the environment.

This module imports nothing heavy: the command line and every model import it.
"""

import os


def is_launched() -> bool:
    """:return: True in a process that torchrun has started"""
    return bool(os.environ.get("TORCHELASTIC_RUN_ID"))


def get_rank() -> int:
    """:return: the number of this process among those that torchrun has started, from 0; 0 without torchrun"""
    return int(os.environ["RANK"]) if is_launched() else 0


def local_rank() -> int:
    """:return: the number of this process among those on this machine, from 0; 0 without torchrun"""
    return int(os.environ["LOCAL_RANK"]) if is_launched() else 0


def get_world_size() -> int:
    """:return: the number of processes that torchrun has started; 1 without torchrun"""
    return int(os.environ["WORLD_SIZE"]) if is_launched() else 1


def n_restarts() -> int:
    """:return: how often torchrun has restarted its processes (``--max-restarts``)"""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) if is_launched() else 0


def launch_id() -> str:
    """:return: a name of the launch, which is the same after a restart and differs between two torchruns"""
    parent = os.getppid()
    try:
        # In a container each torchrun may have the same number, but not the same time of its start
        with open(f"/proc/{parent}/stat") as file:
            begun = file.read().rpartition(")")[2].split()[19]
    except OSError:
        begun = ""
    return f"{os.environ.get('TORCHELASTIC_RUN_ID', '')} {parent} {begun}"


def shard(n_envs: int) -> tuple[int, int]:
    """
    Divide environments among the processes.

    :param n_envs: number of environments of all processes
    :return: how many this process has, and the index of the first of them
    :raises ValueError: if the number cannot be divided
    """
    n_processes = get_world_size()
    if n_envs % n_processes:
        divisors = [str(number) for number in range(1, n_envs + 1) if n_envs % number == 0]
        raise ValueError(
            f"n_envs={n_envs} environments cannot be divided equally among {n_processes} processes: use another n_envs, or "
            f"torchrun --nproc-per-node with {' or '.join(divisors)} processes in all"
        )
    own = n_envs // n_processes
    return own, get_rank() * own
