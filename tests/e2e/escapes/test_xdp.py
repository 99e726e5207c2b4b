"""AF_XDP: its frames are seen neither by programs on a cgroup nor by those at the devices. None is set up after the cut, and
who has one at the cut ends."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.conftest import Daemon
from tests.e2e.escapes.conftest import silent
from tests.e2e.escapes.test_packet_socket import FRAME, Elsewhere
from tests.rig.farside import Counter
from tests.rig.island import Island, has_xdp

SCRIPT = (
    FRAME
    + """
import mmap
SIZE = 65536
memory = mmap.mmap(-1, SIZE)
def set_up():
    s = socket.socket(44, socket.SOCK_RAW, 0)
    at = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    s.setsockopt(283, 4, struct.pack("=QQIII4x", at, SIZE, 2048, 0, 0))   # XDP_UMEM_REG
    for ring in (5, 6, 3):                                                # fill, completion, TX
        s.setsockopt(283, ring, 64)
    # Its receive side is not used: of what comes in, the host gets its own.
    offsets = struct.unpack("=16Q", s.getsockopt(283, 1, 128))
    producer, _, desc, _ = offsets[4:8]
    ring = mmap.mmap(s.fileno(), desc + 64 * 16, flags=mmap.MAP_SHARED, offset=0x80000000)
    name = struct.pack("=HHIII", 44, 2, socket.if_nametoindex(device), 0, 0)  # XDP_COPY
    call("bind", s.fileno(), name, len(name))
    return s, ring, producer, desc
def send(made, number):
    s, ring, producer, desc = made
    memory[:len(frame())] = frame()
    struct.pack_into("=QII", ring, desc + 16 * number, 0, len(frame()), 0)
    struct.pack_into("=I", ring, producer, number + 1)
    call("sendto", s.fileno(), None, 0, socket.MSG_DONTWAIT, None, 0)
told = os.pipe()
if os.fork():
    # The parent has none: it goes on, and tries to make one later.
    os.read(told[0], 1)
    go()
    attempt("after the cut", set_up)
else:
    call("prctl", 1, 9)  # end with the parent
    made = set_up()
    attempt("free", lambda: send(made, 0))
    os.write(told[1], b"x")
    import time
    number = 1
    while True:
        time.sleep(0.01)
        if number < 60:
            try:
                send(made, number)
            except OSError:
                pass                                       # an LSM refuses it: the ring is there all the same
            number += 1
"""
)


@pytest.fixture
def island() -> Iterator[Island]:
    if not has_xdp():
        pytest.skip("this kernel has no AF_XDP")
    with Island() as made:
        yield made


def test_xdp(shared_daemon: Daemon, island: Island) -> None:
    with Counter(island) as counter:
        script = Elsewhere(shared_daemon, island, SCRIPT, island.near_device, island.near4, island.far4)
        try:
            script.ready()
            assert script._said["free"] == "done"
            counter.wait_for(2)
            result = shared_daemon.client.sever(script.name, "escape test")
            assert result.complete
            (destroyed,) = (r for r in result.receipts if r.step == "destroy_sockets")
            assert destroyed.proof["ended_holders"] == 1
            assert destroyed.proof["held_xdp"] == 1
            last = counter.packets[-1].unix_ns
            assert silent(counter, last)
            script.go()
            tried = script.results()
            assert tried["after the cut"] == "EPERM", tried
        finally:
            script.end()
