"""Who is sent datagrams and answers, and who does not: a poller of devices, and a scan."""

from __future__ import annotations

from dataclasses import replace

import pytest

from killswitch.commands import Response
from killswitch.config import SHIPPED_POLICIES
from killswitch.detect.datagrams import MAX_AWAITED, PATIENCE_NS, Datagrams
from killswitch.engine import Engine
from killswitch.events import Answered, Connect, Event, Flow, Released, Tick, Transport, WorkloadAdded
from killswitch.policy.compile import compile_policies
from killswitch.policy.compiled import Compiled
from killswitch.policy.load import load_files
from tests.unit.detect.scenes import CGROUP, MS, WORKLOAD, S, findings

SEVERS = {Response.SEVER, Response.FREEZE}


def sent(host: str, port: int = 161, *, at: int = 0, operation: str = "sendmsg") -> Connect:
    return Connect(at, WORKLOAD, WORKLOAD, 10, 1, 0, b"poller", Transport.UDP, host, port, operation, False)


def answered(host: str, port: int = 161, *, at: int = 0) -> Answered:
    return Answered(at, WORKLOAD, WORKLOAD, 10, 1, 0, b"poller", Transport.UDP, host, port)


def flow(host: str, *, at: int, cookie: int, received: int) -> Flow:
    """Of a connected socket."""
    return Flow(
        at, WORKLOAD, 10, 1, 0, b"poller", cookie, Transport.UDP, "10.9.0.1", 40000, host, 161, at, at, 40, received, False, 0, ()
    )  # fmt: skip


def host(n: int) -> str:
    return f"10.1.{n // 250}.{n % 250 + 1}"


@pytest.fixture(scope="module")
def shipped() -> Compiled:
    return compile_policies(load_files(sorted(SHIPPED_POLICIES.glob("*.yaml"))))


def severed(shipped: Compiled, script: list[Event]) -> set[str]:
    """The rules that cut the workload off, of those that are shipped."""
    engine = Engine(shipped)
    engine.handle(WorkloadAdded(0, WORKLOAD, "job", CGROUP, tuple(range(len(shipped.policies)))))
    script = sorted(script, key=lambda e: e.time_ns)
    ticks: list[Event] = [Tick(n * S) for n in range(1, script[-1].time_ns // S + 6)]
    out = [c for e in sorted([*script, *ticks], key=lambda e: e.time_ns) for c in engine.handle(e)]
    return {f.rule for f in findings(out) if SEVERS & set(f.responses)}


def polled(n: int, every_ms: int, answers: float, *, rounds: int = 3) -> list[Event]:
    """``n`` devices are asked in turn, so many of them answer 300 ms later."""
    script: list[Event] = []
    for r in range(rounds):
        for i in range(n):
            at = r * 10 * S + i * every_ms * MS
            script.append(sent(host(i), at=at))
            if i % 100 < answers * 100:
                script.append(answered(host(i), at=at + 300 * MS))
    return script


@pytest.mark.parametrize(("n", "every_ms", "answers"), [(254, 0, 1), (254, 30, 1), (400, 20, 0.9), (900, 10, 0.95)])
def test_a_poller_of_devices_that_answer_goes_on(shipped: Compiled, n: int, every_ms: int, answers: float) -> None:
    assert severed(shipped, polled(n, every_ms, answers)) == set()


def test_a_poller_that_connects_its_sockets_goes_on(shipped: Compiled) -> None:
    script: list[Event] = []
    for i in range(300):
        script += [sent(host(i), at=i * MS, operation="connect"), flow(host(i), at=S + i, cookie=i + 1, received=80)]
    assert severed(shipped, script) == set()


def test_addresses_that_are_only_chosen_among_are_not_sent_to(shipped: Compiled) -> None:
    """What a lookup of names does: a connect, and no datagram."""
    assert severed(shipped, [sent(host(i), 443, at=i * MS, operation="connect") for i in range(300)]) == set()


@pytest.mark.parametrize(("every_ms", "answers"), [(0, 0), (0, 0.4), (20, 0), (39, 0.3)])
def test_a_sweep_is_found_by_who_is_silent(shipped: Compiled, every_ms: int, answers: float) -> None:
    found = severed(shipped, polled(254, every_ms, answers, rounds=1))
    assert found & {"internal-scan", "internal-scan-silent"}


def test_a_sweep_over_connected_sockets(shipped: Compiled) -> None:
    script: list[Event] = []
    for i in range(254):
        script += [sent(host(i), at=i * MS, operation="connect"), flow(host(i), at=S + i, cookie=i + 1, received=0)]
    assert severed(shipped, script) == {"internal-scan-silent"}


def test_a_sweep_of_a_thousand_does_not_have_to_be_waited_for(shipped: Compiled) -> None:
    assert severed(shipped, polled(1000, 1, 1, rounds=1)) == {"internal-scan"}


def test_ports_of_one_host_are_a_scan_answered_or_not(shipped: Compiled) -> None:
    assert severed(shipped, [sent("10.1.1.1", port, at=port * MS) for port in range(1, 220)]) == {"internal-scan"}


def test_what_is_overdue_is_told_once_and_again_when_it_is_sent_to_again() -> None:
    known = Datagrams()
    for at in (0, S, 2 * S):  # asked again while nothing comes: from the first time on
        known.sent(sent("10.0.0.1", at=at))
    known.sent(sent("10.0.0.2", at=S))
    assert list(known.overdue(PATIENCE_NS)) == []
    [told] = known.overdue(PATIENCE_NS + 1)
    assert (told.time_ns, told.destination_ip, told.destination_port, told.pid) == (
        PATIENCE_NS + 1,
        "10.0.0.1",
        161,
        10,
    )
    known.answered("10.0.0.2", 161)
    assert list(known.overdue(99 * S)) == []
    known.sent(sent("10.0.0.1", at=99 * S))
    assert [u.destination_ip for u in known.overdue(102 * S)] == ["10.0.0.1"]


def test_what_is_not_awaited() -> None:
    known = Datagrams()
    tcp = replace(sent("10.0.0.1"), transport=Transport.TCP)
    for event in (tcp, sent("8.8.8.8"), sent("127.0.0.1"), replace(sent("10.0.0.1"), denied=True)):
        known.sent(event)
    assert list(known.overdue(9 * S)) == []


def test_memory_is_bounded() -> None:
    known = Datagrams()
    for n in range(2 * MAX_AWAITED):
        known.sent(sent(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}", at=n))
    assert len(list(known.overdue(9 * S))) == MAX_AWAITED


def test_a_release_forgets_what_was_awaited(shipped: Compiled) -> None:
    script: list[Event] = [sent(host(i), at=i) for i in range(250)]
    assert severed(shipped, [*script, Released(S, WORKLOAD)]) == set()
