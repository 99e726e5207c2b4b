"""Frames of packet sockets, which programs on a cgroup do not see, are dropped at the devices; the queueing layer cannot be
gone round."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from killswitch.commands import Containment
from killswitch.kernel import bpfcall, frames
from killswitch.kernel.dataplane import DataPlane
from killswitch.kernel.hostcut import Place
from tests.kernel.cgroups import Cgroup
from tests.kernel.scene import Actor
from tests.rig.farside import Counter
from tests.rig.island import Island, has_xdp
from tests.rig.netns import ip

SEVERED = Containment(severed=True)

# Prints what each line that it reads came to: "send", or "bypass".
TALKER = """
import errno, socket, struct, sys
device, source, target = sys.argv[1:]
def frame():
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28, 1, 0, 64, 17, 0, socket.inet_aton(source), socket.inet_aton(target))
    return b"\\xff" * 6 + b"\\x02" * 6 + b"\\x08\\x00" + ip + struct.pack("!HHHH", 4000, 4001, 8, 0)
old = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
old.bind((device, 0x0800))
print("ready", flush=True)
for line in sys.stdin:
    try:
        if line.strip() == "send":
            old.send(frame())
        elif line.strip() == "bypass":
            old.setsockopt(263, 20, 1)
        elif line.strip() == "no bypass":
            old.setsockopt(263, 20, 0)
        elif line.strip() == "new":
            with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0) as s:
                s.sendto(frame()[14:], (device, 0x0800, 0, 0, b"\\xff" * 6))
        elif line.strip() == "umem":
            socket.socket(44, socket.SOCK_RAW, 0).setsockopt(283, 3, 64)
        elif line.strip() == "large":
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM).setsockopt(0, 41, bytes(4 + 4 + 128 * 100))
        print("done", flush=True)
    except OSError as e:
        print(errno.errorcode[e.errno], flush=True)
