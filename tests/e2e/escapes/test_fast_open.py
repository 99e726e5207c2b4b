"""TCP fast open: data in the first packet, without a connect."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.e2e.escapes.loose import Loose, contained
from tests.rig.farside import Counter
from tests.rig.netns import FarSide

pytestmark = pytest.mark.usefixtures("ears")
SCRIPT = """
target = sys.argv[1]
def send():
    s = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    s.setblocking(False)
    try:
        s.sendto(b"fast", 0x20000000, (target, 4001))
    except BlockingIOError:
        pass
insist(send)
"""


def test_fast_open(loose: Callable[..., Loose], user: str, far: FarSide, counter: Counter) -> None:
    assert contained(loose(SCRIPT, far.far4, user=user), counter)["cut"] != "done"
