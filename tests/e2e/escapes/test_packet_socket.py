"""AF_PACKET goes past programs on a cgroup, which see inet sockets only: CAP_NET_RAW is taken; where it is given by name, or
the workload was only watched, frames are judged at the devices."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.e2e.conftest import Daemon
from tests.e2e.escapes.conftest import PRELUDE, Inside, silent
from tests.rig.farside import Counter
from tests.rig.island import Island
from tests.rig.netns import FarSide

FRAME = """
device, source, target = sys.argv[1:]
def frame():
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28, 1, 0, 64, 17, 0, socket.inet_aton(source), socket.inet_aton(target))
    return b"\\xff" * 6 + b"\\x02" * 6 + b"\\x08\\x00" + ip + struct.pack("!HHHH", 4000, 4001, 8, 0)
def send(kind):
    with socket.socket(socket.AF_PACKET, kind, 0) as s:
        s.bind((device, 0x0800))
        s.send(frame())
"""
REFUSED = (
    FRAME
    + """
attempt("raw", lambda: send(socket.SOCK_RAW))
attempt("dgram", lambda: send(socket.SOCK_DGRAM))
attempt("xdp", lambda: socket.socket(44, socket.SOCK_RAW, 0))
"""
)
ATTEMPTS = (
    FRAME
    + """
old, hearing = (socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) for _ in range(2))
old.bind((device, 0x0800))
hearing.bind((device, 3))
ring = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
ring.setsockopt(263, 10, 1)                                    # PACKET_VERSION 2
ring.setsockopt(263, 13, struct.pack("=IIII", 4096, 1, 2048, 2))  # PACKET_TX_RING
ring.bind((device, 0x0800))
import mmap
memory = mmap.mmap(ring.fileno(), 4096)
def by_ring():
    at = 32
    memory[at:at + len(frame())] = frame()
    struct.pack_into("=IIII", memory, 0, 1, len(frame()), len(frame()), 0)
    ring.send(b"")
def bypass():
    old.setsockopt(263, 20, 1)
    old.send(frame())
attempt("free", lambda: old.send(frame()))
attempt("ring", by_ring)
hearing.settimeout(5)
attempt("heard", lambda: hearing.recv(100))
go()
hearing.setblocking(False)
try:
    while hearing.recv(100):  # what it had heard before
        pass
except OSError:
    pass
attempt("old", lambda: old.send(frame()))
attempt("by the ring", by_ring)
attempt("round the queueing layer", bypass)
attempt("new", lambda: send(socket.SOCK_RAW))
attempt("new dgram", lambda: send(socket.SOCK_DGRAM))
attempt("unlock", lambda: old.setsockopt(socket.SOL_SOCKET, 44, 0))
say("up", True)
sys.stdin.readline()
hearing.settimeout(0.5)
attempt("hears", lambda: hearing.recv(100))
"""
)


def test_packet_socket(inside: Callable[..., Inside], user: str, far: FarSide, counter: Counter) -> None:
    tried = inside(REFUSED, far.near_device, far.near4, far.far4, user=user).results()
    assert tried == {"raw": "EPERM", "dgram": "EPERM", "xdp": "EPERM"}
    assert silent(counter, 0)


def test_it_would_get_out_with_the_capability(inside: Callable[..., Inside], far: FarSide, counter: Counter) -> None:
    """So the attempt is a real one; and --cap-add is by name."""
    tried = inside(REFUSED, far.near_device, far.near4, far.far4, options=("--cap-add", "net_raw")).results()
    assert tried["raw"] == "done"
    assert counter.wait_for(1)


def test_made_before_the_cut(inside: Callable[..., Inside], far: FarSide, counter: Counter) -> None:
    """In the host's own network namespace, with the capability: not a frame of an old socket or a new one, however it is
    sent, and nothing is heard."""
    script = inside(ATTEMPTS, far.near_device, far.near4, far.far4, options=("--cap-add", "net_raw"))
    script.ready()
    counter.wait_for(2)
    since = script.sever()
    script.go()
    script.hear_of("up")
    assert silent(counter, since)
    with far.open_socket(kind=2) as s:
        s.sendto(b"x" * 50, (far.near4, 4001))
    script.go()
    tried = script.results()
    assert tried["free"] == tried["ring"] == tried["heard"] == "done"
    assert tried["round the queueing layer"] == tried["unlock"] == "EPERM", tried
    assert tried["hears"] != "done", tried


class Elsewhere(Inside):
    """The script in a workload that is only watched, with every capability, in a namespace of its own."""

    def __init__(self, daemon: Daemon, island: Island, script: str, *arguments: object, namespace: str = "") -> None:
        Inside.made += 1
        self.name = f"escape{Inside.made}"
        self._daemon, self._said = daemon, {}
        python = ("/usr/bin/python3", "-c", PRELUDE + script, *map(str, arguments))
        command = island.command(*python, namespace=namespace)
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        daemon.watched(self.name)
        self.process = daemon.spawn(self.name, *command, **pipes)  # type: ignore[assignment]


@pytest.fixture
def island() -> Iterator[Island]:
    with Island() as made:
        yield made


def test_in_a_network_namespace_of_its_own(shared_daemon: Daemon, island: Island) -> None:
    with Counter(island) as counter:
        script = Elsewhere(shared_daemon, island, ATTEMPTS, island.near_device, island.near4, island.far4)
        try:
            script.ready()
            counter.wait_for(2)
            since = script.sever()
            script.go()
            script.hear_of("up")
            assert silent(counter, since)
        finally:
            script.end()


def test_thawed_while_severed(shared_daemon: Daemon, island: Island) -> None:
    """What is frozen makes no frames; before it runs again without a network, its devices are guarded."""
    with Counter(island) as counter:
        script = Elsewhere(shared_daemon, island, ATTEMPTS, island.near_device, island.near4, island.far4)
        try:
            script.ready()
            counter.wait_for(2)
            client = shared_daemon.client
            assert client.kill(script.name, "escape test").complete
            script.go()
            assert client.release(script.name, "look at it", stage="thaw").complete
            script.hear_of("up")
            since = counter.packets[-1].unix_ns
            assert silent(counter, since)
            assert len(counter.packets) == 2
        finally:
            script.end()
