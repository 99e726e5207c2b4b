"""A workload behind a router that the host itself is (a container): its sockets are cut where they are, its frames at its own
device, so that nothing is left to be forwarded."""

from __future__ import annotations

import fcntl
import socket
import struct
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import Daemon
from tests.e2e.escapes.conftest import silent
from tests.e2e.escapes.test_packet_socket import Elsewhere
from tests.rig.farside import Counter
from tests.rig.island import Island

SCRIPT = """
device, source, target, router = sys.argv[1:]
def frame(port):
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28, 1, 0, 64, 17, 0, socket.inet_aton(source), socket.inet_aton(target))
    total = sum(struct.unpack("!10H", head))
    checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    ip = head[:10] + struct.pack("!H", checksum) + head[12:]
    return bytes.fromhex(router.replace(":", "")) + b"\\x02" * 6 + b"\\x08\\x00" + ip + struct.pack("!HHHH", 4000, port, 8, 0)
packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
packets.bind((device, 0x0800))
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, 255)
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
def all_of_them(when):
    attempt(f"{when} frame", lambda: packets.send(frame(4001)))
    attempt(f"{when} udp", lambda: udp.sendto(b"x", (target, 4002)))
    attempt(f"{when} raw", lambda: raw.sendto(frame(4003)[14:], (target, 0)))
all_of_them("free")
go()
all_of_them("old")
"""


@pytest.fixture
def island() -> Iterator[Island]:
    with Island() as made:
        yield made


def test_forwarded(shared_daemon: Daemon, island: Island) -> None:
    def address() -> str:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            asked = fcntl.ioctl(s, 0x8927, struct.pack("256s", island.inner_device.encode()))  # SIOCGIFHWADDR
        return asked[18:24].hex(":")

    router = island.in_host(address)
    with Counter(island) as counter:
        script = Elsewhere(
            shared_daemon, island, SCRIPT, island.container_device, island.container4, island.far4, router,
            namespace=island.container,
        )  # fmt: skip
        try:
            script.ready()
            assert {p.destination_port for p in counter.wait_for(3)} == {4001, 4002, 4003}
            since = script.sever()
            script.go()
            script.results()
            assert silent(counter, since)
        finally:
            script.end()
