"""AF_VSOCK leads to the hypervisor and to other machines of it, and any user may make one. No program sees it: at the cut who
holds one ends, but for a connection, which is shut down; one made after the cut ends its maker as well, a moment later."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Daemon
from tests.e2e.escapes.conftest import Inside

SCRIPT = """
import time
LOOPBACK = 1
def listening():
    s = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    s.bind((socket.VMADDR_CID_ANY, socket.VMADDR_PORT_ANY))
    s.listen(1)
    return s
if sys.argv[1] == "held":
    kept = listening()
    go()
    time.sleep(100)
elif sys.argv[1] == "made later":
    go()
    kept = listening()
    time.sleep(100)
else:
    server = listening()
    client = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    client.connect((LOOPBACK, server.getsockname()[1]))
    accepted, _ = server.accept()
    server.close()
    go()
    attempt("send", lambda: client.send(b"x"))
    attempt("again", lambda: client.connect((LOOPBACK, 4001)))
    attempt("receive", lambda: accepted.send(b"x"))
"""


@pytest.fixture(autouse=True)
def _kernel() -> Iterator[None]:
    try:
        with socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM) as s:
            s.bind((socket.VMADDR_CID_ANY, socket.VMADDR_PORT_ANY))
            s.listen(1)
    except OSError as e:
        if e.errno in (errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.ENODEV, errno.EADDRNOTAVAIL):
            pytest.skip("this kernel has no AF_VSOCK that can be listened on")
        raise
    yield


def test_held_at_the_cut(inside: Callable[..., Inside], user: str, shared_daemon: Daemon) -> None:
    script = inside(SCRIPT, "held", user=user)
    script.ready()
    result = shared_daemon.client.sever(script.name, "escape test")
    assert result.complete
    (destroyed,) = (r for r in result.receipts if r.step == "destroy_sockets")
    assert destroyed.proof["held_vsock"] == destroyed.proof["ended_holders"] == 1
    assert script.process.wait(20) == 128 + 9


def test_made_after_the_cut(inside: Callable[..., Inside], user: str, shared_daemon: Daemon) -> None:
    """By the patrol, which comes with every comparison of desired and observed containment."""
    script = inside(SCRIPT, "made later", user=user)
    script.ready()
    script.sever()
    script.go()
    assert script.process.wait(20) in (128 + 9, 1)  # 1: refused to be made, where an LSM tells


def test_connected(inside: Callable[..., Inside], user: str, shared_daemon: Daemon) -> None:
    if not Path("/sys/module/vsock_loopback").exists():
        pytest.skip("this kernel has no vsock_loopback: there is nobody to connect to")
    script = inside(SCRIPT, "connected", user=user)
    script.ready()
    script.sever()
    script.go()
    tried = script.results()
    assert "done" not in tried.values(), tried
