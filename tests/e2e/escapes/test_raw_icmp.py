"""Raw sockets need CAP_NET_RAW; a ping socket, where the host allows it, is an inet socket and cut like one."""

from __future__ import annotations

from collections.abc import Callable

from tests.e2e.escapes.conftest import Inside, silent
from tests.rig.farside import Counter
from tests.rig.netns import FarSide

SCRIPT = """
target4, target6 = sys.argv[1:]
for name, family, proto in (("icmp", socket.AF_INET, 1), ("icmp6", socket.AF_INET6, 58), ("own", socket.AF_INET, 255)):
    attempt(name, lambda: socket.socket(family, socket.SOCK_RAW, proto))
def ping(family, target, kind):
    s = socket.socket(family, socket.SOCK_DGRAM, 1 if family == socket.AF_INET else 58)
    s.sendto(bytes((kind, 0, 0, 0, 0, 0, 0, 1)), (target, 0))
go()
for name, arguments in (("ping", (socket.AF_INET, target4, 8)), ("ping6", (socket.AF_INET6, target6, 128))):
    attempt(name, lambda: ping(*arguments))
"""


def test_raw_icmp(inside: Callable[..., Inside], user: str, far: FarSide, counter: Counter) -> None:
    script = inside(SCRIPT, far.far4, far.far6, user=user)
    script.ready()
    since = script.sever()
    script.go()
    tried = script.results()
    assert [tried[name] for name in ("icmp", "icmp6", "own")] == ["EPERM"] * 3
    assert "done" not in (tried["ping"], tried["ping6"])
    assert silent(counter, since)
