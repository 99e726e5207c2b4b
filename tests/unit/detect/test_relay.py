"""Two sides of what may be a relay: conversations written as bursts, and what they prove."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from killswitch.commands import Contain, RecordFinding
from killswitch.detect.relay import DOUBTFUL, MAX_PAIRS, Relay, find
from killswitch.detect.traffic import MAX_BURSTS, Traffic
from killswitch.detect.turns import FRAMING, fits, inwards, outwards
from killswitch.events import Burst, Flow, Tick, Transport
from tests.unit.detect import scenes
from tests.unit.detect.scenes import MS, WORKLOAD, S

OUTSIDE, INSIDE = "198.51.100.7", "127.0.0.1"


def flow(
    cookie: int, remote: str, bursts: Iterable[Burst] = (), *, pid: int = 10, port: int = 443, **more: object
) -> Flow:
    bursts = tuple(sorted(bursts, key=lambda b: b.time_ns))
    local = INSIDE if remote == INSIDE else "192.0.2.1"
    made = Flow(
        100 * S, WORKLOAD, pid, 1000 + pid, 0, b"x", cookie, Transport.TCP, local, 40000 + cookie, remote, port, 0, 99 * S,
        sum(b.bytes for b in bursts if b.sent), sum(b.bytes for b in bursts if not b.sent), False, 0, bursts,
    )  # fmt: skip
    return replace(made, **more)  # type: ignore[arg-type]


def conversation(
    turns: Iterable[tuple[int, int]],
    frame: Callable[[int], int] = lambda n: n,
    back: Callable[[int], int] | None = None,
    every: int = 50 * MS,
) -> tuple[list[Burst], list[Burst]]:
    """(outside, inside): each turn is asked from outside and answered inside, as a relay hands it on."""
    outer, inner, at = [], [], S
    for ask, answer in turns:
        outer.append(Burst(at, 0, frame(ask), 1, False))
        inner.append(Burst(at + MS // 5, 0, ask, 1, True))
        inner.append(Burst(at + MS, 0, answer, 1 + answer // 1448, False))
        outer.append(Burst(at + 2 * MS, 0, (back or frame)(answer), 1 + answer // 1448, True))
        at += every
    return outer, inner


def sizes(count: int, seed: int = 1) -> list[tuple[int, int]]:
    chance = random.Random(seed)
    return [(int(10 ** chance.uniform(1, 3)), int(10 ** chance.uniform(1.3, 4))) for _ in range(count)]


def traffic_of(*flows: Flow) -> Traffic:
    traffic = Traffic()
    for one in flows:
        traffic.feed(one)
    return traffic


def best(*flows: Flow) -> Relay | None:
    traffic = traffic_of(*flows)
    return next(iter(find(traffic, traffic.take_moved())), None)


def found(outer: list[Burst], inner: list[Burst], **more: object) -> Relay | None:
    return best(flow(1, OUTSIDE, outer), flow(2, INSIDE, inner, port=8080, **more))


def ssh(size: int) -> int:
    return (size + 9 + 5 + 7) // 8 * 8 + 4 + 16


@pytest.mark.parametrize(
    "frame",
    [lambda n: n, lambda n: n + 22, lambda n: n + 8 + 22, ssh, lambda n: n + 12 + 29],
    ids=["plain", "tls", "ws", "ssh", "mux"],
)  # fmt: skip
@pytest.mark.parametrize("seed", range(5))
def test_a_relay_proves_itself_within_few_exchanges(frame: Callable[[int], int], seed: int) -> None:
    relay = found(*conversation(sizes(7, seed), frame))
    assert relay is not None
    assert relay.exchanges >= 4 and relay.match >= 0.8 and relay.certainty >= 20
    assert (relay.outer.cookie, relay.inner.cookie) == (1, 2)


def test_it_grows_with_the_exchanges() -> None:
    proofs = [found(*conversation(sizes(n))) for n in (2, 4, 8, 16)]
    certain = [p.certainty if p else 0.0 for p in proofs]
    assert certain == sorted(certain) and 0 < 2 * certain[0] < certain[-1]


@pytest.mark.parametrize("pids", [(10, 10), (10, 11)], ids=["one process", "two processes"])
def test_another_process_may_hold_the_other_end(pids: tuple[int, int]) -> None:
    outer, inner = conversation(sizes(10))
    relay = best(flow(1, OUTSIDE, outer, pid=pids[0]), flow(2, INSIDE, inner, pid=pids[1], port=22))
    assert relay and relay.certainty >= 20


@pytest.mark.parametrize("inside", ["127.0.0.1", "::1", "10.0.0.8", "fd00::8"])
def test_the_inside_may_be_another_host(inside: str) -> None:
    outer, inner = conversation(sizes(10))
    relay = best(flow(1, OUTSIDE, outer), flow(2, inside, inner, port=22))
    assert relay and relay.certainty >= 20 and relay.fields["destination.ip"] == inside


def test_several_streams_over_one_connection() -> None:
    outer, inner = conversation(sizes(12), lambda n: n + 34)
    parts = [flow(2 + k, INSIDE, inner[2 * k :: 6] + inner[2 * k + 1 :: 6], port=8000 + k) for k in range(3)]
    relay = best(flow(1, OUTSIDE, outer), *parts)
    assert relay and relay.certainty >= 20 and relay.exchanges >= 8


def test_a_connection_for_each_stream() -> None:
    outer, inner = conversation(sizes(8))
    flows = [flow(10 + k, OUTSIDE, outer[2 * k : 2 * k + 2]) for k in range(8)]
    flows += [flow(30 + k, INSIDE, inner[2 * k : 2 * k + 2], port=22) for k in range(8)]
    relay = best(*flows)
    assert relay and relay.certainty >= 20


def test_keepalives_of_the_tunnel_do_not_hide_it() -> None:
    outer, inner = conversation(sizes(16), ssh)
    for k in range(16):
        at = S + k * 50 * MS + 30 * MS
        outer += [Burst(at, 0, 36, 1, True), Burst(at + MS, 0, 28, 1, False)]
    relay = found(outer, inner)
    assert relay and relay.certainty >= 20 and relay.match >= 0.8


# --- innocent ---------------------------------------------------------------------------------------------------------


def apart(seed: int, low: int, high: int, count: int = 40) -> tuple[list[Burst], list[Burst]]:
    """Asking outside and then inside, in turn, with sizes that have nothing to do with each other."""
    chance, outer, inner, at = random.Random(seed), [], [], S
    for _ in range(count):
        size = [chance.randrange(low, high) for _ in range(4)]
        outer += [Burst(at, 0, size[0], 1, True), Burst(at + 2 * MS, 0, size[1], 1, False)]
        inner += [Burst(at + 3 * MS, 0, size[2], 1, True), Burst(at + 5 * MS, 0, size[3], 1, False)]
        at += 20 * MS
    return outer, inner


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("span", [(400, 600), (500, 520), (500, 501), (20, 3000), (10, 60)], ids=str)
def test_an_agent_that_asks_a_model_and_then_a_tool(seed: int, span: tuple[int, int]) -> None:
    relay = found(*apart(seed, *span))
    assert relay is None or relay.certainty < 10


def test_who_downloads_and_stores_fits_one_way_only() -> None:
    outer, inner, at = [], [], S
    for page, _ in sizes(30):
        outer += [Burst(at, 0, 90, 1, True), Burst(at + 2 * MS, 0, page + 60, 1, False)]
        inner += [Burst(at + 3 * MS, 0, page, 1, True), Burst(at + 4 * MS, 0, 40, 1, False)]
        at += 20 * MS
    relay = found(outer, inner)
    assert relay and relay.inwards.bits > 20 and relay.outwards.bits == 0 == relay.certainty


@pytest.mark.parametrize("processes", [1, 12], ids=["one process", "a process each"])
def test_the_same_request_again_and_again(processes: int) -> None:
    """Each over connections of its own; only that it is handed on exactly, both ways, tells."""
    outer, inner = conversation([(80, 1200)] * 12, every=300 * MS)
    flows = []
    for k in range(12):
        flows.append(flow(10 + k, OUTSIDE, outer[2 * k : 2 * k + 2], pid=k % processes + 1))
        flows.append(flow(30 + k, INSIDE, inner[2 * k : 2 * k + 2], pid=k % processes + 1, port=80))
    relay = best(*flows)
    assert relay and relay.exchanges >= 10 and relay.certainty >= 20


def test_turns_all_alike_prove_nothing() -> None:
    relay = found(*conversation([(100, 100)] * 40))
    assert relay and relay.exchanges >= 30 and relay.certainty == 0
    relay = found(*conversation([(100, 200)] * 40, lambda n: n + 40))
    assert relay and relay.exchanges >= 30 and relay.certainty == 0, "framing that has to be learnt from them"


def test_framing_that_differs_between_directions_is_doubtful() -> None:
    relay = found(*conversation(sizes(30), lambda n: n + 20, lambda n: n + 60))
    assert relay and relay.certainty == DOUBTFUL


def test_a_proxy_for_its_own_clients_is_none() -> None:
    """What the client says inside is said outside, and what is answered outside is answered inside: nothing is turned."""
    outer, inner, at = [], [], S
    for ask, answer in sizes(40):
        inner += [Burst(at, 0, ask, 1, True), Burst(at + 4 * MS, 0, answer, 1, False)]
        outer += [Burst(at + MS, 0, ask, 1, True), Burst(at + 3 * MS, 0, answer, 1, False)]
        at += 20 * MS
    assert (relay := found(outer, inner)) is None or relay.certainty < 10


def test_only_what_moved_is_looked_at() -> None:
    outer, inner = conversation(sizes(10))
    traffic = traffic_of(flow(1, OUTSIDE, outer), flow(2, INSIDE, inner, port=22))
    assert traffic.take_moved() == {1, 2} and traffic.take_moved() == frozenset()
    assert find(traffic, frozenset()) == []


def test_two_connections_of_the_host_to_itself_are_none() -> None:
    outer, inner = conversation(sizes(10))
    assert best(flow(1, INSIDE, outer, port=9), flow(2, INSIDE, inner, port=22)) is None


# --- turns --------------------------------------------------------------------------------------------------------------


def test_what_fits() -> None:
    assert fits(100, 1, 100) and fits(100 + FRAMING, 1, 100)
    assert not fits(99, 1, 100) and not fits(100 + FRAMING + 5, 1, 100)
    assert fits(9900, 7, 10_000), "of much a little may be under way"


def test_turns_by_time() -> None:
    outer, inner = conversation([(100, 5), (50, 700)], lambda n: n + 10)
    came, went = [b for b in outer if not b.sent], [b for b in outer if b.sent]
    given, got = [b for b in inner if b.sent], [b for b in inner if not b.sent]
    assert [(t.outer, t.inner, t.tries) for t in inwards(came, given)] == [(110, 100, 1), (60, 50, 1)]
    assert [(t.outer, t.inner, t.tries) for t in outwards(got, went)] == [(15, 5, 1), (710, 700, 1)]
    assert inwards([], given)[0].tries == 0, "nothing came in that could have caused it"


bursts = st.lists(
    st.builds(
        Burst, st.integers(0, 10 * S), st.integers(0, 100 * MS), st.integers(0, 2**32), st.integers(0, 10**6), st.booleans()
    ),
    max_size=40,
)  # fmt: skip
flows = st.builds(
    flow,
    st.integers(1, 12), st.sampled_from([OUTSIDE, INSIDE, "10.0.0.3", "", "nonsense", "::1"]), bursts, pid=st.integers(1, 3),
    port=st.integers(0, 65535), missed=st.integers(0, 3), closed=st.booleans(), began_ns=st.integers(0, 10 * S),
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(flows, max_size=30))
def test_whatever_comes_it_neither_raises_nor_grows(many: list[Flow]) -> None:
    traffic = Traffic()
    for one in many:
        traffic.feed(one)
    for relay in find(traffic, traffic.take_moved()):
        assert relay.certainty >= 0 and 0 <= relay.match <= 1 and relay.exchanges >= 0 and relay.reasons
    assert all(len(c.bursts) <= MAX_BURSTS for c in traffic.connections.values())


def test_a_flood_of_connections_is_looked_at_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    from killswitch.detect import relay as module

    outer, inner = conversation(sizes(3))
    many = [flow(k, f"198.51.100.{k % 250}", outer, pid=k) for k in range(1, 100)]
    many += [flow(1000 + k, INSIDE, inner, pid=k, port=k) for k in range(1, 100)]
    looked, compare = [], module.compare
    monkeypatch.setattr(module, "compare", lambda a, b: looked.append(1) or compare(a, b))
    traffic = traffic_of(*many)
    find(traffic, traffic.take_moved())
    assert len(looked) == MAX_PAIRS


# --- rules --------------------------------------------------------------------------------------------------------------

RULE = """\
  - id: relay
    title: Relay
    level: critical
    on: flow
    match:
      proved: {relay.certainty|gte: 20, relay.exchanges|gte: 4, relay.match|gte: 0.8, relay.bytes|gte: 100}
      inside: {destination.ip: 127.0.0.1, destination.port: 22}
    condition: proved and inside
    response: [sever, freeze, capture]
"""


def test_a_rule_acts_on_it() -> None:
    engine = scenes.Scene(RULE).engine
    outer, inner = conversation(sizes(10))
    assert engine.handle(flow(1, OUTSIDE, outer)) == []
    assert engine.handle(flow(2, INSIDE, inner, port=22)) == []
    record, contain = engine.handle(Tick(101 * S))
    assert isinstance(record, RecordFinding) and isinstance(contain, Contain)
    assert contain.desired.severed and contain.desired.frozen
    assert isinstance(record.finding.event, Flow) and record.finding.event.remote_ip == OUTSIDE
    assert record.finding.event.bursts == ()
    assert "goes on to 127.0.0.1:22, and back" in record.finding.summary
    assert engine.handle(Tick(102 * S)) == [], "nothing new went over it"
