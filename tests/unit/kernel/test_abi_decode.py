"""Records into events, without a kernel."""

from __future__ import annotations

import dataclasses
import os

import pytest

from killswitch.events import (
    CgroupCreated,
    CgroupMove,
    CgroupRemoved,
    Connect,
    Denied,
    Done,
    Exec,
    Exit,
    Fork,
    Listen,
    Transport,
)
from killswitch.kernel import abi
from killswitch.kernel.decode import address, decode

HEADER = (111, 222, 333, 444, 55)  # time, workload, cgroup, start, pid


def record(layout: abi.Layout, kind: abi.Kind, *rest: object, tail: bytes = b"") -> bytes:
    return b"\xaa" * 8 + layout.codec.pack(*HEADER, kind, *rest) + tail + b"\xbb" * 8


def exec_record(parent: bytes, executable: bytes, filename: bytes, argv: bytes, *, predicates: int = 0) -> bytes:
    lengths = (len(parent), len(executable), len(filename), len(argv))
    rest = (
        66,
        77,
        predicates.to_bytes(32, "little"),
        5,
        6,
        7,
        abi.kernel_device(os.makedev(254, 3)),
        1,
        -1,
        9,
        1234,
        4096,
    )
    tail = b"\0".join((parent, executable, filename, argv))
    return record(abi.EXEC, abi.Kind.EXEC, *rest, *lengths, 1, 3, tail=tail)


def test_exec() -> None:
    raw = exec_record(b"sh", b"/bin/\xff", b"./x", b"x\0-o\0", predicates=1 << 255 | 1)
    assert decode(raw, 8) == Exec(
        time_ns=111, workload=222, cgroup_id=333, pid=55, start_ticks=444, ppid=5, parent_start_ticks=66, uid=6, gid=7,
        parent_name=b"sh", executable=b"/bin/\xff", filename=b"./x", argv=b"x\0-o\0", argv_total=4096, inode=77,
        device=os.makedev(254, 3), nlink=1, memfd=True, predicates=1 << 255 | 1, generation=9, clause=-1,
        done=Done.KILLED | Done.SEVERED, verdict_ns=1234,
    )  # fmt: skip


def test_decoded_events_are_as_frozen_as_any() -> None:
    """They are made by a short cut."""
    event = decode(exec_record(b"sh", b"/x", b"/x", b"x\0"), 8)
    twin = dataclasses.replace(event)
    assert type(event) is type(twin) is Exec
    assert event == twin and hash(event) == hash(twin) and repr(event) == repr(twin)
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.pid = 1  # type: ignore[misc]


def test_exec_with_nothing_in_it() -> None:
    event = decode(exec_record(b"", b"", b"", b""), 8)
    assert isinstance(event, Exec)
    assert (event.parent_name, event.executable, event.filename, event.argv) == (b"", b"", b"", b"")


def test_fork_and_exit() -> None:
    assert decode(record(abi.FORK, abi.Kind.FORK, 66, 5), 8) == Fork(111, 222, 333, 55, 444, 5, 66)
    assert decode(record(abi.EXIT, abi.Kind.EXIT, 9), 8) == Exit(111, 222, 333, 55, 444, 9)


@pytest.mark.parametrize(
    ("protocol", "transport"),
    [(6, Transport.TCP), (17, Transport.UDP), (1, Transport.ICMP), (58, Transport.ICMP), (132, Transport.OTHER)],
)
def test_sockets(protocol: int, transport: Transport) -> None:
    raw_address = bytes([192, 0, 2, 1]) + bytes(12)
    raw = record(abi.SOCKET, abi.Kind.CONNECT, raw_address, b"curl", 1000, 443, 2, protocol, 2, 1)
    assert decode(raw, 8) == Connect(
        111, 222, 333, 55, 444, 1000, b"curl", transport, "192.0.2.1", 443, "sendmsg", True
    )
    raw = record(abi.SOCKET, abi.Kind.LISTEN, raw_address, b"nc", 0, 80, 2, protocol, 4, 0)
    assert decode(raw, 8) == Listen(111, 222, 333, 55, 444, 0, b"nc", transport, "192.0.2.1", 80, "listen", False)


@pytest.mark.parametrize(
    ("family", "raw", "shown"),
    [
        (2, bytes([10, 0, 0, 1]) + b"\xff" * 12, "10.0.0.1"),
        (10, bytes(15) + b"\1", "::1"),
        (10, bytes.fromhex("20010db8000000000000000000000001"), "2001:db8::1"),
        (10, bytes.fromhex("00000000000000000000ffffc0000201"), "192.0.2.1"),
    ],
)
def test_addresses(family: int, raw: bytes, shown: str) -> None:
    assert address(family, raw) == shown


def test_cgroups() -> None:
    path = "/a/\udcff".encode("utf-8", "surrogateescape")
    raw = record(abi.CGROUP, abi.Kind.CGROUP_MOVE, 444444, 7, len(path), 4242, tail=path)
    assert decode(raw, 8) == CgroupMove(111, 222, 55, 444, 333, 444444, 7, "/a/\udcff", 4242)
    raw = record(abi.CGROUP, abi.Kind.CGROUP_CREATED, 0, 0, len(path), 0, tail=path)
    assert decode(raw, 8) == CgroupCreated(111, 333, "/a/\udcff")
    raw = record(abi.CGROUP, abi.Kind.CGROUP_REMOVED, 0, 0, 0, 0)
    assert decode(raw, 8) == CgroupRemoved(111, 333, "")


@pytest.mark.parametrize("st_dev", [os.makedev(0, 23), os.makedev(254, 0), os.makedev(8, 300), os.makedev(259, 70000)])
def test_device_numbers_go_both_ways(st_dev: int) -> None:
    assert abi.stat_device(abi.kernel_device(st_dev)) == st_dev


def test_records_are_aligned_as_c_aligns_them() -> None:
    """C has no holes in them that we do not name, and the ring buffer hands them out at multiples of eight."""
    for name, layout in abi.STRUCTS.items():
        for member, form in layout.members:
            unit = {"Q": 8, "I": 4, "i": 4, "H": 2}.get(form[-1], 1)
            assert layout.offset(member) % unit == 0, f"{name}.{member}"


def test_denied() -> None:
    path = b"/tmp/x".ljust(abi.DENIED_TARGET, b"\xee")
    raw = record(
        abi.DENIED, abi.Kind.DENIED, 66, 5, 16, 1000, 2, 9, 6, abi.Denied.CGROUP_FILE, 1, 0, b"sh\0".ljust(16), path
    )
    assert decode(raw, 8) == Denied(
        time_ns=111, workload=222, cgroup_id=333, pid=55, start_ticks=444, uid=1000, comm=b"sh", operation="cgroup_file",
        number=16, target_pid=5, target_start_ticks=66, target_name=b"/tmp/x", severed=True, to_daemon=False, generation=9,
        clause=2,
    )  # fmt: skip
