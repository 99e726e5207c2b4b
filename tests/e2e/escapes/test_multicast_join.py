"""Joining a multicast group has the kernel send a report that names the group: 28 bits of the workload's choice."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.e2e.escapes.loose import Loose
from tests.rig.farside import ETH_P_ALL
from tests.rig.netns import FarSide

SCRIPT = """
near4, device = sys.argv[1:]
def made(family, bound):
    s = socket.socket(family, socket.SOCK_DGRAM)
    if bound:
        s.bind(("", 0))
    return s
fours, sixes = ([made(f, bound) for bound in (True, False)] for f in (socket.AF_INET, socket.AF_INET6))
index = struct.pack("=I", socket.if_nametoindex(device))
def join(number):
    group4, group6 = bytes((239, 7, 7, number)), b"\\xff\\x05" + bytes(11) + bytes((7, 7, number))
    tries = [(s, socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group4 + socket.inet_aton(near4)) for s in fours]
    tries += [(s, socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group6 + index) for s in sixes]
    all_of(*[lambda s=s, option=option: s.setsockopt(*option) for s, *option in tries])
attempt("free", lambda: join(1))
go()
attempt("cut", lambda: join(2))
"""
GROUPS = {n: (bytes((239, 7, 7, n)), b"\xff\x05" + bytes(11) + bytes((7, 7, n))) for n in (1, 2)}


@contextlib.contextmanager
def reports(far: FarSide) -> Iterator[list[bytes]]:
    """The frames that arrive over there, whole: what a counter takes for the host's own is among them."""
    frames: list[bytes] = []
    stop = threading.Event()

    def listen() -> None:
        while not stop.is_set():
            if select.select([heard], [], [], 0.02)[0]:
                frames.append(heard.recv(4096))

    with far.open_socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)) as heard:
        heard.bind((far.far_device, ETH_P_ALL))
        thread = threading.Thread(target=listen)
        thread.start()
        try:
            yield frames
        finally:
            stop.set()
            thread.join()


def named(frames: list[bytes], group: int) -> set[int]:
    """4 and 6, as far as the group was reported."""
    return {version for version, name in zip((4, 6), GROUPS[group], strict=True) if any(name in f for f in frames)}


@pytest.mark.usefixtures("ears")
def test_multicast_join(loose: Callable[..., Loose], user: str, far: FarSide) -> None:
    """What was joined before the cut is reported again by the kernel itself; no group that is chosen afterwards is named."""
    with reports(far) as frames:
        script = loose(SCRIPT, far.near4, far.near_device, user=user)
        script.ready()
        end = time.monotonic() + 5
        while named(frames, 1) != {4, 6}:
            assert time.monotonic() < end, "free, nothing was reported"
            time.sleep(0.02)
        script.sever()
        script.go()
        said = script.results()
        time.sleep(0.3)
        assert named(frames, 2) == set()
    assert said["cut"] != "done"
