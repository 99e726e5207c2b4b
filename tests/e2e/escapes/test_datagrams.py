"""UDP and UDP-Lite, IPv4 and IPv6, unicast, multicast and broadcast, on sockets old and new, while severed."""

from __future__ import annotations

from collections.abc import Callable

from tests.e2e.escapes.conftest import Inside, silent
from tests.rig.farside import Counter
from tests.rig.netns import FarSide

SCRIPT = """
device, near4, far4, far6 = sys.argv[1:]
index = socket.if_nametoindex(device)
def made():
    four, six = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    four.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    four.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(near4))
    six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
    return four, six
def send(sockets, when):
    four, six = sockets
    broadcast = near4.rsplit(".", 1)[0] + ".255"
    attempt(f"{when} unicast4", lambda: four.sendto(b"x", (far4, 4001)))
    attempt(f"{when} unicast6", lambda: six.sendto(b"x", (far6, 4001)))
    attempt(f"{when} mapped", lambda: six.sendto(b"x", ("::ffff:" + far4, 4001)))
    attempt(f"{when} multicast4", lambda: four.sendto(b"x", ("239.1.2.3", 4001)))
    attempt(f"{when} multicast6", lambda: six.sendto(b"x", ("ff02::4242", 4001, 0, index)))
    attempt(f"{when} broadcast", lambda: four.sendto(b"x", (broadcast, 4001)))
    attempt(f"{when} udplite", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM, 136).sendto(b"x", (far4, 4001)))
old = made()
send(old, "free")
go()
send(old, "old")
try:
    send(made(), "new")
except OSError:
    say("new", "denied")
"""


def test_datagrams(inside: Callable[..., Inside], user: str, far: FarSide, counter: Counter) -> None:
    script = inside(SCRIPT, far.near_device, far.near4, far.far4, far.far6, user=user)
    script.ready()
    assert len(counter.wait_for(6)) >= 6  # while it is free, all of them arrive
    since = script.sever()
    script.go()
    script.results()
    assert silent(counter, since)
