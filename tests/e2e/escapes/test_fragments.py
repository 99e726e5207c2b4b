"""Datagrams larger than the link: cut into fragments below the socket, of which the first alone has a port."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.e2e.escapes.loose import Loose, contained
from tests.rig.farside import Counter
from tests.rig.netns import FarSide

pytestmark = pytest.mark.usefixtures("ears")
SCRIPT = """
targets = sys.argv[1:]
made = [socket.socket(socket.AF_INET6 if ":" in t else socket.AF_INET, socket.SOCK_DGRAM) for t in targets]
def send():
    for s, target in zip(made, targets):
        s.sendto(bytes(20000), (target, 4001))
insist(send)
"""


def test_fragments(loose: Callable[..., Loose], user: str, far: FarSide, counter: Counter) -> None:
    assert contained(loose(SCRIPT, far.far4, far.far6, user=user), counter, arrive=28)["cut"] != "done"
    parts = [p for p in counter.packets if p.version == 4]
    assert len(parts) >= 14  # they came as fragments
