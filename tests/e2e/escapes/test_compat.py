"""System calls of 32 bits, from a 64-bit program too: of an option that such a call sets, programs on a cgroup are not told. One
joins a multicast group, which the kernel reports by name; one has frames go past the queue."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable

import pytest

from killswitch.kernel import compat
from tests.e2e.conftest import Daemon
from tests.e2e.escapes.loose import Loose, judge, quiet
from tests.e2e.escapes.test_multicast_join import named, reports
from tests.rig.farside import Counter
from tests.rig.netns import FarSide

# i386's setsockopt(2), by the interrupt of 32-bit programs: a function of five 32-bit numbers, in memory below 4 GiB.
SETSOCKOPT = """
libc.mmap.restype = ctypes.c_void_p
low = libc.mmap(None, 8192, 7, 0x62, -1, 0)                # MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT
# push %rbx; mov %edi, %ebx; mov %esi, %r9d; mov %ecx, %esi; mov %r9d, %ecx; mov %r8d, %edi; mov $366, %eax; int $0x80; pop; ret
code = bytes.fromhex("53 89fb 4189f1 89ce 4489c9 4489c7 b86e010000 cd80 5b c3")
ctypes.memmove(low, code, len(code))
function = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_uint] * 5)(low)
def setsockopt(s, level, option, value):
    ctypes.memmove(low + 4096, value, len(value))
    result = function(s.fileno(), level, option, low + 4096, len(value))
    if result < 0:
        raise OSError(-result, "setsockopt")
"""
JOIN = (
    SETSOCKOPT
    + """
near4, device = sys.argv[1:]
four, six = (socket.socket(f, socket.SOCK_DGRAM) for f in (socket.AF_INET, socket.AF_INET6))
index = struct.pack("=I", socket.if_nametoindex(device))
def join(number):
    group6 = b"\\xff\\x05" + bytes(11) + bytes((7, 7, number))
    setsockopt(four, socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, bytes((239, 7, 7, number)) + socket.inet_aton(near4))
    setsockopt(six, socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group6 + index)
attempt("free", lambda: join(1))
go()
attempt("cut", lambda: join(2))
"""
)
BYPASS = (
    SETSOCKOPT
    + """
device, = sys.argv[1:]
packet = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
packet.bind((device, 0))
frame = bytes.fromhex("ffffffffffff 020202020202 0800 4500001c00010000401100000a0000010a000002 0fa00fa100080000") + bytes(20)
def send():
    setsockopt(packet, 263, 20, struct.pack("=I", 1))    # PACKET_QDISC_BYPASS
    packet.send(frame)
attempt("free", send)
go()
attempt("cut", send)
"""
)
pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64" or not compat.runs(),
    reason="this kernel makes no 32-bit calls of this machine's kind",
)


def test_a_group_is_joined(loose: Callable[..., Loose], user: str, far: FarSide, shared_daemon: Daemon) -> None:
    with reports(far) as frames:
        script = loose(JOIN, far.near4, far.near_device, user=user)
        script.ready()
        shared_daemon.wait_for("free, it is reported", lambda: named(frames, 1) == {4, 6})
        script.sever()
        script.go()
        said = script.results()
        end = time.monotonic() + 10
        while not named(frames, 2) and time.monotonic() < end:
            time.sleep(0.02)
        judge(shared_daemon, "no_compat_options", named(frames, 2) and said)


def test_frames_past_the_queue(
    loose: Callable[..., Loose], far: FarSide, counter: Counter, shared_daemon: Daemon
) -> None:
    """What had that before the cut is set back then. An LSM of ours, which refuses the socket, is told all the same."""
    script = loose(BYPASS, far.near_device)
    script.ready()
    counter.wait_for(1)
    since = script.sever()
    script.go()
    said = script.results()
    left = [] if quiet(counter, since) else counter.since(since)
    judge(shared_daemon, "no_compat_options", left and said, always=False)
