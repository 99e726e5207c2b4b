"""The other end of the canary's network, in the daemon, over loopback: what comes from it is counted, and it is reached for.

Nothing is read in the background: who asks drains the sockets, so that what is counted came between two asks.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter
from dataclasses import dataclass, field

PATIENCE = 0.25  # seconds that a connection to the canary may take: over loopback an open one takes microseconds


def _datagrams(family: socket.AddressFamily, address: str) -> socket.socket:
    s = socket.socket(family, socket.SOCK_DGRAM)
    try:
        s.bind((address, 0))
    except OSError:
        s.close()
        raise
    s.setblocking(False)
    return s


@dataclass(slots=True)
class FarEnd:
    """Use as a context manager. ``forbidden`` counts the bytes of openings that begin with ``must_not_come``."""

    must_not_come: bytes
    forbidden: int = 0
    _door: socket.socket = field(init=False)
    _boxes: dict[str, socket.socket] = field(init=False)
    _flows: list[tuple[socket.socket, bytearray]] = field(default_factory=list)

    def __enter__(self) -> FarEnd:
        self._door = socket.create_server(("127.0.0.1", 0))
        self._door.setblocking(False)
        self._boxes = {"udp": _datagrams(socket.AF_INET, "127.0.0.1")}
        with contextlib.suppress(OSError):  # a host without IPv6 has nothing to prove about it
            self._boxes["udp6"] = _datagrams(socket.AF_INET6, "::1")
        return self

    def __exit__(self, *_: object) -> None:
        for s in (self._door, *self._boxes.values(), *(s for s, _ in self._flows)):
            s.close()

    @property
    def ports(self) -> tuple[int, int, int]:
        """TCP, UDP, UDP over IPv6 (0 = there is none here)."""
        v6 = self._boxes.get("udp6")
        return (
            self._door.getsockname()[1],
            self._boxes["udp"].getsockname()[1],
            v6.getsockname()[1] if v6 else 0,
        )

    @property
    def kinds(self) -> tuple[str, ...]:
        return ("tcp", *self._boxes)

    def drain(self) -> dict[str, int]:
        """What has come since the last call: bytes of flows, datagrams, connections that were opened."""
        came: Counter[str] = Counter(dict.fromkeys((*self.kinds, "opened"), 0))
        for kind, box in self._boxes.items():
            while True:
                try:
                    box.recv(64)
                except OSError:
                    break
                came[kind] += 1
        while True:
            try:
                flow, _ = self._door.accept()
            except OSError:
                break
            flow.setblocking(False)
            self._flows.append((flow, bytearray()))
            came["opened"] += 1
        self._flows = [(s, head) for s, head in self._flows if self._read(s, head, came)]
        return dict(came)

    def _read(self, s: socket.socket, head: bytearray, came: Counter[str]) -> bool:
        """Whether the flow may bring more."""
        while True:
            try:
                got = s.recv(65536)
            except BlockingIOError:
                return True
            except OSError:
                got = b""
            if not got:
                s.close()
                return False
            came["tcp"] += len(got)
            room = len(self.must_not_come) - len(head)
            if room > 0:
                head += got[:room]
            if head == self.must_not_come:
                self.forbidden += len(got)

    async def reaches(self, port: int) -> bool:
        """Whether a connection to this port of the canary is answered. Port 0: there is none to be reached."""
        if not port:
            return False
        with socket.socket() as s:
            s.setblocking(False)
            try:
                async with asyncio.timeout(PATIENCE):
                    await asyncio.get_running_loop().sock_connect(s, ("127.0.0.1", port))
            except (TimeoutError, OSError):
                return False
        return True

    def post(self, port: int, mark: bytes) -> None:
        """A datagram to the canary, unless its port is 0."""
        if not port:
            return
        with contextlib.suppress(OSError):
            self._boxes["udp"].sendto(mark, ("127.0.0.1", port))
