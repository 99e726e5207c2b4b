"""What goes over the connections that watched workloads make, as the data plane counts it."""

from __future__ import annotations

import socket
import struct
import sys
import time
from collections import defaultdict

import pytest

from killswitch.events import Burst, Flow, Transport
from killswitch.kernel.dataplane import DataPlane
from tests.kernel.cgroups import Cgroup

PRELUDE = "import socket as s, sys, time\n"


def collect(plane: DataPlane, wanted: int, seconds: float = 20.0) -> dict[int, list[Flow]]:
    """By cookie, until ``wanted`` connections are told as closed (or the time is up, which a test then sees)."""
    found: defaultdict[int, list[Flow]] = defaultdict(list)
    end = time.monotonic() + seconds
    while sum(flows[-1].closed for flows in found.values()) < wanted and time.monotonic() < end:
        for flow in plane.traffic():
            found[flow.cookie].append(flow)
        time.sleep(0.02)
    return found


def talk(listener: socket.socket, turns: list[tuple[int, int]]) -> None:
    """Take one connection; for each turn receive so many bytes, wait 30 ms, and answer with so many."""
    near, _ = listener.accept()
    with near:
        near.settimeout(20)
        for wanted, answer in turns:
            while wanted:
                got = len(near.recv(wanted))
                assert got, "the connection was closed"
                wanted -= got
            time.sleep(0.03)
            near.sendall(bytes(answer))
        assert near.recv(1) == b""


def script(port: int, turns: list[tuple[int, int]], address: str = "127.0.0.1") -> str:
    return PRELUDE + (
        f"c = s.create_connection(({address!r}, {port}))\n"
        f"for n, m in {turns}:\n"
        "    c.sendall(bytes(n))\n"
        "    while m: m -= len(c.recv(m))\n"
        "c.close()\n"
    )


def test_turns_come_out_as_bursts(plane: DataPlane, watched: Cgroup, listener: socket.socket) -> None:
    turns, port = [(100, 2000), (7, 50_000), (300_000, 1)], listener.getsockname()[1]
    before = time.monotonic_ns()
    process = watched.popen(sys.executable, "-I", "-S", "-c", script(port, turns))
    talk(listener, turns)
    assert process.wait(20) == 0
    ((told),) = collect(plane, 1).values()
    last = told[-1]
    assert (last.workload, last.pid, last.transport) == (watched.id, process.pid, Transport.TCP)
    assert (last.local_ip, last.remote_ip, last.remote_port) == ("127.0.0.1", "127.0.0.1", port)
    assert before < last.began_ns < last.last_ns < time.monotonic_ns()
    assert (last.sent_bytes, last.received_bytes) == (300_107, 52_001)
    bursts = [b for flow in told for b in flow.bursts]
    assert sum(flow.missed for flow in told) == 0
    assert joined(bursts) == [(True, 100), (False, 2000), (True, 7), (False, 50_000), (True, 300_000), (False, 1)]
    assert [b.time_ns for b in bursts] == sorted(b.time_ns for b in bursts)
    assert collect(plane, 1, 0.2) == {}, "told once"


def joined(bursts: list[Burst]) -> list[tuple[bool, int]]:
    """A machine under load may pause within a burst: what follows the same way is one turn."""
    turns: list[tuple[bool, int]] = []
    for burst in bursts:
        if turns and turns[-1][0] == burst.sent:
            turns[-1] = (burst.sent, turns[-1][1] + burst.bytes)
        else:
            turns.append((burst.sent, burst.bytes))
    return turns


def test_more_bursts_than_are_kept_are_counted_as_missed(
    plane: DataPlane, watched: Cgroup, listener: socket.socket
) -> None:
    turns = [(n, 1) for n in range(1, 41)]
    process = watched.popen(sys.executable, "-I", "-S", "-c", script(listener.getsockname()[1], turns))
    talk(listener, turns)
    assert process.wait(20) == 0
    ((flow,),) = collect(plane, 1).values()
    assert [b.bytes for b in flow.bursts if b.sent] == list(range(25, 41))
    assert flow.missed == 2 * (40 - 16)


