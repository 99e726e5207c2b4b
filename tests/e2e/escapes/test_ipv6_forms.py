"""IPv6 in its forms: extension headers, flow labels, mapped addresses, a link-local address with its scope."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.e2e.escapes.loose import Loose, contained
from tests.rig.farside import Counter
from tests.rig.netns import FarSide

pytestmark = pytest.mark.usefixtures("ears")
SCRIPT = """
device, far4, far6 = sys.argv[1:]
def made():
    return socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
plain = made()
header = struct.pack("BBBBBBBB", 0, 0, 1, 4, 0, 0, 0, 0)
def destination_options():
    if os.getuid():
        return  # it takes CAP_NET_RAW
    made().sendmsg([b"d"], [(41, socket.IPV6_DSTOPTS, header)], 0, (far6, 4001))
def flow_label():
    s = made()
    s.setsockopt(41, 33, 1)
    s.sendto(b"f", (far6, 4001, 0x12345, 0))
def traffic_class():
    plain.sendmsg([b"t"], [(41, socket.IPV6_TCLASS, struct.pack("=i", 0x40)), (41, 52, struct.pack("=i", 3))], 0, (far6, 4001))
def tcp():
    s = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    s.settimeout(0.05)
    s.connect((far6, 4001))
    s.send(b"s")
def send():
    all_of(lambda: plain.sendto(b"x", (far6, 4001)), lambda: plain.sendto(b"m", ("::ffff:" + far4, 4001)),
           lambda: plain.sendto(b"l", ("ff02::1", 4001, 0, socket.if_nametoindex(device))),
           destination_options, flow_label, traffic_class, tcp)
insist(send)
"""


def test_ipv6_forms(loose: Callable[..., Loose], user: str, far: FarSide, counter: Counter) -> None:
    script = loose(SCRIPT, far.near_device, far.far4, far.far6, user=user)
    assert contained(script, counter, arrive=7)["cut"] != "done"
