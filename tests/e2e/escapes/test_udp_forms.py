"""UDP in every form a socket offers: connected, many at a time, segmented by the kernel, corked, routed by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.e2e.escapes.loose import Loose, contained
from tests.rig.farside import Counter
from tests.rig.netns import FarSide

SCRIPT = """
device, far4 = sys.argv[1:]
connected = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
connected.connect((far4, 4001))
loose_one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
class Iov(ctypes.Structure):
    _fields_ = (("base", ctypes.c_char_p), ("len", ctypes.c_size_t))
class Header(ctypes.Structure):
    _fields_ = (("name", ctypes.c_void_p), ("namelen", ctypes.c_uint), ("iov", ctypes.c_void_p), ("iovlen", ctypes.c_size_t),
                ("control", ctypes.c_void_p), ("controllen", ctypes.c_size_t), ("flags", ctypes.c_long), ("sent", ctypes.c_long))
def many():
    vector = Iov(b"m", 1)
    headers = (Header * 3)(*[Header(None, 0, ctypes.addressof(vector), 1, None, 0, 0, 0)] * 3)
    call("sendmmsg", connected.fileno(), headers, 3, 0)
def corked():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.setsockopt(17, 1, 1)
    s.sendto(b"a", (far4, 4001)), s.sendto(b"b", (far4, 4001))
    s.setsockopt(17, 1, 0)
def routed():
    loose_one.sendmsg([b"r"], [(0, 8, struct.pack("=III", socket.if_nametoindex(device), 0, 0))], 0, (far4, 4001))
def pieces():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.setsockopt(17, 103, 100)
    s.sendto(bytes(1000), (far4, 4001))
insist(lambda: all_of(lambda: connected.send(b"c"), many, corked, routed, pieces,
                      lambda: loose_one.sendto(b"x", socket.MSG_CONFIRM if hasattr(socket, "MSG_CONFIRM") else 0, (far4, 4001))))
"""


@pytest.mark.usefixtures("ears")
def test_udp_forms(loose: Callable[..., Loose], user: str, far: FarSide, counter: Counter) -> None:
    script = loose(SCRIPT, far.near_device, far.far4, user=user)
    assert contained(script, counter, arrive=8)["cut"] != "done"
