"""Coming in: connections made after the cut, one that waits to be accepted, datagrams to a bound socket."""

from __future__ import annotations

import socket
from collections.abc import Callable

from tests.e2e.escapes.loose import Loose
from tests.rig.netns import FarSide

SCRIPT = """
listener, udp = socket.create_server((sys.argv[1], 0)), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind((sys.argv[1], 0))
say("ports", [listener.getsockname()[1], udp.getsockname()[1]])
go()
taken = listener.accept()[0]
say("free", [taken.recv(10).decode(), udp.recv(10).decode()])
go()
listener.settimeout(0.2), udp.settimeout(0.2), taken.settimeout(0.2)
def accept():
    waiting = listener.accept()[0]
    waiting.settimeout(0.2)
    waiting.recv(10)
attempt("accept", accept)
attempt("receive", lambda: udp.recv(10))
def read():
    if not taken.recv(10):
        raise OSError(errno.EPIPE, "ended")
attempt("read", read)
"""


def test_inbound(loose: Callable[..., Loose], user: str, far: FarSide) -> None:
    script = loose(SCRIPT, far.near4, user=user)
    script.ready()
    tcp, udp = ((far.near4, port) for port in script.said["ports"])
    with (
        far.open_socket() as first,
        far.open_socket() as waiting,
        far.open_socket() as late,
        far.open_socket(kind=socket.SOCK_DGRAM) as datagrams,
    ):
        first.connect(tcp)
        first.send(b"in")
        datagrams.sendto(b"in", udp)
        script.go()
        script.ready()
        assert script.said["free"] == ["in", "in"]
        waiting.connect(tcp)
        script.sever()
        waiting.send(b"late")
        late.settimeout(0.2)
        assert late.connect_ex(tcp) != 0
        datagrams.sendto(b"late", udp)
        first.send(b"late")
        script.go()
        said = script.results()
    assert "done" not in (said["accept"], said["receive"], said["read"]), said
