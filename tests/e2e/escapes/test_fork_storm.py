"""Forking as fast as it can while it is cut off and frozen, every child with something to send."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.e2e.escapes.loose import Loose, contained
from tests.rig.farside import Counter
from tests.rig.netns import FarSide

SCRIPT = """
import signal
target = sys.argv[1]
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
old = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
left = [400]
def send():
    old.sendto(b"x", (target, 4001))
def breed(depth=3):
    if left[0] <= 0:
        return
    left[0] -= 1
    for _ in range(2):
        if os.fork() == 0:
            try:
                send()
                socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"y", (target, 4001))
                if depth:
                    breed(depth - 1)
                send()
            finally:
                os._exit(0)
insist(send, go_on=breed, every=0.001)
"""


@pytest.mark.usefixtures("ears")
def test_fork_storm(loose: Callable[..., Loose], user: str, far: FarSide, counter: Counter) -> None:
    assert contained(loose(SCRIPT, far.far4, user=user), counter)["cut"] != "done"
