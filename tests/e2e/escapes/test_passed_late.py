"""Sockets that a helper outside passes in after the cut: found when the daemon looks again, and cut off as well."""

from __future__ import annotations

import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import Daemon
from tests.e2e.escapes.loose import Loose, covered, quiet
from tests.rig.farside import Counter
from tests.rig.netns import FarSide

SCRIPT = """
unix = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
unix.connect(sys.argv[1])
go()
_, fds, _, _ = socket.recv_fds(unix, 1, 3)
udp, tcp = (socket.socket(fileno=fd) for fd in fds)
def send():
    udp.sendto(b"y", (sys.argv[2], 4001))
    tcp.connect_ex((sys.argv[2], 4001))
    tcp.send(b"y")
insist(send, every=0.02)
"""


@pytest.mark.usefixtures("ears")
def test_passed_late(loose: Callable[..., Loose], far: FarSide, counter: Counter, shared_daemon: Daemon) -> None:
    """Until then it is a way out: `doctor` says so, where no LSM refuses the descriptor itself."""
    if covered(shared_daemon, "lsm_foreign_sockets"):
        pytest.skip("an LSM refuses the descriptor: test_foreign_sockets")
    with (
        tempfile.TemporaryDirectory(prefix="ks-test-", dir="/tmp") as directory,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as giver,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp,
    ):
        Path(directory).chmod(0o755)
        giver.bind(f"{directory}/giver")
        Path(directory, "giver").chmod(0o777)
        giver.listen()
        script = loose(SCRIPT, f"{directory}/giver", far.far4, user="nobody")
        script.ready()
        script.sever()
        with giver.accept()[0] as taker:
            socket.send_fds(taker, [b"x"], [udp.fileno(), tcp.fileno()])
        udp.close(), tcp.close()  # what a process above the daemon holds is spared
        script.go()
        shared_daemon.wait_for("it is found", lambda: _found(shared_daemon, script.name), 10)
        assert quiet(counter, time.time_ns(), 0.3)
        script.ready()
        script.go()
        assert script.results()["cut"] != "done"


def _found(daemon: Daemon, name: str) -> bool:
    w = daemon.workload(name)
    return bool(w and any("handed_since" in r.proof for r in daemon.client.incident(w.incident).receipts))
