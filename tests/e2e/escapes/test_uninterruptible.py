"""A process that the freezer cannot stop, because it waits in the kernel for a page that never comes: the tree is killed."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from killswitch.commands import Step
from tests.e2e.conftest import Daemon
from tests.e2e.escapes.loose import Loose, quiet
from tests.rig.farside import Counter
from tests.rig.netns import FarSide

SCRIPT = """
import fcntl, mmap
target = sys.argv[1]
fault = libc.syscall(323, os.O_CLOEXEC | os.O_NONBLOCK)
if fault < 0:
    say("none", errno.errorcode[ctypes.get_errno()])
else:
    fcntl.ioctl(fault, 0xC018AA3F, struct.pack("=QQQ", 0xAA, 0, 0))
    libc.mmap.restype = ctypes.c_void_p
    page = libc.mmap(None, ctypes.c_size_t(4096), 3, 0x22, -1, ctypes.c_long(0))
    fcntl.ioctl(fault, 0xC020AA00, bytearray(struct.pack("=QQQQ", page, 4096, 1, 0)))
    if os.fork() == 0:
        out, into = os.pipe()
        libc.write(into, ctypes.c_void_p(page), 100)
        os._exit(0)
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.sendto(b"x", (target, 4001))
time.sleep(0.05)
go()
"""


def test_uninterruptible(loose: Callable[..., Loose], far: FarSide, counter: Counter, shared_daemon: Daemon) -> None:
    """Of root: a user's page faults inside the kernel are not handed to it."""
    script = loose(SCRIPT, far.far4)
    script.ready()
    if why := script.said.get("none"):
        pytest.skip(f"this kernel has no userfaultfd: {why}")
    counter.wait_for(1)
    order = shared_daemon.client.kill(script.name, "escape test")
    since = time.time_ns()
    assert order.complete
    [freeze] = [r for r in order.receipts if r.step is Step.FREEZE]
    assert freeze.proof["frozen"] == 1 or (freeze.proof["fallback"], freeze.proof["populated"]) == ("killed", 0)
    assert quiet(counter, since)
