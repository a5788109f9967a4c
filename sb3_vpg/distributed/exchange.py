"""
How bytes get from process to process: through gloo, or faster, through memory that the processes of one machine share.

With gloo a process sleeps until the system wakes it, up to milliseconds late. In shared memory it looks at a number that the
other process raises, and finds it within microseconds.
"""

import mmap
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol
from weakref import WeakSet

import numpy as np
import torch as th
import torch.distributed as dist

_HEAD = 1024
"""Bytes of a message that gloo sends with its length."""
_LINE = 8
"""Numbers (int64) of each process at the start of the shared memory: one cache line, which only this process writes to."""
_POSTED, _LEFT, _LENGTH = 0, 1, 2
"""Positions in it: the last piece that is written, whether the process has left, lengths of messages (even, odd pieces)."""
_SLOT = 1 << 18
"""Bytes of a piece of a message."""
_SPIN = 1e-3
"""Seconds for which a waiting process keeps its core, as long as no other process needs it."""
_LONGEST_SLEEP = 1e-2


class Exchange(Protocol):
    """
    All processes call the methods in the same order. If another process has ended, they raise RuntimeError or ValueError.
    """

    def all_gather(self, content: bytes) -> list[bytearray]:
        """Return the content of each process, in the order of their ranks."""

    def broadcast(self, content: bytes) -> bytes | bytearray:
        """Return the content of the first process."""


class GlooExchange:
    """For any processes of ``torch.distributed``, also on several machines."""

    def all_gather(self, content: bytes) -> list[bytearray]:
        own = np.frombuffer(content, np.uint8)
        # Most messages are short, and one exchange tells their lengths too
        head = np.zeros(8 + _HEAD, np.uint8)
        head[:8] = np.frombuffer(len(own).to_bytes(8, "little"), np.uint8)
        head[8 : 8 + len(own)] = own[:_HEAD]
        heads = _gathered(head)
        lengths = [int.from_bytes(head[:8].tobytes(), "little") for head in heads]
        contents = [head[8:] for head in heads]
        if max(lengths) > _HEAD:
            padded = np.zeros(max(lengths), np.uint8)
            padded[: len(own)] = own
            contents = _gathered(padded)
        return [bytearray(one[:length]) for one, length in zip(contents, lengths, strict=True)]

    def broadcast(self, content: bytes) -> bytes:
        contents = [content]
        dist.broadcast_object_list(contents, src=0)
        return contents[0]


def _gathered(own: np.ndarray) -> list[np.ndarray]:
    """Return the array of each process, which have the same shape."""
    parts = [th.empty(own.shape, dtype=th.uint8) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, th.from_numpy(own))
    return [part.numpy() for part in parts]


class SharedMemoryExchange:
    """
    For processes of one machine. Messages are cut into pieces, which are numbered. Each process has two slots in the memory,
    for pieces with even and with odd numbers, and a number that says which piece it has written last. A process writes piece
    k when all have written piece k - 1: by then all have read piece k - 2, which was in this slot.

    The number is written after the piece, and read before it. x86-64 processors keep both orders; others may not.

    :param file: open for reading and writing, and as large as ``n_bytes``
    :param pids: of the processes
    """

    def __init__(self, file: int, rank: int, pids: list[int]) -> None:
        self._rank, self._pids = rank, pids
        self._ranks = range(len(pids))
        memory = mmap.mmap(file, n_bytes(len(pids)))
        self._lines = np.frombuffer(memory, np.int64, len(pids) * _LINE).reshape(len(pids), _LINE)
        self._slots = memoryview(memory)[self._lines.nbytes :]
        self._number = 0
        _OPEN.add(self)

    def all_gather(self, content: bytes) -> list[bytearray]:
        self._post(content, 0)
        gathered = [self._read(rank, 0) for rank in self._ranks]
        lengths = [self._length(rank) for rank in self._ranks]
        for start in range(_SLOT, max(lengths), _SLOT):
            self._post(content, start)
            for rank in self._ranks:
                gathered[rank] += self._read(rank, start)
        return gathered

    def broadcast(self, content: bytes) -> bytearray:
        # The first process goes on without waiting
        content = content if self._rank == 0 else b""
        self._post(content, 0)
        received = self._read(0, 0)
        for start in range(_SLOT, self._length(0), _SLOT):
            self._post(content, start)
            received += self._read(0, start)
        return received

    def leave(self) -> None:
        """Tell the others, who may wait for this process."""
        # A copy of the process by os.fork may end, too
        if self._pids[self._rank] == os.getpid():
            self._lines[self._rank, _LEFT] = 1

    def _post(self, content: bytes, start: int) -> None:
        """Show the others the piece of the content from ``start`` on, which may be empty."""
        for rank in self._ranks:
            self._wait(rank, self._number)
        self._number += 1
        piece = memoryview(content)[start : start + _SLOT]
        slot, own = self._slot(self._rank), self._lines[self._rank]
        self._slots[slot : slot + len(piece)] = piece
        own[_LENGTH + self._number % 2] = len(content)
        own[_POSTED] = self._number

    def _read(self, rank: int, start: int) -> bytearray:
        self._wait(rank, self._number)
        slot, length = self._slot(rank), min(max(self._length(rank) - start, 0), _SLOT)
        return bytearray(self._slots[slot : slot + length])

    def _slot(self, rank: int) -> int:
        return (self._number % 2 * len(self._pids) + rank) * _SLOT

    def _length(self, rank: int) -> int:
        return int(self._lines[rank, _LENGTH + self._number % 2])

    def _wait(self, rank: int, number: int) -> None:
        """:raises RuntimeError: if the process has ended before it has written this piece"""
        line, start = self._lines[rank], time.perf_counter()
        while line[_POSTED] < number:
            waited = time.perf_counter() - start
            if waited < _SPIN:
                os.sched_yield()
                continue
            # So the delay stays small beside the time that it has waited anyway
            pause = min(waited / 8, _LONGEST_SLEEP)
            time.sleep(pause)
            has_left = pause == _LONGEST_SLEEP and (line[_LEFT] or has_ended(self._pids[rank]))
            # It may have written the piece just before
            if has_left and line[_POSTED] < number:
                raise RuntimeError(f"process {rank} has ended")


