"""Programs that begin with a connection of the workload's own making as their standard files."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time

import pytest

from killswitch.events import Flow
from killswitch.kernel.dataplane import DataPlane
from tests.kernel.cgroups import Cgroup

CONNECT = "import os, socket, subprocess, sys\nc = socket.create_connection(('127.0.0.1', {port}))\n"


def held(plane: DataPlane, seconds: float = 0.5) -> list[Flow]:
    """The first connections that are told to be somebody's standard files; none came when the time is up."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := [f for f in plane.traffic() if f.stdio]:
            return found
        time.sleep(0.05)
    return []


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ("stdin=c, stdout=c, stderr=c", ("stdin", "stdout", "stderr")),
        ("stdin=c", ("stdin",)),
        ("stdout=c", ("stdout",)),
    ],
)
def test_what_a_program_begins_with(
    plane: DataPlane, watched: Cgroup, listener: socket.socket, files: str, expected: tuple[str, ...]
) -> None:
    code = CONNECT.format(port=listener.getsockname()[1])
    code += f"p = subprocess.Popen(['/bin/sleep', '60'], {files})\nprint(p.pid, os.getpid(), flush=True)\np.wait()"
    with watched.popen(sys.executable, "-I", "-c", code, stdout=-1) as process:
        assert process.stdout
        child, parent = map(int, process.stdout.readline().split())
        (flow,) = held(plane, 20)
        for pid in watched.pids():
            os.kill(pid, signal.SIGKILL)
    assert (flow.stdio, flow.holder_pid, flow.pid) == (expected, child, parent)
    assert flow.holder_start_ticks > 0 and flow.remote_port == listener.getsockname()[1]


@pytest.mark.parametrize("files", ["pass_fds=[c.fileno()]", "stdin=subprocess.PIPE"])
def test_a_connection_beside_the_standard_files_is_nothing(
    plane: DataPlane, watched: Cgroup, listener: socket.socket, files: str
) -> None:
    code = CONNECT.format(port=listener.getsockname()[1]) + f"subprocess.Popen(['/bin/true'], {files}).wait()"
    assert watched.run(sys.executable, "-I", "-c", code).returncode == 0
    assert held(plane) == []


def test_an_accepted_connection_is_nothing(plane: DataPlane, watched: Cgroup) -> None:
    """What inetd does, and systemd's sockets."""
    code = (
        "import socket, subprocess\nl = socket.create_server(('127.0.0.1', 0)); print(l.getsockname()[1], flush=True)\n"
    )
    code += "c = l.accept()[0]; subprocess.Popen(['/bin/cat'], stdin=c, stdout=c).wait()"
    process = watched.popen(sys.executable, "-I", "-c", code, stdout=-1)
    assert process.stdout
    with process, socket.create_connection(("127.0.0.1", int(process.stdout.readline()))) as near:
        near.sendall(b"x")
        assert near.recv(1) == b"x"
        assert held(plane) == []
