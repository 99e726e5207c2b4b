"""Data that goes to a socket without passing through the process: sendfile, splice, vmsplice, MSG_ZEROCOPY."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.e2e.escapes.loose import Loose, contained
from tests.rig.farside import Counter
from tests.rig.netns import FarSide

pytestmark = pytest.mark.usefixtures("ears")
SCRIPT = """
import tempfile
target = sys.argv[1]
def connected():
    s = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    s.settimeout(0.05)
    s.connect((target, 4001))
    return s
old = connected()
old.setblocking(True)
old.setsockopt(socket.SOL_SOCKET, 60, 1)
file = tempfile.TemporaryFile()
file.write(bytes(3000))
file.flush()
def sendfile():
    os.sendfile(old.fileno(), file.fileno(), 0, 3000)
def splice():
    out, into = os.pipe()
    try:
        os.write(into, bytes(500))
        call("splice", out, None, old.fileno(), None, 500, 0)
    finally:
        os.close(out), os.close(into)
class Iov(ctypes.Structure):
    _fields_ = (("base", ctypes.c_char_p), ("len", ctypes.c_size_t))
def vmsplice():
    out, into = os.pipe()
    try:
        call("vmsplice", into, ctypes.byref(Iov(bytes(4096), 4096)), 1, 0)
        call("splice", out, None, old.fileno(), None, 4096, 0)
    finally:
        os.close(out), os.close(into)
def send():
    sendfile(), splice(), vmsplice()
    old.send(bytes(2000), 0x4000000)
import signal
signal.signal(signal.SIGPIPE, signal.SIG_IGN)
insist(send)
"""


def test_splice(loose: Callable[..., Loose], user: str, far: FarSide, counter: Counter) -> None:
    assert contained(loose(SCRIPT, far.far4, user=user), counter, arrive=3)["cut"] != "done"
