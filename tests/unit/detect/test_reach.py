from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from killswitch.detect.reach import (
    FANOUT,
    MAX_ENDPOINTS,
    SILENT_WINDOW_NS,
    SLOW_WINDOW_NS,
    WINDOW_NS,
    Reach,
    is_internal,
    is_loopback,
)
from killswitch.policy.catalogue import FIELDS

SECOND = 1_000_000_000


def short(counts: Mapping[str, int], *names: str) -> tuple[int, ...]:
    return tuple(counts[f"network.fanout.{name}"] for name in names)


@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.1",
        "172.16.9.9",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "fd00::1",
        "fe80::1%eth0",
        "::ffff:10.0.0.1",
    ],
)
def test_internal(address: str) -> None:
    assert is_internal(address)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "127.0.0.1", "::1", "2606:4700::1", "0.0.0.0", "::ffff:127.0.0.1", "224.0.0.1", "", "x"]
)
def test_not_internal(address: str) -> None:
    assert not is_internal(address)


def test_loopback() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.9.9.9", "::1", "0.0.0.0", "::ffff:127.0.0.1")))
    assert not any(map(is_loopback, ("10.0.0.1", "8.8.8.8", "", "x")))


def test_the_policy_knows_the_same_fields() -> None:
    assert {name for name in FIELDS if name.startswith("network.fanout.")} == set(FANOUT)


def test_ports_of_one_host_and_hosts_at_one_port_add_up() -> None:
    reach = Reach()
    ports = [short(reach.tried(n, "10.0.0.1", 8000 + n), "hosts", "ports", "endpoints", "slow_ports") for n in range(3)]
    assert ports == [(1, 1, 1, 1), (1, 2, 2, 2), (1, 3, 3, 3)]
    hosts = [short(reach.tried(n, f"10.0.1.{n}", 22), "hosts", "ports", "slow_hosts") for n in range(3)]
    assert hosts == [(1, 1, 2), (2, 1, 3), (3, 1, 4)]


def test_a_scan_of_hosts_times_ports_is_seen_as_a_whole() -> None:
    reach = Reach()
    counts = [reach.tried(n, f"10.0.{n % 20}.1", 1000 + n) for n in range(300)]
    assert short(counts[-1], "hosts", "ports", "endpoints") == (1, 15, 300)


def test_the_same_endpoint_again_is_no_more() -> None:
    reach = Reach()
    assert {short(reach.tried(n, "10.0.0.1", 443), "hosts", "ports", "endpoints", "slow_hosts") for n in range(50)} == {
        (1, 1, 1, 1)
    }


def test_outside_and_loopback_do_not_count_as_tries() -> None:
    reach = Reach()
    for address in ("127.0.0.1", "8.8.8.8", "224.0.0.251"):
        assert set(reach.tried(0, address, 1).values()) == {0}


