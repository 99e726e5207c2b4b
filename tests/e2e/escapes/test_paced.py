"""Data that the kernel sends later, by its own timers: paced, corked, unanswered, when its process is frozen or has ended."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pytest

from tests.e2e.escapes.loose import Loose, quiet
from tests.rig.farside import Counter
from tests.rig.netns import FarSide

pytestmark = pytest.mark.usefixtures("ears")
SCRIPT = """
target = sys.argv[1]
paced, corked = (socket.create_connection((target, 4001)) for _ in range(2))
paced.setsockopt(socket.SOL_SOCKET, 47, 10000)            # SO_MAX_PACING_RATE, bytes a second
paced.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 400000)
paced.setblocking(False)
corked.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)  # goes out after 200 ms
say("ports", [s.getsockname()[1] for s in (paced, corked)])
go()
paced.send(bytes(200000))
corked.send(b"later")
say("sent", True)
time.sleep(60)
"""


@pytest.mark.parametrize("ended", [False, True])
def test_paced(loose: Callable[..., Loose], user: str, far: FarSide, counter: Counter, ended: bool) -> None:
    """Frozen, or ended by itself: what is queued belongs to a socket, which is destroyed."""
    script = loose(SCRIPT, far.far4, user=user)
    script.ready()
    paced, corked = script.said["ports"]
    script.go()
    script.hear_of("sent")
    start = time.time_ns()
    counter.wait_for(2, since=start)
    assert paced in {p.source_port for p in counter.since(start)}, "free, the kernel goes on by itself"
    if ended:
        os.kill(script.process.pid, signal.SIGKILL)
        script.process.wait(10)
        counter.wait_for(1, since=time.time_ns())
    since = script.kill()
    assert quiet(counter, since, 0.5), f"{corked=}: {counter.since(since)}"
