"""
A program in which processes exchange messages: ``python shared_exchange.py FOLDER``. Each scenario has a folder with the
output of each process, and ``codes.json`` has the exit codes of all.
"""

import json
import os
import pickle
import platform
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch as th
from forked_processes import run, start, wait

from sb3_vpg import VPG
from sb3_vpg.distributed import exchange
from sb3_vpg.distributed.exchange import SharedMemoryExchange
from sb3_vpg.distributed.world import TorchrunWorld, join, leave
from sb3_vpg.exceptions import ProcessLostError

N_PROCESSES, N_MANY = 3, 8
SLOT = exchange._SLOT
SIZES = (0, 1, exchange._HEAD, exchange._HEAD + 1, SLOT - 1, SLOT, SLOT + 1, 5 * SLOT // 2, 0)
"""Bytes of messages: an empty one, and the limits of what gloo and the shared memory send at once."""
DTYPES = {"float32": th.float32, "float64": th.float64, "bfloat16": th.bfloat16}


def content(rank: int, number: int, size: int) -> bytes:
    return np.random.default_rng([rank, number]).bytes(size)


def size_of(rank: int, number: int) -> int:
    """Return another size in each process."""
    return SIZES[(rank + number) % len(SIZES)]


def numbers(rank: int, dtype: str) -> th.Tensor:
    """Return numbers whose sum depends on the order of addition, shape (3, 100)."""
    return th.as_tensor(np.random.default_rng(rank).normal(size=(3, 100))).to(DTYPES[dtype])


def joined(is_shared: bool = True) -> TorchrunWorld:
    world = join()
    assert isinstance(world._exchange, SharedMemoryExchange) == is_shared
    return world


class Unpicklable:
    def __reduce__(self) -> tuple[Any, ...]:
        raise ValueError("it cannot be sent")


def exchanged(folder: Path, is_shared: bool) -> None:
    """Write what each process receives. Without shared memory, the processor seems to be another one."""
    with patch.object(platform, "machine", lambda: "x86_64" if is_shared else "aarch64"):
        world = joined(is_shared)
    gathered, broadcast = [], []
    for number in range(len(SIZES)):
        own = content(world.rank, number, size_of(world.rank, number))
        gathered.append([bytes(one) for one in world._exchange.all_gather(own)])
        broadcast.append(bytes(world._exchange.broadcast(own)))
    sums = {name: world.all_reduce(numbers(world.rank, name)) for name in DTYPES}
    sums["empty"] = world.all_reduce(th.empty(0, 3))
    with suppress(ValueError):
        world.all_gather(Unpicklable())
    objects = world.all_gather({"rank": world.rank}), world.broadcast(("rank", world.rank))
    (folder / f"{world.rank}.pickle").write_bytes(pickle.dumps((gathered, broadcast, sums, objects)))


def one_cannot_open() -> None:
    """The second process cannot open the shared memory, so all use gloo."""
    opened = (lambda *_: None) if os.environ["RANK"] == "1" else exchange._opened
    with patch.object(exchange, "_opened", opened):
        world = joined(is_shared=False)
    assert world.all_gather(world.rank) == [*range(world.size)]


def many() -> None:
    """Many short and long messages between more processes than cores. The pieces are small, and so there are many."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    world, rng = joined(), np.random.default_rng(0)
    for number in range(400):
        sizes = [int(size) for size in rng.choice([0, 1, 63, 64, 65, 1000], world.size)]
        every = [content(rank, number, size) for rank, size in enumerate(sizes)]
        if rng.random() < 0.5:
            assert world._exchange.all_gather(every[world.rank]) == every
        else:
            assert world._exchange.broadcast(every[world.rank]) == every[0]


def losing(folder: Path, end: Callable[[Path], bool]) -> None:
    """The second process ends while the others wait for it, unless it returns True. They print the error."""
    world = joined()
    world.all_gather(0)
    if world.rank == 1 and not end(folder):
        return
    try:
        world.all_gather(0)
    except ProcessLostError as error:
        print(error)
    (folder / f"noticed_{world.rank}").touch()


def kill(_: Path) -> bool:
    os.kill(os.getpid(), signal.SIGKILL)
    return False


def leave_and_live_on(folder: Path) -> bool:
    leave()
    while len(list(folder.glob("noticed_*"))) < N_PROCESSES - 1:
        time.sleep(0.05)
    return False


def be_late(_: Path) -> bool:
    """Its message comes when the others have begun to sleep."""
    time.sleep(0.5)
    return True


def child() -> None:
    """A child of a process that has joined may not join; alone, it trains."""
    joined()
    process = os.fork()
    if not process:
        try:
            join()
        except ValueError as error:
            print(error)
        os.environ.pop("TORCHELASTIC_RUN_ID")
        model = VPG("MlpPolicy", "CartPole-v1", n_steps=8, device="cpu").learn(8)
        print(f"{model.num_timesteps} steps", flush=True)
        os._exit(0)
    os.waitpid(process, 0)


def mapped() -> str:
    return Path("/proc/self/maps").read_text()


def endless(folder: Path) -> None:
    """Write which files are mapped into memory before and after the process joins, and exchange until it is killed."""
    before = mapped()
    world = joined()
    (folder / f"{os.environ['RANK']}.json").write_text(json.dumps([before, mapped()]))
    while True:
        world.all_gather(bytes(3 * SLOT))


def killed(folder: Path) -> list[int]:
    processes = start(N_PROCESSES, partial(endless, folder), folder)
    while len(list(folder.glob("*.json"))) < N_PROCESSES:
        time.sleep(0.05)
    for process in processes:
        os.kill(process, signal.SIGKILL)
    return wait(processes)


def scenarios(folder: Path) -> dict[str, list[int]]:
    """:return: the exit codes of each scenario"""
    codes = {}

    def play(name: str, n_processes: int, function: Callable[[], Any]) -> None:
        codes[name] = run(n_processes, function, folder / name)

    play("shared memory", N_PROCESSES, partial(exchanged, folder / "shared memory", True))
    play("gloo", N_PROCESSES, partial(exchanged, folder / "gloo", False))
    play("one cannot open", N_PROCESSES, one_cannot_open)
    with patch.object(exchange, "_SLOT", 64):
        play("many", N_MANY, many)
    for name, end in {"killed": kill, "left": leave_and_live_on, "late": be_late}.items():
        play(name, N_PROCESSES, partial(losing, folder / name, end))
    play("child", 2, child)
    codes["all killed"] = killed(folder / "all killed")
    return codes


if __name__ == "__main__":
    th.set_num_threads(1)
    where = Path(sys.argv[1])
    where.mkdir(exist_ok=True)
    (where / "codes.json").write_text(json.dumps(scenarios(where)))
