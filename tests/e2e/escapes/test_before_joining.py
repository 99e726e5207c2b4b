"""Sockets made before the process was put into the workload: they belong to another cgroup for ever."""

from __future__ import annotations

from collections.abc import Callable

from killswitch.kernel import cgroupfs
from tests.e2e.conftest import Daemon
from tests.e2e.escapes.loose import Loose, contained
from tests.rig.farside import Counter
from tests.rig.netns import FarSide

SCRIPT = """
target = sys.argv[1]
udp, connected, tcp = (socket.socket(socket.AF_INET, k) for k in (socket.SOCK_DGRAM, socket.SOCK_DGRAM, socket.SOCK_STREAM))
connected.connect((target, 4001)), tcp.connect((target, 4001))
six = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
six.bind(("::", 0))
def send():
    all_of(lambda: udp.sendto(b"x", (target, 4001)), lambda: connected.send(b"x"), lambda: tcp.send(b"x"),
           lambda: six.sendto(b"x", ("::ffff:" + target, 4001)))
go()
insist(send)
"""


def test_before_joining(
    loose: Callable[..., Loose], user: str, far: FarSide, counter: Counter, ears: object, shared_daemon: Daemon
) -> None:
    script = loose(SCRIPT, far.far4, user=user, outside=True)
    script.ready()
    cgroupfs.move(shared_daemon.cgroup(script.name), script.process.pid)
    script.go()
    assert contained(script, counter, arrive=5)["cut"] != "done"
