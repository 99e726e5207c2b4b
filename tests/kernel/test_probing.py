"""Reaching out that no connect tells of: what came to nothing, and the packets of ping and raw sockets."""

from __future__ import annotations

import sys

import pytest

from killswitch.events import Answered, Connect, Event, Transport, Unanswered
from killswitch.kernel.dataplane import DataPlane
from tests.kernel.cgroups import Cgroup

PRELUDE = "import socket as s, sys, struct, errno, time\n"


def events(plane: DataPlane, watched: Cgroup, code: str, *before: str) -> list[Event]:
    done = watched.run(*before, sys.executable, "-I", "-S", "-c", PRELUDE + code)
    assert done.returncode == 0, done.stderr.decode()
    return plane.drain(10_000)


def unanswered(found: list[Event]) -> list[Unanswered]:
    return [e for e in found if isinstance(e, Unanswered)]


def packets(found: list[Event]) -> list[Connect]:
    return [e for e in found if isinstance(e, Connect) and e.operation == "packet"]


@pytest.mark.parametrize(("family", "address"), [("AF_INET", "127.0.0.1"), ("AF_INET6", "::1")])
def test_refused(plane: DataPlane, watched: Cgroup, family: str, address: str) -> None:
    found = events(plane, watched, f"assert s.socket(s.{family}).connect_ex(('{address}', 9)) == errno.ECONNREFUSED")
    (e,) = unanswered(found)
    assert (e.workload, e.transport, e.destination_ip, e.destination_port) == (watched.id, Transport.TCP, address, 9)


def test_given_up(plane: DataPlane, watched: Cgroup) -> None:
    """A scanner that does not wait: nobody is at the other end of this device, and the socket is closed at once."""
    code = (
        "import subprocess as p\n"
        "made = 'link add ks-test-d type veth peer name ks-test-e'\n"
        "for c in (made, 'address add 10.77.0.1/24 dev ks-test-d', 'link set ks-test-d up', 'link set ks-test-e up'):\n"
        "  p.run(['ip', *c.split()], check=True)\n"
        "c = s.socket(); c.setblocking(False); assert c.connect_ex(('10.77.0.9', 22)) == errno.EINPROGRESS; c.close()"
    )
    (e,) = unanswered(events(plane, watched, code, "unshare", "-n"))
    assert (e.destination_ip, e.destination_port) == ("10.77.0.9", 22)


def test_what_is_answered_is_not(plane: DataPlane, watched: Cgroup) -> None:
    code = (
        "a = s.create_server(('127.0.0.1', 0)); c = s.create_connection(a.getsockname()); d, _ = a.accept()\n"
        "d.setsockopt(s.SOL_SOCKET, s.SO_LINGER, struct.pack('ii', 1, 0)); d.close(); time.sleep(0.01); c.close()"
    )
    assert unanswered(events(plane, watched, code)) == []


ECHO = "struct.pack('!BBHHH', {kind}, 0, 0, 1, {n}) + b'x' * 8"


@pytest.mark.parametrize(
    ("family", "protocol", "kind", "address"),
    [("AF_INET", "IPPROTO_ICMP", 8, "127.0.0.{n}"), ("AF_INET6", "IPPROTO_ICMPV6", 128, "::1")],
)
@pytest.mark.parametrize("socket", ["SOCK_RAW", "SOCK_DGRAM"])
def test_a_ping_is_told_by_its_address(
    plane: DataPlane, watched: Cgroup, family: str, protocol: str, kind: int, address: str, socket: str
) -> None:
    code = (
        "open('/proc/sys/net/ipv4/ping_group_range', 'w').write('0 1000')\n"
        "__import__('subprocess').run(['ip', 'link', 'set', 'lo', 'up'])\n"
        f"c = s.socket(s.{family}, s.{socket}, s.{protocol})\n"
        f"for n in range(1, 4):\n  for again in range(3): c.sendto({ECHO.format(kind=kind, n='n')}, (f'{address}', 0))\n"
    )
    found = packets(events(plane, watched, code, "unshare", "-n"))
    wanted = [address.format(n=n) for n in (1, 2, 3)] if "{n}" in address else [address]
    # The kernel's own answers, from the socket that it answers with, are no tries of the workload.
    assert [e.destination_ip for e in found] == wanted
    assert {(e.workload, e.transport, e.destination_port) for e in found} == {(watched.id, Transport.ICMP, 0)}


def test_raw_packets_are_told_by_address_and_port(plane: DataPlane, watched: Cgroup) -> None:
    """A SYN scan: TCP headers of the scanner's own making."""
    code = (
        "c = s.socket(s.AF_INET, s.SOCK_RAW, s.IPPROTO_TCP)\n"
        "for port in (22, 80, 443):\n"
        "  c.sendto(struct.pack('!HHIIBBHHH', 40000, port, 1, 0, 0x50, 2, 1024, 0, 0), ('127.0.0.1', 0))"
    )
    found = packets(events(plane, watched, code))
    assert [(e.transport, e.destination_ip, e.destination_port) for e in found] == [
        (Transport.TCP, "127.0.0.1", port) for port in (22, 80, 443)
    ]


def test_ordinary_traffic_sends_no_such_packets(plane: DataPlane, watched: Cgroup) -> None:
    code = (
        "a = s.create_server(('127.0.0.1', 0)); c = s.create_connection(a.getsockname()); d, _ = a.accept()\n"
        "c.sendall(b'x' * 100000); d.recv(100000)\n"
        "u = s.socket(s.AF_INET, s.SOCK_DGRAM); u.sendto(b'x', ('127.0.0.1', 9))"
    )
    assert packets(events(plane, watched, code)) == []


ASKED = (
    "import subprocess as p\n"
    "for c in ('link set lo up', 'address add {a}/{bits} dev lo', 'address add {b}/{bits} dev lo'):\n"
    "  p.run(['ip', *c.split(), *(['nodad'] if 'add' in c.split()[1] and ':' in c else [])], check=True)\n"
    "family = s.AF_INET6 if ':' in '{a}' else s.AF_INET\n"
    "there = s.socket(family, s.SOCK_DGRAM); there.bind(('{a}', 161))\n"
    "here = s.socket(family, s.SOCK_DGRAM)\n"
    "for n in range(3):\n"
    "  here.sendto(b'get', ('{a}', 161)); d, back = there.recvfrom(9); there.sendto(b'is', back); here.recv(9)\n"
    "here.sendto(b'get', ('{b}', 162))\n"
)


@pytest.mark.parametrize(("a", "b", "bits"), [("10.77.0.1", "10.77.0.2", 32), ("fd77::1", "fd77::2", 128)])
def test_a_datagram_that_comes_back_is_told_once(plane: DataPlane, watched: Cgroup, a: str, b: str, bits: int) -> None:
    """And where there is no server nothing comes back: the error that says so is none of its datagrams."""
    found = events(plane, watched, ASKED.format(a=a, b=b, bits=bits), "unshare", "-n")
    told = [e for e in found if isinstance(e, Answered)]
    sent = [e for e in found if isinstance(e, Connect) and (e.destination_ip, e.destination_port) == (a, 161)]
    # Both are of the workload: who asked is answered, and who answers has sent to an address that has sent before.
    from_there = [e for e in told if e.destination_port == 161]
    assert {(e.workload, e.transport, e.destination_ip) for e in from_there} == {(watched.id, Transport.UDP, a)}
    assert len(from_there) == len(sent), (
        "once for each time that the sending was told: once, on a machine that is not slow"
    )
    assert not [e for e in told if e.destination_port == 162]