_OPEN: WeakSet[SharedMemoryExchange] = WeakSet()


def leave_shared_memory() -> None:
    """Tell the processes of this machine that this one leaves."""
    for one in _OPEN:
        one.leave()


def can_share_memory() -> bool:
    """Return whether processes of this system and this kind of processor can share memory."""
    return _machine() is not None


def n_bytes(n_processes: int) -> int:
    """Return the size of the shared memory. The system provides only the parts that are written to."""
    return n_processes * (_LINE * 8 + 2 * _SLOT)


def share_memory(rank: int, size: int, gather: Callable[[Any], list[Any]]) -> SharedMemoryExchange | None:
    """
    Open memory that all processes share. It has no name in any folder, so nothing is left behind, however they end.

    :param rank: of this process
    :param size: number of processes
    :param gather: gathers a value of each process
    :return: None if not all processes can open it: on several machines, on other processors than x86-64 and other systems than
        Linux
    """
    file = _memory_file(size) if rank == 0 else None
    try:
        identity = None if file is None else _identity(file)
        machines, pids, files, identities = zip(*gather((_machine(), os.getpid(), file, identity)), strict=True)
        if None in machines or len(set(machines)) > 1 or files[0] is None:
            return None
        opened = _opened(f"/proc/{pids[0]}/fd/{files[0]}", identities[0], rank, list(pids))
        return opened if all(gather(opened is not None)) else None
    finally:
        if file is not None:
            os.close(file)


def _memory_file(n_processes: int) -> int | None:
    if not can_share_memory():
        return None
    try:
        # Some systems forbid it
        file = os.memfd_create("sb3_vpg")
    except OSError:
        return None
    try:
        # The process may have a limit for files
        os.truncate(file, n_bytes(n_processes))
    except OSError:
        os.close(file)
        return None
    return file


def _identity(file: int) -> tuple[int, int]:
    status = os.fstat(file)
    return status.st_dev, status.st_ino


def _machine() -> tuple[str, str] | None:
    """Return a value that is equal for processes that see one another in /proc; None if memory cannot be shared."""
    if platform.machine() != "x86_64" or not hasattr(os, "memfd_create"):
        return None
    try:
        # A container may show the processes of its host, which have other numbers there
        if os.readlink("/proc/self") != str(os.getpid()):
            return None
        return Path("/proc/sys/kernel/random/boot_id").read_text(), os.readlink("/proc/self/ns/pid")
    except OSError:
        return None


def _opened(path: str, identity: tuple[int, int], rank: int, pids: list[int]) -> SharedMemoryExchange | None:
    """Return None if the file cannot be opened or mapped, or is another one."""
    try:
        file = os.open(path, os.O_RDWR)
    except OSError:
        return None
    try:
        return SharedMemoryExchange(file, rank, pids) if _identity(file) == identity else None
    except OSError:
        return None
    finally:
        os.close(file)


def has_ended(pid: int) -> bool:
    """Return whether a process of this machine has ended."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    try:
        # Ended, but torchrun has not noticed yet
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return False
