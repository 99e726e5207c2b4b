"""Into another network namespace of the host's, as root: the cut goes along with the cgroup."""

from __future__ import annotations

from collections.abc import Callable

from tests.e2e.escapes.loose import Loose, contained
from tests.rig.farside import Counter
from tests.rig.netns import FarSide

SCRIPT = """
namespace, near4 = sys.argv[1:]
here = os.open("/proc/self/ns/net", os.O_RDONLY)
there = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
call("setns", there, NEWNET)
old = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
call("setns", here, NEWNET)
def send():
    call("setns", there, NEWNET)
    try:
        old.sendto(b"old", (near4, 4001))
    finally:
        try:
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"new", (near4, 4001))
        finally:
            call("setns", here, NEWNET)
insist(send)
"""


def test_setns(loose: Callable[..., Loose], far: FarSide) -> None:
    with Counter(far, at_near=True) as counter:
        assert contained(loose(SCRIPT, far.name, far.near4), counter, arrive=2)["cut"] != "done"
