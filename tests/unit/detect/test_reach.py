from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from killswitch.detect.reach import MAX_ENDPOINTS, WINDOW_NS, Reach, is_internal

SECOND = 1_000_000_000


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


def test_ports_of_one_host_add_up() -> None:
    reach = Reach()
    assert [reach.feed(n, "10.0.0.1", 8000 + n) for n in range(4)] == [(1, 1), (1, 2), (1, 3), (1, 4)]


def test_hosts_at_one_port_add_up() -> None:
    reach = Reach()
    assert [reach.feed(n, f"10.0.0.{n}", 22) for n in range(1, 4)] == [(1, 1), (2, 1), (3, 1)]


def test_the_same_endpoint_again_is_no_more() -> None:
    reach = Reach()
    assert {reach.feed(n, "10.0.0.1", 443) for n in range(50)} == {(1, 1)}


def test_outside_and_loopback_do_not_count() -> None:
    reach = Reach()
    assert reach.feed(0, "127.0.0.1", 1) == reach.feed(0, "8.8.8.8", 1) == (0, 0)


def test_what_is_old_is_forgotten() -> None:
    reach = Reach()
    for n in range(100):
        reach.feed(n * SECOND, "10.0.0.1", n)
    # One try a second: those of the last ten seconds, both ends included.
    assert reach.feed(100 * SECOND, "10.0.0.1", 100) == (1, WINDOW_NS // SECOND + 1)


@given(st.lists(st.tuples(st.integers(0, 3 * SECOND), st.integers(1, 6), st.integers(1, 6)), max_size=80))
def test_agrees_with_counting_by_hand(steps: list[tuple[int, int, int]]) -> None:
    reach, now, tried = Reach(), 0, []
    for pause, host, port in steps:
        now += pause
        tried.append((now, f"10.0.0.{host}", port))
        recent = {(a, p) for t, a, p in tried if now - t <= WINDOW_NS}
        hosts = sum(p == port for _, p in recent)
        ports = sum(a == f"10.0.0.{host}" for a, _ in recent)
        assert reach.feed(now, f"10.0.0.{host}", port) == (hosts, ports)


def test_memory_is_bounded() -> None:
    reach = Reach()
    for n in range(3 * MAX_ENDPOINTS):
        reach.feed(n, f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}", n & 0xFFFF)
    assert len(reach._seen) == MAX_ENDPOINTS
    assert sum(reach._hosts_of_port.values()) == sum(reach._ports_of_host.values()) == MAX_ENDPOINTS
