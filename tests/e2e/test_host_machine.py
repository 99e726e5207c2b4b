"""``kill host`` of a machine itself: a virtual one, which goes away with its tests. Anywhere else this is skipped."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.test_host import HOSTS, SENDER, WORKLOADS, ports
from tests.rig.daemon import Daemon, in_virtual_machine
from tests.rig.emulated import patience
from tests.rig.farside import Counter
from tests.rig.netns import FarSide

pytestmark = pytest.mark.skipif(not in_virtual_machine(), reason="the machine itself is cut off in a virtual one only")


class Machine(FarSide):
    """A far side whose near end is the machine's own namespace, as an ``Island``'s is the namespace that stands for it."""

    def command(self, *command: str, namespace: str = "") -> list[str]:
        return list(command)


def test_the_machine(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon(
        KILLSWITCH_HOST_CGROUP="/", KILLSWITCH_HOST_NETNS="", KILLSWITCH_RECONCILE_SECONDS="0.3"
    ).start()
    with Machine() as far, Counter(far) as counter:
        sender = subprocess.Popen([sys.executable, "-c", SENDER, far.far4, str(HOSTS)], stdout=subprocess.DEVNULL)
        agent = daemon.spawn("agent", sys.executable, "-c", SENDER, far.far4, str(WORKLOADS))
        key = _host_key(daemon.directory)
        server = subprocess.Popen(
            ["/usr/sbin/sshd", "-D", "-e", "-f", "/dev/null", "-p", "22", "-h", key], stderr=subprocess.DEVNULL
        )
        try:
            daemon.wait_for("both send", lambda: {HOSTS, WORKLOADS} <= ports(counter.since(0)))
            daemon.wait_for("watched", lambda: daemon.workload("agent"))
            daemon.wait_for("sshd", lambda: _answers(far))
            result = daemon.client.kill("host", "the machine misbehaves")
            since = time.time_ns()
            assert result.complete, result.receipts
            time.sleep(0.5)
            assert not ports(counter.since(since)) & {HOSTS, WORKLOADS}
            daemon.wait_for(f"sshd answers, {result.receipts}", lambda: _answers(far))
            with socket.create_server(("127.0.0.1", 0)) as own:
                socket.create_connection(own.getsockname(), 5).close()
            assert sender.poll() is None
            daemon.kill9()
            daemon.remove_pins()  # what a reboot leaves
            daemon.start()
            again = time.time_ns()
            time.sleep(0.5)
            assert not ports(counter.since(again)) & {HOSTS, WORKLOADS}
            assert daemon.client.release("host", "all clear").complete
            released = time.time_ns()
            daemon.wait_for("it sends again", lambda: HOSTS in ports(counter.since(released)))
            assert WORKLOADS not in ports(counter.since(since))  # it is released by its name
        finally:
            for process in (sender, agent, server):
                process.kill()
                process.wait()


def _host_key(directory: Path) -> Path:
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    key = directory / "host_key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    return key


def _answers(far: FarSide) -> bool:
    with far.open_socket() as s:
        s.settimeout(patience(5))
        try:
            s.connect((far.near4, 22))
            return s.recv(8).startswith(b"SSH-")
        except OSError:
            return False
