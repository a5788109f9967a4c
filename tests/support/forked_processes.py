"""
Processes that believe torchrun has started them. Forking takes no time, while each process of torchrun imports torch. The
parent must not have started threads, so programs of their own fork, not pytest.
"""

import os
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import torch._dynamo

# Building an optimizer imports it, which takes a second: once here, not in each process
assert torch._dynamo


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def start(n_processes: int, function: Callable[[], object], folder: Path, **variables: str) -> list[int]:
    """:return: the process ids; each process calls the function, and prints to ``output_RANK.txt`` in the folder"""
    folder.mkdir(parents=True, exist_ok=True)
    shared = {"TORCHELASTIC_RUN_ID": "test", "WORLD_SIZE": str(n_processes), "LOCAL_WORLD_SIZE": str(n_processes)}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), **variables}
    return [_forked(function, folder, shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(n_processes)]


def _forked(function: Callable[[], object], folder: Path, variables: dict[str, str]) -> int:
    sys.stdout.flush()
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        os.environ.update(variables)
        output = os.open(folder / f"output_{variables['RANK']}.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        result = function()
        code = result if isinstance(result, int) else 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def wait(processes: list[int]) -> list[int]:
    """:return: the exit codes; minus the signal's number for a process that a signal has ended"""
    return [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in processes]


def run(n_processes: int, function: Callable[[], object], folder: Path, **variables: str) -> list[int]:
    return wait(start(n_processes, function, folder, **variables))
