"""Connects, sends, binds and listens of watched workloads."""

from __future__ import annotations

import sys

import pytest

from killswitch.events import Connect, Listen, Transport
from killswitch.kernel.dataplane import DataPlane
from tests.kernel.cgroups import Cgroup

PRELUDE = "import socket as s, sys\n"


def script(watched: Cgroup, code: str, *arguments: str) -> str:
    done = watched.run(sys.executable, "-I", "-S", "-c", PRELUDE + code, *arguments)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().strip()


def connects(plane: DataPlane) -> list[Connect]:
    return [e for e in plane.drain(10_000) if isinstance(e, Connect)]


def listens(plane: DataPlane) -> list[Listen]:
    return [e for e in plane.drain(10_000) if isinstance(e, Listen)]


@pytest.mark.parametrize(
    ("family", "address", "shown"),
    [("AF_INET", "127.0.0.1", "127.0.0.1"), ("AF_INET6", "::1", "::1"), ("AF_INET6", "::ffff:127.0.0.1", "127.0.0.1")],
)
@pytest.mark.parametrize("kind", ["SOCK_STREAM", "SOCK_DGRAM"])
def test_connect(plane: DataPlane, watched: Cgroup, family: str, address: str, shown: str, kind: str) -> None:
    script(watched, f"c = s.socket(s.{family}, s.{kind}); c.connect_ex(('{address}', 9))")
    (e,) = connects(plane)
    transport = Transport.TCP if kind == "SOCK_STREAM" else Transport.UDP
    assert (e.workload, e.cgroup_id, e.uid, e.denied) == (watched.id, watched.id, 0, False)
    assert (e.transport, e.destination_ip, e.destination_port, e.operation) == (transport, shown, 9, "connect")
    assert e.comm.startswith(b"python")


@pytest.mark.parametrize(("family", "address"), [("AF_INET", "127.0.0.1"), ("AF_INET6", "::1")])
def test_sendmsg_of_an_unconnected_socket(plane: DataPlane, watched: Cgroup, family: str, address: str) -> None:
    script(watched, f"c = s.socket(s.{family}, s.SOCK_DGRAM); c.sendto(b'x', ('{address}', 9))")
    (e,) = connects(plane)
    assert (e.transport, e.destination_ip, e.destination_port, e.operation) == (Transport.UDP, address, 9, "sendmsg")


def test_a_flood_of_datagrams_is_told_once_and_counted(plane: DataPlane, watched: Cgroup) -> None:
    code = "c = s.socket(s.AF_INET, s.SOCK_DGRAM)\nfor n in range(5000): c.sendto(b'x', ('127.0.0.1', 9 + n % 2))"
    script(watched, code)
    told = connects(plane)
    suppressed = sum(x.count for x in plane.losses() if x.reason == "sendmsg_suppressed" and x.workload == watched.id)
    assert {e.destination_port for e in told} == {9, 10}
    assert len(told) + suppressed == 5000
    assert len(told) <= 40, "once a second for an address, however slow this machine is"


@pytest.mark.parametrize(("family", "address"), [("AF_INET", "127.0.0.1"), ("AF_INET6", "::1")])
def test_bind_and_listen(plane: DataPlane, watched: Cgroup, family: str, address: str) -> None:
    code = f"c = s.socket(s.{family}); c.bind(('{address}', 0)); c.listen(); print(c.getsockname()[1])"
    port = int(script(watched, code))
    bind, listen = listens(plane)
    assert (bind.operation, bind.transport, bind.source_ip, bind.source_port) == ("bind", Transport.TCP, address, 0)
    assert (listen.operation, listen.transport, listen.source_ip, listen.source_port) == (
        "listen", Transport.TCP, address, port,
    )  # fmt: skip
    assert listen.workload == watched.id and listen.pid == bind.pid


def test_listen_without_bind_shows_the_port_that_it_got(plane: DataPlane, watched: Cgroup) -> None:
    port = int(script(watched, "c = s.socket(); c.listen(); print(c.getsockname()[1])"))
    (e,) = listens(plane)
    assert (e.source_ip, e.source_port, e.operation) == ("0.0.0.0", port, "listen")


def test_flows_are_counted(plane: DataPlane, watched: Cgroup) -> None:
    before = plane.flows(watched.id)
    script(
        watched,
        "a = s.socket(s.AF_INET, s.SOCK_DGRAM); a.bind(('127.0.0.1', 0))\n"
        "b = s.socket(s.AF_INET, s.SOCK_DGRAM)\n"
        "for n in range(10): b.sendto(b'x' * 100, a.getsockname()); a.recv(200)",
    )
    after = plane.flows(watched.id)
    assert (before.tx_packets, before.rx_packets) == (0, 0)
    assert (after.tx_packets, after.rx_packets) == (10, 10)
    assert after.tx_bytes == after.rx_bytes == 10 * (100 + 28)
    assert (after.tx_dropped, after.rx_dropped) == (0, 0)