"""


@pytest.fixture
def island() -> Iterator[Island]:
    with Island() as made:
        yield made


@pytest.fixture
def counter(island: Island) -> Iterator[Counter]:
    with Counter(island) as counting:
        yield counting


class Talker(Actor):
    def __init__(self, cgroup: Cgroup, island: Island) -> None:
        super().__init__(cgroup, TALKER, island.near_device, island.near4, island.far4, enter=island.host)

    def tell(self, what: str) -> str:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(what.encode() + b"\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().decode().strip()


@pytest.fixture
def talker(cgroup: Cgroup, island: Island) -> Iterator[Talker]:
    """In the cgroup, with a packet socket that it made before anybody watched it."""
    made = Talker(cgroup, island)
    yield made
    cgroup.remove()
    made.process.communicate()


def guard(plane: DataPlane, island: Island) -> frames.Attached:
    with Place(island.host_netns, island.host_netns).opened() as (inode, fd):
        return plane.frames.attach(inode, fd, frames.WORKLOADS)


def silent(counter: Counter, since: int) -> bool:
    time.sleep(0.1)
    return counter.since(since) == []


@pytest.mark.parametrize("links", [True, False])
def test_packet_sockets_are_cut_and_let_go(
    plane: DataPlane, cgroup: Cgroup, talker: Talker, island: Island, counter: Counter, links: bool
) -> None:
    if not links:
        plane.frames.links = False
    plane.watch(cgroup.id, cgroup.path, 1)
    attached = guard(plane, island)
    assert set(attached.devices) == {"lo", island.near_device, island.inner_device}
    assert not attached.errors
    assert guard(plane, island).made == 0  # what is attached is not attached again
    assert talker.tell("send") == "done"
    assert talker.tell("new") == "done"
    counter.wait_for(2)
    plane.set_containment(cgroup.id, SEVERED)
    since, dropped = time.time_ns(), plane.flows(cgroup.id).tx_dropped
    answers = [talker.tell("send"), talker.tell("new")]
    assert silent(counter, since)
    # Where the kernel has an LSM of ours, that refuses them before there is a frame.
    refused = sum(a in ("EPERM", "EACCES") for a in answers)
    assert plane.flows(cgroup.id).tx_dropped == dropped + 2 - refused
    plane.set_containment(cgroup.id, Containment())
    assert talker.tell("send") == "done"
    counter.wait_for(1, since=since)
    with Place(island.host_netns, island.host_netns).opened() as (inode, fd):
        plane.frames.detach(inode, fd, frames.WORKLOADS)
    plane.set_containment(cgroup.id, SEVERED)
    since = time.time_ns()
    if refused:
        return
    talker.tell("send")
    counter.wait_for(1, since=since)  # so it was the program at the device, and nothing else


@pytest.mark.parametrize("programs", [frames.WORKLOADS, frames.SEAL])
def test_who_comes_before_ours_is_put_behind(
    plane: DataPlane,
    cgroup: Cgroup,
    talker: Talker,
    island: Island,
    counter: Counter,
    programs: Mapping[str, str],
) -> None:
    """A program that says "pass" and asks nobody else, put first by somebody: ours is, the next time it is looked at."""
    plane.watch(cgroup.id, cgroup.path, 1)
    place = Place(island.host_netns, island.host_netns)
    with place.opened() as (inode, fd):
        assert not plane.frames.attach(inode, fd, programs).errors
        if not plane.frames.links:
            pytest.skip("this kernel has no tcx links")
        plane.set_containment(cgroup.id, SEVERED)
        device = socket.if_nametoindex
        passing = bpfcall.load(3, bpfcall.allow(0))
        theirs = island.in_host(lambda: bpfcall.link(passing, device(island.near_device), 47, 8))
        try:
            if talker.tell("send") == "done":  # no LSM of ours refuses it
                counter.wait_for(1)
            assert plane.frames.attach(inode, fd, programs).made == 1
            since = time.time_ns()
            talker.tell("send")
            assert silent(counter, since)
            assert plane.frames.attach(inode, fd, programs).made == 0
            order = island.in_host(lambda: bpfcall.programs_at(device(island.near_device), 47))
            assert len(order) == 2
        finally:
            os.close(theirs)
            os.close(passing)


def test_a_device_that_comes_later(plane: DataPlane, watched: Cgroup, island: Island, pin_dir: Path) -> None:
    guard(plane, island)
    ip("-n", island.host, "link", "add", "ksd0", "type", "veth", "peer", "name", "ksd1", "netns", island.container)
    again = guard(plane, island)
    assert again.made == 1
    assert "ksd0" in again.devices
    ip("-n", island.host, "link", "delete", "ksd0")
    if plane.frames.links:  # else nothing is pinned
        pins = set((pin_dir / "devices").iterdir())
        plane.frames.tidy()
        assert len(pins - set((pin_dir / "devices").iterdir())) == 1


def test_nothing_goes_round_the_queueing_layer(
    plane: DataPlane, cgroup: Cgroup, talker: Talker, island: Island
) -> None:
    assert talker.tell("bypass") == "done"
    plane.watch(cgroup.id, cgroup.path, 1)
    assert talker.tell("no bypass") == "done"
    assert talker.tell("bypass") == "EPERM"
    assert talker.tell("large") != "EPERM"  # options of more than a page go through as they are
    assert talker.tell("large") != "EFAULT"


def test_severed_sets_up_no_xdp(plane: DataPlane, cgroup: Cgroup, talker: Talker) -> None:
    if not has_xdp():
        pytest.skip("this kernel has no AF_XDP")
    plane.watch(cgroup.id, cgroup.path, 1)
    assert talker.tell("umem") == "done"
    plane.set_containment(cgroup.id, SEVERED)
    assert talker.tell("umem") == "EPERM"


def test_a_seal_lets_nothing_out_until_it_is_taken_off(plane: DataPlane, island: Island, counter: Counter) -> None:
    def ask() -> None:
        with island.open_socket(kind=2) as s, island.socket_in(island.host, 2, 2) as own:
            s.sendto(b"x", (island.near4, 4009))  # the kernel answers: there is nobody
            own.sendto(b"x", (island.far4, 4001))

    ask()
    counter.wait_for(2)
    with Place(island.host_netns, island.host_netns).opened() as (inode, fd):
        attached = plane.frames.attach(inode, fd, frames.SEAL)
        if not plane.frames.links:
            assert len(attached.errors) == 3
            pytest.skip("this kernel has no links at devices")
        assert (len(attached.devices), attached.made, attached.errors) == (3, 3, ())
        assert plane.frames.sealed() == {inode}
        since = time.time_ns()
        ask()
        assert silent(counter, since)
        assert plane.frames.attach(inode, fd, frames.SEAL).made == 0
        plane.frames.unseal(inode)
        plane.frames.unseal(inode)
    assert plane.frames.sealed() == set()
    since = time.time_ns()
    ask()
    counter.wait_for(1, since=since)