def test_accepted_connections_are_not_told(plane: DataPlane, watched: Cgroup) -> None:
    code = "l = s.create_server(('127.0.0.1', 0)); print(l.getsockname()[1], flush=True)\n"
    code += "c = l.accept()[0]; c.sendall(b'x' * 99); c.recv(1)"
    process = watched.popen(sys.executable, "-I", "-S", "-c", PRELUDE + code, stdout=-1)
    assert process.stdout
    with socket.create_connection(("127.0.0.1", int(process.stdout.readline()))) as near:
        assert near.recv(99, socket.MSG_WAITALL) == b"x" * 99
    assert process.wait(20) == 0
    process.stdout.close()
    assert collect(plane, 1, 0.3) == {}


def test_a_connection_to_no_address_is_one_to_this_host(
    plane: DataPlane, watched: Cgroup, listener: socket.socket
) -> None:
    process = watched.popen(sys.executable, "-I", "-S", "-c", script(listener.getsockname()[1], [(5, 5)], "0.0.0.0"))
    talk(listener, [(5, 5)])
    assert process.wait(20) == 0
    ((told),) = collect(plane, 1).values()
    assert told[-1].remote_ip == "127.0.0.1"


@pytest.mark.parametrize("connected", [True, False])
def test_datagrams(plane: DataPlane, watched: Cgroup, connected: bool) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as far:
        far.bind(("127.0.0.1", 0))
        far.settimeout(20)
        to = far.getsockname()
        send = f"c.connect({to}); c.send(b'x' * 50)" if connected else f"c.sendto(b'x' * 50, {to})"
        code = f"c = s.socket(s.AF_INET, s.SOCK_DGRAM); {send}; c.recv(100)"
        process = watched.popen(sys.executable, "-I", "-S", "-c", PRELUDE + code)
        _, sender = far.recvfrom(100)
        far.sendto(b"y" * 70, sender)
        assert process.wait(20) == 0
    time.sleep(0.1)
    (flow,) = plane.traffic()
    assert (flow.transport, flow.remote_ip, flow.remote_port) == (Transport.UDP, *to)
    assert (flow.sent_bytes, flow.received_bytes, flow.local_port) == (50, 70, sender[1])
    assert [(b.sent, b.bytes) for b in flow.bursts] == [(True, 50), (False, 70)]


def test_nothing_is_read_while_nothing_happens(
    plane: DataPlane, watched: Cgroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    end = time.monotonic() + 5
    while time.monotonic() < end:  # what happened before must settle
        plane.traffic()
        time.sleep(0.01)
        if plane._traffic._seen_ns >= 0:
            break
    monkeypatch.setattr(plane._traffic._map, "read_packed", lambda: pytest.fail("the map was read"))
    assert plane.traffic() == []


def forged(from_: tuple[str, int], to: tuple[str, int], flags: int, payload: bytes = b"") -> None:
    """Segments of the connection whose numbers lie all round the circle: whoever receives them takes none for its own."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP) as raw:
        ends = socket.inet_aton(from_[0]) + socket.inet_aton(to[0])
        for number in range(0, 1 << 32, 1 << 30):
            head = struct.pack("!HHIIBBHHH", from_[1], to[1], number, 0, 5 << 4, flags, 1024, 0, 0)
            summed = ends + struct.pack("!BBH", 0, 6, len(head) + len(payload)) + head + payload
            total = sum(struct.unpack(f"!{len(summed) // 2}H", summed))
            total = (total & 0xFFFF) + (total >> 16)
            check = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
            raw.sendto(head[:16] + struct.pack("!H", check) + head[18:] + payload, (to[0], 0))


@pytest.mark.parametrize(("flags", "payload"), [(0x04, b""), (0x18, b"forged")])
def test_segments_that_the_connection_refuses_hide_nothing_of_it(
    plane: DataPlane, watched: Cgroup, listener: socket.socket, flags: int, payload: bytes
) -> None:
    turns = [(5, 3), (7, 3), (9, 3)]
    process = watched.popen(sys.executable, "-I", "-S", "-c", script(listener.getsockname()[1], turns))
    near, far = listener.accept()
    with near:
        near.settimeout(20)
        for wanted, answer in turns:
            assert len(near.recv(wanted)) == wanted
            forged(near.getsockname(), far, flags, payload)
            time.sleep(0.05)
            told = plane.traffic()
            assert not any(flow.closed for flow in told)
            near.sendall(bytes(answer))
        assert near.recv(1) == b""
    assert process.wait(20) == 0
    ((last, *_),) = (reversed(flows) for flows in collect(plane, 1).values())
    assert (last.sent_bytes, last.received_bytes) == (21, 9)
