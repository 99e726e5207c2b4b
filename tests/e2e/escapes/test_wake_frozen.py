"""Waking what is frozen from outside: signals with handlers, SIGCONT, a tracer that says go on."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.e2e.escapes.loose import PRELUDE, Loose, quiet
from tests.rig.farside import Counter
from tests.rig.netns import FarSide

SCRIPT = """
import signal
target, file = sys.argv[1:]
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
def act(*_):
    with open(file, "a") as counted:
        counted.write("x")
    try:
        udp.sendto(b"x", (target, 4001))
    except OSError:
        pass
for number in (signal.SIGUSR1, signal.SIGCONT, signal.SIGTERM):
    signal.signal(number, act)
act()
say("pid", os.getpid())
go()
end = time.monotonic() + 20
while not line(0.002) and time.monotonic() < end:
    act()
"""
TRACER = """
pid = int(sys.argv[1])
call("ptrace", 0x4206, pid, 0, 0)
call("ptrace", 0x4207, pid, 0, 0)
status = os.waitpid(pid, 0x40000000 | os.WNOHANG)
for request in (7, 24, 9, 7):  # CONT, SYSCALL, SINGLESTEP
    libc.ptrace(request, pid, 0, 0)
    import time
    time.sleep(0.05)
print("traced")
"""


def test_wake_frozen(loose: Callable[..., Loose], user: str, far: FarSide, counter: Counter) -> None:
    counted = Path("/tmp", f"ks-test-{os.getpid()}-woken")
    counted.touch()
    counted.chmod(0o666)
    try:
        script = loose(SCRIPT, far.far4, counted, user=user)
        script.ready()
        counter.wait_for(1)
        script.go()
        time.sleep(0.03)
        since = script.kill()
        done = counted.stat().st_size
        assert done > 1
        for number in (signal.SIGUSR1, signal.SIGCONT, signal.SIGTERM):
            os.kill(script.said["pid"], number)
        traced = subprocess.run(
            ["/usr/bin/python3", "-c", PRELUDE + TRACER, str(script.said["pid"])],
            capture_output=True,
            text=True,
            check=False,
        )
        assert traced.stdout == "traced\n", traced.stderr
        assert quiet(counter, since)
        assert counted.stat().st_size == done
        script.thaw()
        script.go()
        script.results()
        assert counted.stat().st_size > done  # what was sent to it is delivered, and the network is still cut
        assert quiet(counter, since)
    finally:
        counted.unlink()
