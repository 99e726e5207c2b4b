"""The optional LSM programs: what they refuse a severed workload, and what they leave to it."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from killswitch.kernel.dataplane import DataPlane
from tests.kernel.cgroups import Cgroup
from tests.kernel.confined import (
    SEVERED,
    Waiting,
    needs,
    refused,
    script,
)


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    """A unix socket of somebody outside."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as made:
        made.bind(str(tmp_path / "outside"))
        made.listen()
        yield made


FAMILIES = """
for name, family, kind, protocol in (
    ("packet", 17, 3, 0), ("vsock", 40, 1, 0), ("xdp", 44, 3, 0), ("usersock", 16, 3, 2),
    ("unix", 1, 1, 0), ("route", 16, 3, 0), ("alg", 38, 5, 0), ("inet", 2, 1, 0),
):
    attempt(name, lambda: socket.socket(family, kind, protocol).close())
pair = socket.socketpair()
attempt("pair", lambda: (pair[0].send(b"x"), pair[1].recv(1)))
"""


def test_sockets_of_a_severed_workload(plane: DataPlane, watched: Cgroup) -> None:
    needs("lsm_socket")(plane)
    free = script(watched, FAMILIES)
    assert "EPERM" not in free.values(), free
    plane.set_containment(watched.id, SEVERED)
    cut = script(watched, FAMILIES)
    for family in ("packet", "vsock", "xdp", "usersock", "inet"):
        assert cut[family] == "EPERM", cut
    assert {cut[name] for name in ("unix", "route", "pair")} == {"done"}, cut
    assert cut["alg"] == free["alg"]


UNIX = """
inside = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
inside.bind(sys.argv[1] + "/inside"); inside.listen()
letters = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); letters.bind(sys.argv[1] + "/letters")
before = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM); before.connect(sys.argv[1] + "/outside")
own = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM); own.connect(sys.argv[1] + "/inside")
theirs, _ = inside.accept()
wait()
attempt("send over what was open", lambda: before.send(b"x"))
attempt("receive over what was open", lambda: before.recv(1))
attempt("connect outside", lambda: socket.socket(socket.AF_UNIX, socket.SOCK_STREAM).connect(sys.argv[1] + "/outside"))
attempt("datagram outside", lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b"x", sys.argv[1] + "/post"))
attempt("send inside", lambda: own.send(b"x"))
attempt("receive inside", lambda: theirs.recv(1))
attempt("connect inside", lambda: socket.socket(socket.AF_UNIX, socket.SOCK_STREAM).connect(sys.argv[1] + "/inside"))
attempt("datagram inside", lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b"x", sys.argv[1] + "/letters"))
"""


@pytest.mark.parametrize("severed", [False, True])
def test_unix_sockets(
    plane: DataPlane, watched: Cgroup, tmp_path: Path, listener: socket.socket, severed: bool
) -> None:
    needs("lsm_unix_connect", "lsm_unix_send", "lsm_sendmsg", "lsm_recvmsg")(plane)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as post:
        post.bind(str(tmp_path / "post"))
        workload = Waiting(watched, UNIX, tmp_path)
        workload.ready()
        peer, _ = listener.accept()
        peer.send(b"y")
        if severed:
            plane.set_containment(watched.id, SEVERED)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            inwards = client.connect_ex(str(tmp_path / "inside"))
        told = workload.result()
        peer.close()
    for what, outcome in told.items():
        assert outcome == ("EPERM" if severed and "inside" not in what else "done"), told
    assert (inwards != 0) == severed
    if severed:
        assert plane.denied(watched.id)["connect"] >= 2
        assert {(e.operation, e.number) for e in refused(plane)} == {
            ("send", socket.AF_UNIX), ("receive", socket.AF_UNIX), ("connect", socket.AF_UNIX)
        }  # fmt: skip


PASSED = """
import array
def take(sock):
    _, ancillary, _, _ = sock.recvmsg(1, socket.CMSG_SPACE(16))
    return [fd for _, _, data in ancillary for fd in array.array("i", data)]
unix = socket.socket(fileno=int(sys.argv[1]))
print("ready", flush=True)
attempt("taken", lambda: told.__setitem__("descriptors", len(take(unix))))
"""


def test_sockets_that_are_passed_after_the_cut_are_not_taken_in(plane: DataPlane, watched: Cgroup) -> None:
    """Also to who has been waiting for them since before it."""
    needs("lsm_file_receive")(plane)
    near, far = socket.socketpair()
    with near, far, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        workload = Waiting(watched, "sys.path += sys.argv[2:]\n" + PASSED, far.fileno(), *[p for p in sys.path if p],
                           pass_fds=[far.fileno()])  # fmt: skip
        workload.ready()
        while Path(f"/proc/{workload.process.pid}/wchan").read_text() in ("0", ""):
            if "S (sleeping)" in Path(f"/proc/{workload.process.pid}/status").read_text():
                break
        plane.set_containment(watched.id, SEVERED)
        socket.send_fds(near, [b"x"], [udp.fileno()])
        assert workload.result().get("descriptors", 0) == 0
