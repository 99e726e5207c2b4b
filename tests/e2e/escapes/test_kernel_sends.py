"""What the kernel sends for a process that does nothing: probes of a closed window, keepalives, the end of a connection."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

from tests.e2e.escapes.loose import Loose, quiet
from tests.rig.farside import Counter
from tests.rig.netns import FarSide

SCRIPT = """
target, port = sys.argv[1], int(sys.argv[2])
full, idle = (socket.create_connection((target, port)) for _ in range(2))
for option, value in ((socket.TCP_KEEPIDLE, 1), (socket.TCP_KEEPINTVL, 1)):
    idle.setsockopt(socket.IPPROTO_TCP, option, value)
idle.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
full.setblocking(False)
try:
    while True:
        full.send(bytes(65536))
except BlockingIOError:
    pass
say("pid", os.getpid())
say("keepalive from", idle.getsockname()[1])
go()
"""


def test_kernel_sends(loose: Callable[..., Loose], far: FarSide, counter: Counter) -> None:
    with far.listen() as deaf:  # what it is sent fills its buffer
        script = loose(SCRIPT, far.far4, deaf.getsockname()[1])
        script.ready()
        start = time.time_ns()
        time.sleep(1.3)
        ports = {p.source_port for p in counter.since(start)}
        assert script.said["keepalive from"] in ports
        assert len(ports) == 2, "free, both are kept going by the kernel"
        since = script.kill()
        assert quiet(counter, since, 1.3)
        os.kill(script.process.pid, signal.SIGKILL)
        script.process.wait(10)
        assert quiet(counter, since, 0.3)
        assert [p for p in counter.packets if p.unix_ns > since] == []  # not even a reset
