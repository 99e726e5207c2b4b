"""Root starves, weakens and kills the daemon first, and tries then: what is cut off stays so without it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.e2e.conftest import Daemon
from tests.e2e.escapes.loose import Loose, quiet
from tests.rig.farside import Counter
from tests.rig.netns import FarSide

SCRIPT = """
target, daemon = sys.argv[1], int(sys.argv[2])
def send():
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", (target, 4001))
send()
go()
attempt("priority", lambda: os.setpriority(os.PRIO_PROCESS, daemon, 19))
attempt("limit", lambda: __import__("resource").prlimit(daemon, 7, (3, 3)))
attempt("out of memory first", lambda: open(f"/proc/{daemon}/oom_score_adj", "w").write("1000"))
attempt("kill", lambda: os.kill(daemon, 9))
time.sleep(0.1)
attempt("after the kill", send)
"""


@pytest.mark.usefixtures("ears")
def test_daemon_killed(make_daemon: Callable[..., Daemon], far: FarSide, counter: Counter) -> None:
    daemon = make_daemon().start()
    assert daemon.process
    script = Loose(daemon, SCRIPT, far.far4, daemon.process.pid)
    try:
        script.ready()
        counter.wait_for(1)
        since = script.sever()
        script.go()
        said = script.results()
    finally:
        script.end()
    assert said["kill"] in ("done", "EPERM"), said  # EPERM: an LSM has no hand laid on what is outside
    assert said["after the kill"] == "EPERM", said
    assert quiet(counter, since)
