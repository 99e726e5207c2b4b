"""TCP_REPAIR makes an established connection of nothing, without a handshake that could be refused: it takes CAP_NET_ADMIN."""

from __future__ import annotations

from collections.abc import Callable

from tests.e2e.escapes.conftest import Inside
from tests.e2e.escapes.loose import Loose, contained
from tests.rig.farside import Counter
from tests.rig.netns import FarSide

REPAIR = """
near4, far4 = sys.argv[1:]
def made():
    s = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    s.setsockopt(socket.IPPROTO_TCP, 19, 1)
    s.bind((near4, 0))
    s.connect((far4, 4001))
    return s
"""
SCRIPT = (
    REPAIR
    + """
import itertools
kept = [made() for _ in range(200)]
def use(s):
    s.setsockopt(socket.IPPROTO_TCP, 19, 0)   # sends a probe
    try:
        s.send(b"x")
    except ConnectionResetError:
        pass                                  # the far side knows of no connection, and has said so already
def old():
    if kept:
        use(kept.pop())
insist(lambda: all_of(old, lambda: use(made())), every=0.01)
"""
)


def test_tcp_repair(loose: Callable[..., Loose], far: FarSide, counter: Counter) -> None:
    assert contained(loose(SCRIPT, far.near4, far.far4), counter, arrive=2)["cut"] != "done"


def test_least_privilege(inside: Callable[..., Inside], user: str, far: FarSide) -> None:
    tried = inside(REPAIR + 'attempt("repair", made)', far.near4, far.far4, user=user).results()
    assert tried == {"repair": "EPERM"}
