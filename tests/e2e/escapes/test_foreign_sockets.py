"""Sockets that were made outside: inherited, passed over a unix socket, listening before it joined."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.e2e.conftest import Daemon
from tests.e2e.escapes.conftest import Inside, silent
from tests.e2e.escapes.loose import judge
from tests.rig.farside import Counter, Sink
from tests.rig.netns import FarSide

INHERITED = """
fds, target, port = [int(fd) for fd in sys.argv[1].split(",")], sys.argv[2], int(sys.argv[3])
tcp, udp, listener = (socket.socket(fileno=fd) for fd in fds)
tcp.send(b"x"), udp.sendto(b"x", (target, port))
go()
attempt("tcp", lambda: tcp.send(b"y"))
attempt("udp", lambda: udp.sendto(b"y", (target, port)))
listener.settimeout(0.5)
attempt("listener", listener.accept)
"""
PASSED = """
path, target, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
unix = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
unix.connect(path)
_, fds, _, _ = socket.recv_fds(unix, 1, 2)
tcp, udp = (socket.socket(fileno=fd) for fd in fds)
tcp.send(b"x"), udp.sendto(b"x", (target, port))
go()
attempt("tcp", lambda: tcp.send(b"y"))
attempt("udp", lambda: udp.sendto(b"y", (target, port)))
"""


def test_inherited(inside: Callable[..., Inside], user: str, far: FarSide, counter: Counter) -> None:
    with (
        Sink(far) as sink,
        socket.create_connection(sink.address) as tcp,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        socket.create_server((far.near4, 0)) as listener,
    ):
        fds = [s.fileno() for s in (tcp, udp, listener)]
        port = sink.address[1]
        script = inside(INHERITED, ",".join(map(str, fds)), far.far4, port, user=user, pass_fds=fds)
        script.ready()
        here = listener.getsockname()
        for s in (tcp, udp, listener):
            s.close()  # the script has the only ones
        counter.wait_for(2)
        since = script.sever()
        with far.open_socket() as client:
            client.settimeout(0.3)
            assert client.connect_ex(here) != 0
        script.go()
        tried = script.results()
        assert "done" not in (tried["tcp"], tried["listener"]), tried
        assert silent(counter, since)


def test_passed(inside: Callable[..., Inside], user: str, far: FarSide, counter: Counter) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="ks-test-", dir="/tmp") as directory,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as giver,
        Sink(far) as sink,
        socket.create_connection(sink.address) as tcp,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
    ):
        Path(directory).chmod(0o755)
        giver.bind(f"{directory}/giver")
        Path(directory, "giver").chmod(0o777)
        giver.listen()
        script = inside(PASSED, f"{directory}/giver", far.far4, sink.address[1], user=user)
        taker = giver.accept()[0]
        socket.send_fds(taker, [b"x"], [tcp.fileno(), udp.fileno()])
        script.ready()
        tcp.close()
        udp.close()
        taker.close()
        counter.wait_for(2)
        since = script.sever()
        script.go()
        assert script.results()["tcp"] != "done"
        assert silent(counter, since)


LATE = """
unix = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
unix.connect(sys.argv[1])
go()
def use():
    _, fds, _, _ = socket.recv_fds(unix, 1, 1)
    socket.socket(fileno=fds[0]).sendto(b"y", (sys.argv[2], 4001))
attempt("udp", use)
"""


def test_passed_after_the_cut(
    inside: Callable[..., Inside], user: str, far: FarSide, counter: Counter, shared_daemon: Daemon
) -> None:
    """The programs on the cgroup go by where a socket was made, and the daemon looks for new descriptors only now and then."""
    with (
        tempfile.TemporaryDirectory(prefix="ks-test-", dir="/tmp") as directory,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as giver,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
    ):
        Path(directory).chmod(0o755)
        giver.bind(f"{directory}/giver")
        Path(directory, "giver").chmod(0o777)
        giver.listen()
        script = inside(LATE, f"{directory}/giver", far.far4, user=user)
        script.ready()
        since = script.sever()
        with giver.accept()[0] as taker:
            socket.send_fds(taker, [b"x"], [udp.fileno()])
            script.go()
            script.results()
        escaped = [] if silent(counter, since) else counter.since(since)
        judge(shared_daemon, "lsm_foreign_sockets", escaped, always=False)
