"""Taking a descriptor out of a process outside, of the same user: its socket is not the workload's."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

from tests.e2e.conftest import Daemon
from tests.e2e.escapes.loose import AS_USER, Loose, judge, quiet
from tests.rig.farside import Counter
from tests.rig.netns import FarSide

HELPER = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
print(s.fileno(), flush=True)
sys.stdin.read()
"""
SCRIPT = """
pid, fd, target = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
def steal():
    return socket.socket(fileno=call("syscall", 438, os.pidfd_open(pid), fd, 0))
attempt("free", lambda: steal().sendto(b"free", (target, 4001)))
go()
attempt("cut", lambda: steal().sendto(b"cut", (target, 4001)))
"""


@pytest.mark.usefixtures("ears")
def test_pidfd_getfd(
    loose: Callable[..., Loose], user: str, far: FarSide, counter: Counter, shared_daemon: Daemon
) -> None:
    become = () if user == "root" else AS_USER
    with subprocess.Popen(
        [*become, "/usr/bin/python3", "-c", HELPER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as helper:
        assert helper.stdout and helper.stdin
        script = loose(SCRIPT, helper.pid, helper.stdout.readline().strip(), far.far4, user=user)
        script.ready()
        counter.wait_for(1)
        since = script.sever()
        script.go()
        script.results()
        silent = quiet(counter, since)
        helper.stdin.close()
    judge(shared_daemon, "no_handed_sockets", [] if silent else counter.since(since))
