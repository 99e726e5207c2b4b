"""MPTCP: one connection of several subflows, which the kernel makes for it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.e2e.escapes.loose import Loose, contained
from tests.rig.farside import Counter
from tests.rig.netns import FarSide

pytestmark = pytest.mark.usefixtures("ears")
SCRIPT = """
target = sys.argv[1]
def made():
    s = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)
    s.settimeout(0.05)
    s.connect((target, 4001))
    return s
try:
    old = made()
except OSError as e:
    if e.errno not in (errno.EPROTONOSUPPORT, errno.ENOPROTOOPT):
        raise
    say("none", True)
    go()
    old = None
def send():
    old.send(b"old")
def send_anew():
    made().send(b"new")
if old:
    insist(send, go_on=lambda: (attempt("again", send), attempt("anew", send_anew)))
    attempt("cut anew", send_anew)
else:
    say("ready", True)
"""


def test_mptcp(loose: Callable[..., Loose], user: str, far: FarSide, counter: Counter) -> None:
    script = loose(SCRIPT, far.far4, user=user)
    script.ready()
    if script.said.get("none"):
        pytest.skip("this kernel has no MPTCP")
    said = contained(script, counter, ready=False)
    assert "done" not in (said["cut"], said["cut anew"]), said
