"""What a process left in a socket when it ended is still sent, by the kernel: until the cut."""

from __future__ import annotations

import fcntl
import socket
import struct
import termios
import time
from collections.abc import Callable

from tests.e2e.escapes.loose import Loose
from tests.rig.netns import FarSide

SCRIPT = """
target, port = sys.argv[1], int(sys.argv[2])
for _ in range(2):
    if os.fork() == 0:
        s = socket.create_connection((target, port))
        s.setblocking(False)
        try:
            while True:
                s.send(bytes(65536))
        except BlockingIOError:
            pass
        os._exit(0)
    os.wait()
go()
"""


def waits(connection: socket.socket) -> int:
    """Bytes that have arrived and were not read yet."""
    return struct.unpack("=i", fcntl.ioctl(connection, termios.FIONREAD, bytes(4)))[0]  # type: ignore[no-any-return]


def take(connection: socket.socket, seconds: float) -> int:
    total, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            total += len(connection.recv(1 << 20))
        except OSError:
            time.sleep(0.005)
    return total


def test_orphan(loose: Callable[..., Loose], user: str, far: FarSide) -> None:
    with far.listen() as listener:
        script = loose(SCRIPT, far.far4, listener.getsockname()[1], user=user)
        script.ready()
        first, second = listener.accept()[0], listener.accept()[0]
        with first, second:
            first.setblocking(False), second.setblocking(False)
            arrived = waits(first)
            assert take(first, 0.5) > arrived > 0, "free, the rest comes when there is room for it"
            script.kill()
            arrived = waits(second)
            assert take(second, 0.6) == arrived > 0
