"""SCTP, DCCP and MPTCP sockets: where the kernel has them they are inet sockets, and cut like one."""

from __future__ import annotations

from collections.abc import Callable

from tests.e2e.escapes.conftest import Inside, silent
from tests.rig.farside import Counter
from tests.rig.netns import FarSide

SCRIPT = """
target = sys.argv[1]
def connect(kind, proto):
    s = socket.socket(socket.AF_INET, kind, proto)
    s.setblocking(False)
    s.connect((target, 4001))
go()
attempt("sctp", lambda: connect(socket.SOCK_STREAM, 132))
attempt("sctp-many", lambda: connect(socket.SOCK_SEQPACKET, 132))
attempt("dccp", lambda: connect(6, 33))
attempt("mptcp", lambda: connect(socket.SOCK_STREAM, 262))
attempt("tcp", lambda: connect(socket.SOCK_STREAM, 0))
"""


def test_other_transports(inside: Callable[..., Inside], user: str, far: FarSide, counter: Counter) -> None:
    script = inside(SCRIPT, far.far4, user=user)
    script.ready()
    since = script.sever()
    script.go()
    assert not {"done", "EINPROGRESS"} & set(script.results().values())
    assert silent(counter, since)
