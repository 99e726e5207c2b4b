"""A proxy or a resolver of the host's on loopback: it is outside, and hears nothing."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable
from typing import cast

from tests.e2e.escapes.loose import Loose
from tests.rig.farside import Sink
from tests.rig.netns import FarSide

SCRIPT = """
ports = list(map(int, sys.argv[1:]))
forms = [(socket.AF_INET, "127.0.0.1", socket.SOCK_STREAM), (socket.AF_INET6, "::1", socket.SOCK_STREAM),
         (socket.AF_INET, "127.0.0.1", socket.SOCK_DGRAM), (socket.AF_INET6, "::1", socket.SOCK_DGRAM)]
def made(family, address, kind, port):
    s = socket.socket(family, kind)
    s.settimeout(0.05)
    s.connect((address, port))
    return s
old = [made(*form, port) for form, port in zip(forms, ports)]
def send():
    all_of(*[lambda s=s: s.send(b"old") for s in old],
           *[lambda form=form, port=port: made(*form, port).send(b"new") for form, port in zip(forms, ports)])
insist(send)
"""


class Here:
    """As a far side, on loopback."""

    def listen(self, port: int = 0, *, family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM) -> socket.socket:
        made = socket.socket(family, kind)
        made.bind(("127.0.0.1" if family == socket.AF_INET else "::1", port))
        if kind == socket.SOCK_STREAM:
            made.listen(128)
        return made


def test_loopback(loose: Callable[..., Loose], user: str) -> None:
    with contextlib.ExitStack() as stack:
        sinks = [
            stack.enter_context(Sink(cast(FarSide, Here()), family=family, kind=kind))
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM)
            for family in (socket.AF_INET, socket.AF_INET6)
        ]
        script = loose(SCRIPT, *(s.address[1] for s in sinks), user=user)
        script.ready()
        end = time.monotonic() + 5
        while not all(s.received >= 6 for s in sinks):
            assert time.monotonic() < end, [s.received for s in sinks]
            time.sleep(0.01)
        script.go()
        script.kill()
        time.sleep(0.1)  # what had arrived before is read
        before = [s.received for s in sinks]
        script.thaw()
        script.go()
        said = script.results()
        time.sleep(0.1)
        assert [s.received for s in sinks] == before
    assert (said["free"], said["cut"] != "done") == ("done", True)
