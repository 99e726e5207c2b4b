"""Programs that begin with a connection of the workload's own making as their standard files."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Iterator

import pytest

from killswitch.events import Flow
from killswitch.kernel.dataplane import DataPlane
from tests.kernel.cgroups import Cgroup

CONNECT = "import os, socket, subprocess, sys\nc = socket.create_connection(('127.0.0.1', {port}))\n"


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        made.settimeout(20)
        yield made


def held(plane: DataPlane) -> list[Flow]:
    """The connections that were somebody's standard files, as last told within half a second."""
    found: dict[int, Flow] = {}
    end = time.monotonic() + 0.5
    while time.monotonic() < end:
        found.update({f.cookie: f for f in plane.traffic()})
        time.sleep(0.05)
    return [f for f in found.values() if f.stdio]


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
    code += (
        f"p = subprocess.Popen(['/bin/sleep', '2'], {files}); print(p.pid, os.getpid(), file=sys.__stdout__); p.wait()"
    )
    done = watched.popen(sys.executable, "-I", "-c", code, stdout=-1)
    assert done.stdout
    (flow,) = held(plane)
    child, parent = map(int, done.communicate(timeout=20)[0].split())
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
