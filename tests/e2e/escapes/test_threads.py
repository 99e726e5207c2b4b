"""Threads apart: with a network namespace, a user or a root directory of their own, and one that outlives the first."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.e2e.escapes.loose import Loose, contained
from tests.rig.farside import Counter
from tests.rig.netns import FarSide

SCRIPT = """
target = sys.argv[1]
wrong = []
def apart(change):
    def run():
        try:
            if change:
                change()
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", (target, 4001))
        except OSError as e:
            wrong.append(e)
    return threading.Thread(target=run)
def every():
    wrong.clear()
    changes = [None, lambda: call("unshare", 0x200), lambda: call("unshare", 0x400)]
    if os.getuid() == 0:
        changes += [lambda: call("syscall", 105, 1234), lambda: (call("unshare", 0x200), os.chroot("/proc"))]
    threads = [apart(change) for change in changes]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    if wrong:
        raise wrong[0]
insist(every)
"""


@pytest.mark.usefixtures("ears")
def test_threads(loose: Callable[..., Loose], user: str, far: FarSide, counter: Counter) -> None:
    assert contained(loose(SCRIPT, far.far4, user=user), counter, arrive=3)["cut"] != "done"
