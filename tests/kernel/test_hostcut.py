"""The whole host's containment, in a cgroup and a network namespace of the test: what goes through, and an upgrade."""

from __future__ import annotations

import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from killswitch.errors import Gone
from killswitch.hostallow import DHCP, parse
from killswitch.kernel.dataplane import DataPlane
from killswitch.kernel.hostcut import Place
from tests.kernel.cgroups import Cgroup
from tests.rig.farside import Counter
from tests.rig.island import Island
from tests.rig.netns import ip

STREAM = """
import socket, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s6 = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
while True:
    for one, to in ((s, sys.argv[1]), (s6, sys.argv[2])):
        try: one.sendto(b"x", (to, 4001))
        except OSError: pass
    time.sleep(0.002)
"""
Open = Callable[[Path], DataPlane]


@pytest.fixture
def island() -> Iterator[Island]:
    with Island() as made:
        yield made


@pytest.fixture
def place(island: Island, cgroup: Cgroup) -> Place:
    return Place(cgroup.path, island.host_netns)


@pytest.fixture
def counter(island: Island) -> Iterator[Counter]:
    with Counter(island) as counting:
        yield counting


@contextmanager
def stream(island: Island, cgroup: Cgroup) -> Iterator[None]:
    process = cgroup.popen(*island.command("python3", "-c", STREAM, island.far4, island.far6))
    try:
        yield
    finally:
        process.kill()
        process.wait()


def test_an_upgrade_opens_no_gap(
    pin_dir: Path,
    mount: Path,
    bpf_object: Path,
    place: Place,
    island: Island,
    cgroup: Cgroup,
    counter: Counter,
    tmp_path: Path,
) -> None:
    """A packet every millisecond, while one generation of the data plane takes the place of another, three times."""
    objects = [bpf_object]
    for n in range(3):
        objects.append(tmp_path / f"other{n}.o")
        shutil.copy(bpf_object, objects[-1])
        with objects[-1].open("ab") as file:
            file.write(bytes(n + 1))
    plane = DataPlane.open(pin_dir, cgroup_mount=mount, obj=objects[0])
    try:
        with stream(island, cgroup):
            counter.wait_for(100)
            seen = plane.host.cut(place, [parse("in tcp 4020"), *DHCP])
            since = time.time_ns()
            assert seen.whole
            assert set(seen.devices) == {"lo", island.near_device, island.inner_device}
            for obj in objects[1:]:
                plane.close()
                plane = DataPlane.open(pin_dir, cgroup_mount=mount, obj=obj)
                assert not plane.adopted
                assert plane.host.is_cut
                if not (pin_dir / "devices").exists():
                    plane.host.cut(
                        place, None
                    )  # filters are not pinned: a daemon puts its own in their place at its start
                again = plane.host.seen(place)
                assert again.whole
                assert again.rules == 3
                before = again.tx_dropped
                time.sleep(0.05)
                assert plane.host.seen(place).tx_dropped > before  # by this generation's programs
            assert counter.since(since) == []
            plane.close()  # nobody is there
            time.sleep(0.1)
            assert counter.since(since) == []
            plane = DataPlane.open(pin_dir, cgroup_mount=mount, obj=objects[-1])
            assert plane.adopted
            released = plane.host.release(place)
            assert not released.cut
            after = time.time_ns()
            counter.wait_for(100, since=after)
    finally:
        plane.remove()


def test_the_programs_answer_for_frames_that_are_not_sent(plane: DataPlane, place: Place, counter: Counter) -> None:
    plane.host.cut(place, [parse("in tcp 22"), parse("in tcp 8000-8010 from 203.0.113.0/24")])
    assert plane.host.answers(place, [22, 23, 8000]) == {"nowhere": False, "22": True, "23": False, "8000": False}
    plane.host.cut(place, [parse("address 192.0.2.0/24")])
    assert plane.host.answers(place, [23]) == {"nowhere": True, "23": True}
    plane.host.cut(place, None)  # those that are in force stay
    assert plane.host.seen(place).rules == 1
    assert plane.host.answers(place, [23])["23"]
    plane.host.release(place)
    assert counter.since(0) == []


def test_what_is_missing_is_seen(plane: DataPlane, place: Place, island: Island, pin_dir: Path) -> None:
    plane.host.cut(place, [])
    ip("-n", island.host, "link", "add", "ksd0", "type", "veth", "peer", "name", "ksd1", "netns", island.container)
    seen = plane.host.seen(place)
    assert seen.missing == ("ksd0",)
    assert not seen.whole
    assert plane.host.cut(place, None).whole
    (pin_dir / "host" / "on_host_egress").unlink()
    assert "on_host_egress" in plane.host.seen(place).missing
    assert plane.host.cut(place, None).whole


def test_an_interface_is_let_through_by_its_name(
    plane: DataPlane, place: Place, island: Island, cgroup: Cgroup, counter: Counter
) -> None:
    plane.host.cut(place, [parse(f"device {island.near_device}"), parse("device no-such-device")])
    assert plane.host.seen(place).rules == 1
    with stream(island, cgroup):
        counter.wait_for(5)
        plane.host.cut(place, [parse(f"device {island.inner_device}")])
        since = time.time_ns()
        time.sleep(0.2)
        assert counter.since(since) == []


def test_ping_of_a_path_and_neighbours(plane: DataPlane, place: Place, island: Island, cgroup: Cgroup) -> None:
    """Neighbours are still found, IPv4 and IPv6, or no way in would last."""
    plane.host.cut(place, [parse("in tcp 4020")])
    for address in (island.near4, island.near6):
        ip("-n", island.host, "neigh", "flush", "all")
        ip("-n", island.name, "neigh", "flush", "all")
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with (
            island.socket_in(island.host, family, socket.SOCK_STREAM) as server,
            island.socket_in(island.name, family, socket.SOCK_STREAM) as client,
        ):
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind((address, 4020))
            server.listen()
            client.settimeout(5)
            client.connect((address, 4020))


def test_a_namespace_that_is_none(plane: DataPlane, cgroup: Cgroup) -> None:
    with pytest.raises(Gone, match="network namespace"):
        plane.host.cut(Place(cgroup.path, Path("/run/netns/ks-test-none")), [])
    assert not plane.host.is_cut
