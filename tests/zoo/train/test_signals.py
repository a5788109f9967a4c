"""Ctrl-C and SIGTERM: the first calls a function, the second interrupts, the third ends the process. Closed output pipes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sb3_vpg import VPG

BEGIN = """
import os, signal, sys, threading, time
from sb3_vpg.zoo.signals import Signals
from sb3_vpg.zoo.train.subproc import sigint_blocked_in_workers
def send(number):
    os.kill(os.getpid(), number)
    time.sleep(0.01)
signals, calls = Signals(), []
"""
PROGRAMS = {
    "calls a function": (
        """
with signals:
    signals.on_signal = lambda: calls.append(1)
    send(signal.SIGTERM)
    assert calls == [1]
sys.exit(signals.exit_code)
""",
        143,
    ),
    "interrupts": (
        """
try:
    with signals:
        signals.on_signal = lambda: calls.append(1)
        send(signal.SIGINT)
        send(signal.SIGTERM)
        assert False
except KeyboardInterrupt:
    assert calls == [1]
    sys.exit(signals.exit_code)
""",
        130,
    ),
    "ends at once": (
        """
with signals:
    try:
        send(signal.SIGTERM)
    except KeyboardInterrupt:
        print("flushed")
        send(signal.SIGINT)
""",
        143,
    ),
    "inside an exec": (
        """
try:
    with signals:
        exec("send(signal.SIGTERM)")
except KeyboardInterrupt:
    sys.exit(signals.exit_code)
""",
        143,
    ),
    "ignored before": (
        """
signal.signal(signal.SIGINT, signal.SIG_IGN)
with signals:
    send(signal.SIGINT)
sys.exit(signals.exit_code)
""",
        0,
    ),
    "another thread": (
        """
before = signal.getsignal(signal.SIGTERM)
def enter():
    with signals:
        calls.append(signal.getsignal(signal.SIGTERM) is before)
thread = threading.Thread(target=enter)
thread.start()
thread.join()
sys.exit(calls != [True])
""",
        0,
    ),
    "handlers restored": (
        """
before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
with signals:
    assert before != [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
sys.exit(before != [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)])
""",
        0,
    ),
    "forked child": (
        """
with signals:
    signals.on_signal = lambda: calls.append(1)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, b"up")
        time.sleep(60)
        os._exit(0)
    os.read(read, 2)
    os.kill(child, signal.SIGTERM)
    _, status = os.waitpid(child, 0)
    sys.exit(os.waitstatus_to_exitcode(status) != -signal.SIGTERM or calls != [])
""",
        0,
    ),
    "worker": (
        """
import subprocess
with signals:
    signals.on_signal = lambda: calls.append(1)
    with sigint_blocked_in_workers():
        worker = subprocess.Popen([sys.executable, "-c", "import time; print('up', flush=True); time.sleep(0.5)"], stdout=-1)
        worker.stdout.readline()
        os.kill(worker.pid, signal.SIGINT)
        send(signal.SIGINT)
        assert calls == []
    assert calls == [1], "a signal during the block is not lost"
    worker.communicate()
    sys.exit(worker.returncode)
""",
        0,
    ),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_signal(name: str) -> None:
    program, expected = PROGRAMS[name]
    done = subprocess.run([sys.executable, "-c", BEGIN + program], capture_output=True, text=True, timeout=60)
    assert done.returncode == expected, done.stderr
    assert done.stdout == ("flushed\n" if name == "ends at once" else "")
    assert done.stderr == ""


@pytest.mark.parametrize("arguments", [[], ["train", "--help"]], ids=str)
def test_a_closed_output_pipe_ends_a_command_quietly(arguments: list[str], tmp_path: Path) -> None:
    """A command whose reader is gone, as in ``sb3-vpg train --help | head -1``, ends without a message."""
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "sb3_vpg", *arguments]
    done = subprocess.run(command, cwd=tmp_path, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


def test_training_with_a_closed_output_pipe_saves_its_model(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sb3_vpg", "train", "-n", "1000000", "--eval-freq", "-1", "-f", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while "total_timesteps" not in process.stdout.readline():
            assert process.poll() is None
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141
    assert VPG.load(tmp_path / "vpg/CartPole-v1_1/CartPole-v1.zip").num_timesteps > 0
