"""``kill host`` of a machine itself: a virtual one, which goes away with its tests. Anywhere else this is skipped."""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.test_host import HOSTS, SENDER, WORKLOADS, ports
from tests.rig.daemon import Daemon, in_virtual_machine
from tests.rig.farside import SYN, Counter
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
            daemon.wait_for("sshd", lambda: _answers(far, counter))
            result = daemon.client.kill("host", "the machine misbehaves")
            since = time.time_ns()
            assert result.complete, result.receipts
            time.sleep(0.5)
            assert not ports(counter.since(since)) & {HOSTS, WORKLOADS}
            daemon.wait_for(f"sshd answers, {result.receipts}", lambda: _answers(far, counter))
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


def _answers(far: FarSide, counter: Counter) -> bool:
    """Whether sshd takes up a connection. Asked by a frame: the far side's own sockets are the machine's, and cut off as well."""
    began = time.time_ns()
    near, over_there = socket.inet_aton(far.near4), socket.inet_aton(far.far4)
    tcp = struct.pack("!HHIIBBHHH", 50000 + began % 10000, 22, began % 2**32, 0, 0x50, SYN, 64240, 0, 0)
    tcp = tcp[:16] + _checksum(over_there + near + struct.pack("!HH", socket.IPPROTO_TCP, len(tcp)) + tcp) + tcp[18:]
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 40, 1, 0, 64, socket.IPPROTO_TCP, 0, over_there, near)
    ip = ip[:10] + _checksum(ip) + ip[12:]
    to = bytes.fromhex(Path(f"/sys/class/net/{far.near_device}/address").read_text().strip().replace(":", ""))
    with far.open_socket(socket.AF_PACKET, socket.SOCK_RAW) as s:
        s.bind((far.far_device, 0x0800))
        s.send(to + b"\x02" * 6 + b"\x08\x00" + ip + tcp)
    time.sleep(0.3)
    return any(p.source_port == 22 and p.flags & SYN for p in counter.since(began))


def _checksum(data: bytes) -> bytes:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!H", ~total & 0xFFFF)
