"""AF_PACKET goes past programs on a cgroup, which see inet sockets only: so CAP_NET_RAW is taken."""

from __future__ import annotations

from collections.abc import Callable

from tests.e2e.escapes.conftest import Inside, silent
from tests.rig.farside import Counter
from tests.rig.netns import FarSide

SCRIPT = """
device, source, target = sys.argv[1:]
def frame():
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28, 1, 0, 64, 17, 0, socket.inet_aton(source), socket.inet_aton(target))
    return b"\\xff" * 6 + b"\\x02" * 6 + b"\\x08\\x00" + ip + struct.pack("!HHHH", 4000, 4001, 8, 0)
def send(kind):
    with socket.socket(socket.AF_PACKET, kind, 0) as s:
        s.bind((device, 0x0800))
        s.send(frame())
attempt("raw", lambda: send(socket.SOCK_RAW))
attempt("dgram", lambda: send(socket.SOCK_DGRAM))
attempt("xdp", lambda: socket.socket(44, socket.SOCK_RAW, 0))
"""


def test_packet_socket(inside: Callable[..., Inside], user: str, far: FarSide, counter: Counter) -> None:
    tried = inside(SCRIPT, far.near_device, far.near4, far.far4, user=user).results()
    assert tried == {"raw": "EPERM", "dgram": "EPERM", "xdp": "EPERM"}
    assert silent(counter, 0)


def test_it_would_get_out_with_the_capability(inside: Callable[..., Inside], far: FarSide, counter: Counter) -> None:
    """So the attempt is a real one; and --cap-add is by name."""
    tried = inside(SCRIPT, far.near_device, far.near4, far.far4, options=("--cap-add", "net_raw")).results()
    assert tried["raw"] == "done"
    assert counter.wait_for(1)
