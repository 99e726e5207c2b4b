"""A parent that waits for a vforked child, which waits for somebody else: both count as frozen, and none is killed for it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from tests.e2e.escapes.loose import Loose, quiet
from tests.rig.farside import Counter
from tests.rig.netns import FarSide

SCRIPT = """
import tempfile
target = sys.argv[1]
fifo = tempfile.mkdtemp(prefix="ks-test-") + "/fifo"
os.mkfifo(fifo)
say("fifo", fifo)
if os.fork() == 0:
    os.posix_spawn("/bin/true", ["true"], {}, file_actions=[(os.POSIX_SPAWN_OPEN, 0, fifo, os.O_RDONLY, 0)])
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.sendto(b"x", (target, 4001))
    os._exit(0)
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.sendto(b"x", (target, 4001))
time.sleep(0.1)
go()
"""


def test_vfork(loose: Callable[..., Loose], user: str, far: FarSide, counter: Counter) -> None:
    script = loose(SCRIPT, far.far4, user=user)
    script.ready()
    fifo = Path(script.said["fifo"])
    try:
        counter.wait_for(1)
        since = script.kill()
        waiting = os.open(fifo, os.O_RDWR)  # now the child could go on
        assert quiet(counter, since)
        assert script.process.poll() is None
        script.thaw()
        script.go()
        script.results()
        time.sleep(0.1)
        os.close(waiting)
        assert quiet(counter, since)
    finally:
        fifo.unlink()
        fifo.parent.rmdir()
