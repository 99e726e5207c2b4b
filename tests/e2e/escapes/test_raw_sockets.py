"""Raw sockets made while free, with headers of their own: what cannot be destroyed is dropped all the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.e2e.escapes.loose import Loose, contained
from tests.rig.farside import Counter
from tests.rig.netns import FarSide

pytestmark = pytest.mark.usefixtures("ears")
SCRIPT = """
near4, far4, far6 = sys.argv[1:]
icmp = socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)
icmp6 = socket.socket(socket.AF_INET6, socket.SOCK_RAW, 58)
own = socket.socket(socket.AF_INET, socket.SOCK_RAW, 253)
forged = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
def header(source, protocol, size):
    addresses = socket.inet_aton(source) + socket.inet_aton(far4)
    return struct.pack("!BBHHHBBH", 0x45, 0, 20 + size, 1, 0, 64, protocol, 0) + addresses
def send():
    all_of(
        lambda: icmp.sendto(b"\\x08\\x00\\xf7\\xff" + bytes(4), (far4, 0)), lambda: icmp6.sendto(b"\\x80" + bytes(7), (far6, 0)),
        lambda: own.sendto(b"own", (far4, 0)),
        lambda: forged.sendto(header(near4, 17, 8) + struct.pack("!HHHH", 4000, 4001, 8, 0), (far4, 0)),
        lambda: forged.sendto(header("198.19.255.254", 254, 4) + b"else", (far4, 0)),
    )
insist(send)
"""


def test_raw_sockets(loose: Callable[..., Loose], far: FarSide, counter: Counter) -> None:
    """Of root: a user has no CAP_NET_RAW."""
    assert contained(loose(SCRIPT, far.near4, far.far4, far.far6), counter, arrive=5)
    assert {p.protocol for p in counter.packets} >= {1, 17, 58, 253, 254}
