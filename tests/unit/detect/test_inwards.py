"""Who turns inwards while it is connected to the outside."""

from __future__ import annotations

import pytest

from killswitch.detect.inwards import turns_inwards
from killswitch.detect.processes import ProcessTable
from killswitch.events import Connect, Fork, Transport
from tests.unit.detect.scenes import WORKLOAD, Scene, ex, findings

INWARDS = """\
  - {id: inwards, title: t, level: high, on: connect, match: {a: {network.turns_inwards: true}}, condition: a, response: [sever]}
"""


def connect(address: str, port: int, pid: int = 10) -> Connect:
    return Connect(1, 1, 1, pid, 1, 0, b"ssh", Transport.TCP, address, port, "connect", False)


@pytest.mark.parametrize(
    ("before", "then", "expected"),
    [
        ([("203.0.113.20", 22)], ("127.0.0.1", 8000), True),
        ([("203.0.113.20", 22)], ("127.0.0.1", 22), True),  # what the incident's tunnel led to
        ([("203.0.113.20", 22)], ("0.0.0.0", 22), True),
        ([("203.0.113.20", 22)], ("::1", 5432), True),
        ([("203.0.113.20", 22)], ("10.0.0.5", 5432), True),
        ([("10.0.0.9", 22)], ("10.0.0.5", 5432), True),  # through a jump host inside
        ([("203.0.113.20", 22)], ("198.51.100.9", 443), False),  # onwards, not inwards
        ([("203.0.113.20", 22)], ("10.0.0.5", 22), False),  # a name with two addresses
        ([("2001:db8::1", 22)], ("203.0.113.20", 22), False),
        ([("10.0.0.5", 22)], ("10.0.0.5", 5432), False),
        ([], ("127.0.0.1", 2222), False),  # ssh -p 2222 localhost, to a virtual machine
        ([("::1", 2222)], ("127.0.0.1", 2222), False),
        ([("127.0.0.1", 9050), ("203.0.113.20", 22)], ("127.0.0.1", 8000), True),
    ],
)
def test_a_process_that_turns_inwards(before: list[tuple[str, int]], then: tuple[str, int], expected: bool) -> None:
    table = ProcessTable()
    process = table.exec(ex("/usr/bin/ssh", pid=10))
    for address, port in before:
        assert not turns_inwards(process, connect(address, port))
    assert turns_inwards(process, connect(*then)) is expected
    assert turns_inwards(process, connect(*then)) is expected  # each channel


def test_one_that_goes_to_the_background_is_the_same_and_another_program_is_not() -> None:
    table = ProcessTable()
    first = table.exec(ex("/usr/bin/ssh", pid=10))
    turns_inwards(first, connect("203.0.113.20", 22))
    child = table.fork(Fork(0, 1, 1, 20, 1, 10, first.start_ticks))
    assert turns_inwards(child, connect("127.0.0.1", 8000, 20))
    assert not turns_inwards(table.exec(ex("/usr/bin/curl", pid=20)), connect("127.0.0.1", 8000, 20))


def test_the_engine_tells_rules_of_it() -> None:
    scene = Scene(INWARDS)
    connects = [
        Connect(5, WORKLOAD, WORKLOAD, 10, 1010, 0, b"ssh", transport, address, port, "connect", False)
        for transport, address, port in (
            (Transport.UDP, "203.0.113.20", 53),
            (Transport.TCP, "203.0.113.20", 22),
            (Transport.UDP, "127.0.0.1", 53),
            (Transport.TCP, "127.0.0.1", 8000),
        )
    ]
    assert findings(scene.play(ex("/usr/bin/ssh"), *connects[:3])) == []
    assert [f.rule for f in findings(scene.play(connects[3]))] == ["inwards"]
