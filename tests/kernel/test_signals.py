"""Signals and ptrace of a watched workload to processes outside it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from killswitch.events import Signal
from killswitch.kernel.dataplane import DataPlane
from killswitch.kernel.procfs import start_ticks
from tests.kernel.cgroups import Cgroup

PTRACE = "import ctypes, os, sys; libc = ctypes.CDLL(None); pid = int(sys.argv[1])\n"


def signals(plane: DataPlane, watched: Cgroup, code: str, *arguments: object) -> list[Signal]:
    done = watched.run(sys.executable, "-I", "-S", "-c", PTRACE + code, *map(str, arguments))
    assert done.returncode == 0, done.stderr.decode()
    return [e for e in plane.drain(10_000) if isinstance(e, Signal)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGSTOP, signal.SIGUSR1])
def test_a_signal_to_the_outside(
    plane: DataPlane, watched: Cgroup, outside: subprocess.Popen[bytes], number: signal.Signals
) -> None:
    born = start_ticks(outside.pid)
    (e,) = signals(plane, watched, "for _ in range(50): os.kill(pid, int(sys.argv[2]))", outside.pid, int(number))
    assert (e.workload, e.number, e.target_pid, e.target_name) == (watched.id, number, outside.pid, b"sleep")
    assert (e.target_start_ticks, e.operation, e.to_daemon) == (born, "kill", False)


def test_ptrace_attach(plane: DataPlane, watched: Cgroup, outside: subprocess.Popen[bytes]) -> None:
    (e,) = signals(plane, watched, "assert libc.ptrace(16, pid, 0, 0) == 0; os.waitpid(pid, 0)", outside.pid)
    assert (e.operation, e.target_pid, e.number) == ("ptrace", outside.pid, signal.SIGSTOP)


def test_a_signal_to_the_daemon_is_told_as_one(plane: DataPlane, watched: Cgroup) -> None:
    before = signal.signal(signal.SIGUSR2, lambda *_: None)
    try:
        (e,) = signals(plane, watched, "os.kill(pid, 12)", os.getpid())
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert (e.to_daemon, e.target_pid) == (True, os.getpid())


def test_what_is_no_reaching_out(plane: DataPlane, watched: Cgroup, outside: subprocess.Popen[bytes]) -> None:
    """Among its own, to itself, by the kernel (a child's end, an alarm, a fault), of others, and asking with signal 0."""
    code = (
        "import signal, time\n"
        "child = os.fork()\n"
        "if not child: time.sleep(600)\n"
        "os.kill(child, 9); os.waitpid(child, 0)\n"
        "signal.signal(signal.SIGALRM, lambda *_: None); signal.setitimer(signal.ITIMER_REAL, 0.01); time.sleep(0.05)\n"
        "signal.signal(signal.SIGUSR1, lambda *_: None); os.kill(os.getpid(), 10); signal.raise_signal(10)\n"
        "if not os.fork(): ctypes.string_at(0)\n"
        "os.wait(); os.kill(pid, 0)"
    )
    assert signals(plane, watched, code, outside.pid) == []
    os.kill(outside.pid, signal.SIGCONT)
    assert [e for e in plane.drain(1000) if isinstance(e, Signal)] == []
