"""What is remembered of a workload's connections, and which lead outside for long."""

from __future__ import annotations

from dataclasses import replace

import pytest

from killswitch.commands import RecordFinding
from killswitch.detect.traffic import MAX_BURSTS, MAX_FLOWS, Traffic, is_inside, is_own
from killswitch.events import Burst, Flow, Transport
from tests.unit.detect import scenes
from tests.unit.detect.scenes import WORKLOAD, S

FLOW = Flow(
    S, WORKLOAD, 10, 1010, 0, b"x", 1, Transport.TCP, "198.51.100.9", 40000, "203.0.113.7", 443, S, S, 200, 300, False, 0, ()
)  # fmt: skip


@pytest.mark.parametrize(
    ("address", "own", "inside"),
    [
        ("127.0.0.1", True, True), ("127.9.9.9", True, True), ("::1", True, True), ("0.0.0.0", True, True), ("::", True, True),
        ("10.0.0.1", False, True), ("172.31.0.1", False, True), ("192.168.1.1", False, True), ("169.254.169.254", False, True),
        ("100.64.0.1", False, True), ("fd12::1", False, True), ("fe80::1%eth0", False, True),
        ("172.32.0.1", False, False), ("198.18.0.1", False, False), ("8.8.8.8", False, False), ("2001:db8::1", False, False),
        ("nonsense", False, False), ("", False, False),
    ],
)  # fmt: skip
def test_places(address: str, own: bool, inside: bool) -> None:
    assert (is_own(address), is_inside(address)) == (own, inside)


def test_what_is_held_outside() -> None:
    traffic = Traffic()
    assert traffic.outside(9 * S) == (0, 0)
    traffic.feed(FLOW)
    assert traffic.outside(91 * S) == (1, 90.0)
    busy = replace(FLOW, cookie=2, began_ns=0, received_bytes=10**9, last_ns=90 * S)
    traffic.feed(busy)
    assert traffic.outside(91 * S) == (2, 90.0), "a download is held, but is not quiet"
    traffic.feed(replace(FLOW, closed=True))
    assert traffic.outside(91 * S) == (1, 0)


@pytest.mark.parametrize(
    "change",
    [
        {"remote_ip": "127.0.0.1"}, {"remote_ip": "10.1.1.1"}, {"remote_ip": "198.51.100.9"}, {"received_bytes": 0},
        {"closed": True},
    ],
    ids=str,
)  # fmt: skip
def test_what_is_not_held_outside(change: dict[str, object]) -> None:
    traffic = Traffic()
    traffic.feed(replace(FLOW, **change))  # type: ignore[arg-type]
    assert traffic.outside(2 * S) == (0, 0)


def test_what_has_long_been_silent_is_not_held() -> None:
    traffic = Traffic()
    traffic.feed(FLOW)
    assert traffic.outside(180 * S) == (1, 179.0)
    assert traffic.outside(182 * S) == (0, 0)


def test_memory_is_bounded() -> None:
    traffic = Traffic()
    for cookie in range(MAX_FLOWS + 100):
        traffic.feed(replace(FLOW, cookie=cookie, bursts=(Burst(cookie, 1, 1, 1, True),)))
        traffic.feed(replace(FLOW, cookie=0, bursts=tuple(Burst(n, 1, 1, 1, True) for n in range(MAX_BURSTS // 2))))
    assert len(traffic.connections) == MAX_FLOWS
    assert 0 in traffic.connections, "the longest silent makes room, not the oldest"
    assert len(traffic.connections[0].bursts) == MAX_BURSTS
    traffic.feed(replace(FLOW, cookie=1, closed=True))
    traffic.prune(2 * S)
    assert 1 not in traffic.connections and 0 in traffic.connections


def test_history_is_complete_since_the_last_gap() -> None:
    traffic = Traffic()
    traffic.feed(replace(FLOW, bursts=(Burst(5, 1, 1, 1, True),)))
    assert traffic.connections[1].complete_ns == FLOW.began_ns
    traffic.feed(replace(FLOW, missed=3, bursts=(Burst(50, 1, 1, 1, True), Burst(60, 1, 1, 1, False))))
    known = traffic.connections[1]
    assert (known.complete_ns, len(known.bursts)) == (50, 2)


RULES = """\
  - id: quiet
    title: Busy, with a quiet connection to the outside
    level: high
    on: cpu
    match:
      busy: {cpu.cores|gte: 0.5}
      quiet: {network.outside.age|gte: 60}
    condition: busy and quiet
    response: [alert]
  - id: port
    title: Connection to a port
    level: low
    on: flow
    match:
      port: {remote.port: 3333, remote.ip: 203.0.113.7, network.transport: tcp, network.outside.flows|gte: 1}
    condition: port
    response: [alert]
"""


def test_rules_ask_for_it() -> None:
    engine = scenes.Scene(RULES).engine
    engine.handle(replace(FLOW, bursts=()))
    assert not [c for c in engine.handle(scenes.cpu(31)) if isinstance(c, RecordFinding)]
    (found,) = [c for c in engine.handle(scenes.cpu(62)) if isinstance(c, RecordFinding)]
    assert found.finding.rule == "quiet"
    (found,) = [c for c in engine.handle(replace(FLOW, cookie=2, remote_port=3333)) if isinstance(c, RecordFinding)]
    assert found.finding.rule == "port"
    assert "holds a connection to 203.0.113.7:3333 (tcp), 200 bytes sent and 300 received" in found.finding.summary
