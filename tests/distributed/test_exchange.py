"""What processes exchange through shared memory and through gloo, and what happens when one of them ends."""

import json
import os
import pickle
import resource
from pathlib import Path

import pytest
import torch as th
from forked_processes import codes, output, run_program
from shared_exchange import DTYPES, N_MANY, N_PROCESSES, SIZES, content, numbers, size_of

from sb3_vpg.distributed import exchange

PROGRAM = Path(__file__).parents[1] / "support/shared_exchange.py"
RANKS = range(N_PROCESSES)
pytestmark = pytest.mark.skipif(not exchange.can_share_memory(), reason="shared memory is used on x86-64 and Linux only")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_program(PROGRAM, tmp_path_factory.mktemp("runs"))


@pytest.mark.parametrize("way", ["shared memory", "gloo"])
def test_every_process_receives_what_the_others_sent(runs: Path, way: str) -> None:
    """
    Empty and long messages, of another length in each process, objects, and sums to the last bit. The error of a value that
    cannot be sent is its own.
    """
    assert codes(runs, way) == [0] * N_PROCESSES, output(runs, way, 0)
    for process in RANKS:
        gathered, broadcast, sums, objects = pickle.loads((runs / way / f"{process}.pickle").read_bytes())
        for number in range(len(SIZES)):
            sent = [content(rank, number, size_of(rank, number)) for rank in RANKS]
            assert gathered[number] == sent
            assert broadcast[number] == sent[0]
        for name in DTYPES:
            first, second, third = (numbers(rank, name) for rank in RANKS)
            assert sums[name].dtype == DTYPES[name]
            assert th.equal(sums[name], (first + second) + third)
        assert sums["empty"].shape == (0, 3)
        assert objects == ([{"rank": rank} for rank in RANKS], ("rank", 0))


def test_all_use_gloo_if_one_cannot_open_the_memory(runs: Path) -> None:
    assert codes(runs, "one cannot open") == [0] * N_PROCESSES, output(runs, "one cannot open", 0)


def test_another_file_is_not_touched(tmp_path: Path) -> None:
    """In a container that shows the processes of its host, a process number may be that of another program."""
    file = tmp_path / "of another program"
    file.write_bytes(bytes(exchange.n_bytes(2)))
    assert exchange._opened(str(file), (0, 0), 0, [os.getpid(), os.getpid()]) is None
    assert not any(file.read_bytes())


def test_a_limit_for_files_is_no_error() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (512, hard))
    try:
        assert exchange._memory_file(2) is None
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_many_processes_on_two_cores(runs: Path) -> None:
    """400 messages of random lengths, in up to 16 pieces, are received as they were sent."""
    assert codes(runs, "many") == [0] * N_MANY, output(runs, "many", 0)


@pytest.mark.parametrize(("name", "code"), [("killed", -9), ("left", 0)])
def test_the_others_stop_waiting_when_a_process_ends(runs: Path, name: str, code: int) -> None:
    """It is killed, or leaves and does something else. A process that has ended is named."""
    assert codes(runs, name) == [0, code, 0]
    words = {"killed": "process 1 of 3 (pid ", "left": "another of the 3 processes has ended, or cannot be reached,"}[name]
    for process in (0, 2):
        assert output(runs, name, process).startswith(words)
        assert f"while process {process} waited for it" in output(runs, name, process)


def test_a_slow_process_is_waited_for(runs: Path) -> None:
    assert codes(runs, "late") == [0] * N_PROCESSES
    assert [output(runs, "late", process) for process in RANKS] == [""] * N_PROCESSES


def test_a_child_of_a_process_does_not_take_its_place(runs: Path) -> None:
    """Both would wait for each other for ever."""
    assert codes(runs, "child") == [0, 0]
    for process in range(2):
        assert "TORCHELASTIC_RUN_ID" in output(runs, "child", process)
        assert output(runs, "child", process).endswith("\n8 steps\n")


def test_killed_processes_leave_no_file_behind(runs: Path) -> None:
    """The memory has no name in any folder, so it is gone with the last process."""
    assert codes(runs, "all killed") == [-9] * N_PROCESSES
    for process in RANKS:
        before, after = (
            {line.split(maxsplit=5)[5] for line in text.splitlines() if len(line.split(maxsplit=5)) == 6}
            for text in json.loads((runs / f"all killed/{process}.json").read_text())
        )
        assert "/memfd:sb3_vpg (deleted)" in after - before
        assert not [name for name in after - before if name.startswith("/dev/shm")]
