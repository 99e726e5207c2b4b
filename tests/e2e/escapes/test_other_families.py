"""Sockets of every other family that the kernel has: none but those that are known leads anywhere."""

from __future__ import annotations

from collections.abc import Callable

from tests.e2e.conftest import Daemon
from tests.e2e.escapes.loose import Loose

SCRIPT = """
go()
found = {}
for family in range(1, 47):
    for kind in (1, 2, 3, 4, 5, 6):
        try:
            socket.socket(family, kind).close()
            found.setdefault(str(family), []).append(kind)
        except OSError:
            pass
say("made", found)
"""
# Unix, netlink, packet, cryptography, vsock, XDP: each has its own file here, or nobody at its far end.
KNOWN = {"1", "16", "17", "38", "40", "44"}


def test_other_families(loose: Callable[..., Loose], user: str, shared_daemon: Daemon) -> None:
    script = loose(SCRIPT, user=user)
    script.ready()
    script.sever()
    script.go()
    made = set(script.results()["made"])
    assert not made & {"2", "10"}, "no inet socket is made when severed"
    assert "16" in made  # so it could try
    others = {c.name for c in shared_daemon.client.capabilities() if not c.available}
    assert made <= KNOWN or "no_other_families" in others, made - KNOWN
