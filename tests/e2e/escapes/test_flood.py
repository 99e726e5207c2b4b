"""A flood of events around the act: forks, execs and connections by the thousand hide nothing and delay nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.e2e.escapes.loose import Loose, contained
from tests.rig.farside import Counter
from tests.rig.netns import FarSide

SCRIPT = """
target = sys.argv[1]
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
port = [1024]
def flood():
    for _ in range(300):
        port[0] = port[0] % 60000 + 1024
        try:
            udp.sendto(b"", ("127.0.0.1", port[0]))
        except OSError:
            pass
    for _ in range(3):
        if os.fork() == 0:
            os.execv("/bin/true", ["true", "x" * 4000])
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
insist(lambda: udp.sendto(b"x", (target, 4001)), go_on=flood, every=0)
"""


@pytest.mark.usefixtures("ears")
def test_flood(loose: Callable[..., Loose], user: str, far: FarSide, counter: Counter) -> None:
    script = loose(SCRIPT, far.far4, user=user)
    assert contained(script, counter, while_free=0.3)["cut"] != "done"
