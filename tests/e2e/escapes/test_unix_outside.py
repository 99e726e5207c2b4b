"""Asking somebody outside over a unix socket: what was connected before the cut, what is connected after it, datagrams."""

from __future__ import annotations

import contextlib
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.e2e.conftest import Daemon
from tests.e2e.escapes.conftest import Inside
from tests.e2e.escapes.loose import judge

SCRIPT = """
place = sys.argv[1]
def connected():
    s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    s.connect(place + "/stream")
    return s
before = connected()
letters = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
attempt("free", lambda: (before.send(b"free"), letters.sendto(b"free", place + "/letters")))
go()
attempt("before", lambda: before.send(b"cut"))
attempt("anew", lambda: connected().send(b"cut"))
attempt("letter", lambda: letters.sendto(b"cut", place + "/letters"))
"""


def test_unix_outside(inside: Callable[..., Inside], user: str, shared_daemon: Daemon) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="ks-test-", dir="/tmp") as directory,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as letters,
    ):
        Path(directory).chmod(0o755)
        for name, ours in (("stream", listener), ("letters", letters)):
            ours.bind(f"{directory}/{name}")
            Path(directory, name).chmod(0o777)
        listener.listen()
        listener.settimeout(10)
        script = inside(SCRIPT, directory, user=user)
        script.ready()
        first = listener.accept()[0]
        assert (first.recv(9), letters.recv(9)) == (b"free", b"free")
        script.sever()
        script.go()
        tried = script.results()
        assert tried.pop("free") == "done"
        arrived = []
        for one in (first, letters):
            one.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                arrived.append(one.recv(9))
        first.close()
        judge(shared_daemon, "lsm_unix_sockets", [what for what in arrived if what])
        assert set(tried.values()) == {"EPERM"}, tried
