"""What waits for a neighbour's address is dropped, and nobody is told that there is no such host."""

from __future__ import annotations

import errno
import os
import select
import socket
import subprocess
from collections.abc import Iterator

import pytest

from killswitch.kernel import neighbours, netns
from tests.rig.emulated import patience
from tests.rig.farside import Counter
from tests.rig.island import Island
from tests.rig.netns import ip


@pytest.fixture
def island() -> Iterator[Island]:
    with Island() as made:
        yield made


def entries(island: Island) -> dict[str, str]:
    """Address -> the state that its entry is in."""
    shown = subprocess.run(["ip", "-n", island.host, "neigh"], capture_output=True, text=True, check=True).stdout
    return {line.split()[0]: line.split()[-1] for line in shown.splitlines()}


def test_only_what_has_not_answered(island: Island) -> None:
    """Who has is known still, and who waits for one that has not yet reaches him when he does."""
    silent4, silent6 = f"{island.far4.rpartition('.')[0]}.71", f"{island.far6.rpartition(':')[0]}:71"
    fd = netns.open_at(island.host_netns)
    listener = island.open_socket()
    try:
        with (
            Counter(island) as counter,
            island.socket_in(island.host, socket.AF_INET, socket.SOCK_DGRAM) as udp,
            island.socket_in(island.host, socket.AF_INET6, socket.SOCK_DGRAM) as udp6,
            island.socket_in(island.host, socket.AF_INET, socket.SOCK_STREAM) as tcp,
        ):
            udp.sendto(b"x", (island.far4, 4001))
            counter.wait_for(1)
            udp.sendto(b"x", (silent4, 4001))
            udp6.sendto(b"x", (silent6, 4001))
            tcp.setblocking(False)
            assert tcp.connect_ex((silent4, 4002)) == errno.EINPROGRESS
            known = entries(island)
            assert known[silent4] == known[silent6] == "INCOMPLETE"

            assert neighbours.drop_waiting(fd) == 2

            after = entries(island)
            assert island.far4 in after
            assert after.get(silent4) in (None, "INCOMPLETE")  # asked for anew by who sent again, perhaps
            assert tcp.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
            ip("-n", island.name, "address", "add", f"{silent4}/24", "dev", island.far_device)
            listener.bind((silent4, 4002))
            listener.listen()
            assert select.select([], [tcp], [], patience(15))[1], "the connection is made when its SYN is sent again"
            assert tcp.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
            assert [p for p in counter.packets if p.protocol == socket.IPPROTO_UDP][1:] == []
    finally:
        listener.close()
        os.close(fd)


def test_nobody_waits(island: Island) -> None:
    fd = netns.open_at(island.host_netns)
    try:
        assert neighbours.drop_waiting(fd) == 0
    finally:
        os.close(fd)
