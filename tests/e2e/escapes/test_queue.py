"""A queue that root makes at the device, slow on purpose: what was sent before the cut comes out of it after that, for as long
as root likes, also when all is frozen."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.e2e.conftest import Daemon
from tests.e2e.escapes.loose import Loose, judge
from tests.rig.farside import Counter
from tests.rig.netns import FarSide

SCRIPT = """
device, target = sys.argv[1:]
slow = f"tc qdisc add dev {device} root tbf rate 8kbit burst 1600 limit 1000000"
say("slow", subprocess.run(slow.split(), capture_output=True).returncode == 0)
go()
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(2000):                                  # some hundred go in, two a second come out
    try:
        udp.sendto(bytes(400), socket.MSG_DONTWAIT, (target, 4001))
    except BlockingIOError:
        pass
    time.sleep(0.01)
"""


@pytest.mark.usefixtures("ears")
def test_queue(loose: Callable[..., Loose], far: FarSide, counter: Counter, shared_daemon: Daemon) -> None:
    script = loose(SCRIPT, far.near_device, far.far4)
    script.ready()
    if not script.said["slow"]:
        pytest.skip("this kernel has no queueing discipline that is slow (tbf)")
    script.go()
    counter.wait_for(5)
    since = script.kill()
    try:
        left: object = counter.wait_for(1, seconds=5, since=since)
    except TimeoutError:
        left = []
    judge(shared_daemon, "no_queued_packets", left, always=False)
