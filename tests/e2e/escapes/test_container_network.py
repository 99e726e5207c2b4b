"""In a network namespace of its own, as containers are: ping sockets, a second socket family, a device of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.e2e.escapes.loose import Loose, contained
from tests.rig.farside import Counter
from tests.rig.netns import FarSide, inside

SCRIPT = """
near4, near6 = sys.argv[1:]
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
ping = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, 1)
ping6 = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM, 58)
def send():
    all_of(lambda: udp.sendto(b"x", (near4, 4001)), lambda: ping.sendto(b"\\x08" + bytes(7), (near4, 0)),
           lambda: ping6.sendto(b"\\x80" + bytes(7), (near6, 0)),
           lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM, 1).sendto(b"\\x08" + bytes(7), (near4, 0)))
insist(send)
"""


def test_container_network(loose: Callable[..., Loose], user: str, far: FarSide) -> None:
    """The host's side is the far one."""
    inside(far.name, lambda: Path("/proc/sys/net/ipv4/ping_group_range").write_text("0 65535"))
    with Counter(far, at_near=True) as counter:
        script = loose(SCRIPT, far.near4, far.near6, user=user, prefix=("ip", "netns", "exec", far.name))
        assert contained(script, counter, arrive=4)["cut"] != "done"
        assert {p.protocol for p in counter.packets} >= {1, 17, 58}
