"""A TCP socket that was made outside and destroyed is a socket still: disconnected by hand, it can connect anew."""

from __future__ import annotations

from collections.abc import Callable

from killswitch.kernel import cgroupfs
from tests.e2e.conftest import Daemon
from tests.e2e.escapes.loose import Loose, contained
from tests.rig.farside import Counter
from tests.rig.netns import FarSide

SCRIPT = """
target = sys.argv[1]
connected, never, listener = (socket.socket(socket.AF_INET, socket.SOCK_STREAM) for _ in range(3))
connected.connect((target, 4001))
listener.listen()
def again(s):
    s.setblocking(False)
    libc.connect(s.fileno(), bytes(16), 16)
    if s.connect_ex((target, 4001)) not in (0, errno.EINPROGRESS):
        raise OSError(errno.EPERM, "connect")
    time.sleep(0.005)
    s.send(b"again")
go()
insist(lambda: all_of(*[lambda s=s: again(s) for s in (connected, never, listener)]), every=0.05)
"""


def test_reconnect(
    loose: Callable[..., Loose], user: str, far: FarSide, counter: Counter, ears: object, shared_daemon: Daemon
) -> None:
    script = loose(SCRIPT, far.far4, user=user, outside=True)
    script.ready()
    cgroupfs.move(shared_daemon.cgroup(script.name), script.process.pid)
    script.go()
    contained(script, counter, arrive=8)