def test_the_fast_window_forgets_and_the_slow_one_does_not() -> None:
    reach = Reach()
    for n in range(100):
        reach.tried(n * SECOND, "10.0.0.1", n)
    # One try a second: those of the last ten seconds, both ends included.
    assert short(reach.tried(100 * SECOND, "10.0.0.1", 100), "ports", "slow_ports") == (WINDOW_NS // SECOND + 1, 101)
    later = 100 * SECOND + SLOW_WINDOW_NS
    assert short(reach.tried(later, "10.0.0.1", 101), "ports", "slow_ports") == (1, 2)


def test_what_answered_once_is_not_unanswered() -> None:
    """A client that waits for its server: refused, refused, answered."""
    reach = Reach()
    for n in range(3):
        reach.tried(n, "10.0.0.1", 5432)
        counts = reach.unanswered(n, "10.0.0.1", 5432)
        assert short(counts, "unanswered_hosts", "unanswered_ports") == (1, 1)
    assert short(reach.tried(9, "10.0.0.1", 5432), "unanswered_hosts", "unanswered_ports") == (0, 0)


def test_a_sweep_of_hosts_that_are_not_there() -> None:
    reach = Reach()
    for n in range(100):
        reach.tried(n * SECOND, f"10.0.0.{n}", 22)
        counts = reach.unanswered(n * SECOND + 1, f"10.0.0.{n}", 22)
    assert short(counts, "slow_hosts", "unanswered_hosts", "unanswered_ports") == (100, 100, 1)
    assert short(reach.unanswered(SLOW_WINDOW_NS + 50 * SECOND, "10.0.0.99", 22), "unanswered_hosts") == (50,)


def test_closed_ports_of_loopback_count_and_open_ones_do_not() -> None:
    reach = Reach()
    for port in range(1, 1001):
        reach.tried(port, "127.0.0.1", port)
        if port % 10:
            counts = reach.unanswered(port, "127.0.0.1", port)
    assert short(counts, "ports", "slow_hosts", "unanswered_hosts", "unanswered_ports") == (0, 0, 0, 900)


steps = st.lists(
    st.tuples(st.integers(0, 3 * SECOND), st.integers(1, 5), st.integers(1, 5), st.booleans()), max_size=80
)


@given(steps, st.sampled_from([1, 40]))
def test_agrees_with_counting_by_hand(steps: list[tuple[int, int, int, bool]], slower: int) -> None:
    reach, now = Reach(), 0
    log: list[tuple[int, str, int, bool]] = []
    for pause, n, port, in_vain in steps:
        now += pause * slower
        host = "127.0.0.1" if n == 1 else f"10.0.0.{n}"
        log.append((now, host, port, in_vain))
        counts = (reach.unanswered if in_vain else reach.tried)(now, host, port)
        fast = {(h, p) for t, h, p, v in log if now - t <= WINDOW_NS and not v and n_internal(h)}
        last = {(h, p): t for t, h, p, _ in log}
        seen = {e for e, t in last.items() if now - t <= SLOW_WINDOW_NS}
        dead = {e for e in seen if vain(log, e) and vain(log, e) >= sum((h, p) == e and not v for _, h, p, v in log)}
        if slower == 1:  # nothing was forgotten in the slow window, so that whole lives can be counted
            inside = n_internal(host)
            assert short(counts, *(name.rpartition(".")[2] for name in FANOUT)) == (
                inside * sum(p == port for _, p in fast),
                inside * sum(h == host for h, _ in fast),
                inside * len(fast),
                inside * len({h for h, _ in seen if n_internal(h)}),
                inside * sum(h == host for h, _ in seen),
                inside * len({h for h, _ in dead if n_internal(h)}),
                sum(h == host for h, _ in dead),
                0,  # nothing was said of datagrams
            )
        assert all(v >= 0 for v in counts.values())


def n_internal(host: str) -> bool:
    return host.startswith("10.")


def vain(log: list[tuple[int, str, int, bool]], endpoint: tuple[str, int]) -> int:
    return sum((h, p) == endpoint and v for _, h, p, v in log)


def test_silent_endpoints_are_counted_until_they_answer_or_it_is_long_ago() -> None:
    reach = Reach()
    for n in range(5):
        counts = reach.silent(n * SECOND, f"10.0.0.{n}", 161)
    assert short(counts, "silent", "unanswered_hosts") == (5, 0)
    reach.came_back("10.0.0.1", 161)
    reach.came_back("10.0.0.2", 53)  # nobody was waiting for that
    assert short(reach.tried(5 * SECOND, "10.0.0.9", 161), "silent") == (4,)
    assert short(reach.silent(SILENT_WINDOW_NS + 3 * SECOND, "127.0.0.1", 161), "silent") == (0,), (
        "loopback has no hosts"
    )
    assert short(reach.tried(SILENT_WINDOW_NS + 3 * SECOND, "10.0.0.9", 161), "silent") == (2,)


def test_memory_is_bounded() -> None:
    reach = Reach()
    for n in range(3 * MAX_ENDPOINTS):
        host = f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}"
        reach.tried(n, host, n & 0xFFFF)
        counts = reach.unanswered(n, host, n & 0xFFFF)
    assert len(reach._fast.seen) == len(reach._slow._seen) == MAX_ENDPOINTS
    assert sum(reach._fast.hosts_of_port.values()) == sum(reach._fast.ports_of_host.values()) == MAX_ENDPOINTS
    assert short(counts, "slow_hosts", "unanswered_hosts") == (MAX_ENDPOINTS, MAX_ENDPOINTS)
    assert len(reach._slow.ports_of_host) == len(reach._slow.dead_ports_of_host) == MAX_ENDPOINTS
