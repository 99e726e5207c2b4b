"""Counting at the far side: what really came over the wire, by the kernel's own time of arrival."""

from __future__ import annotations

import select
import selectors
import socket
import struct
import threading
import time
from collections import deque
from dataclasses import dataclass

from tests.rig.emulated import patience
from tests.rig.netns import FarSide

ETH_P_ALL = 0x0003
SO_TIMESTAMPNS = 35
PACKET_OUTGOING = 4
ICMPV6_NEIGHBOUR = range(133, 138)  # router and neighbour discovery: the host's, not a workload's
ICMPV6_MLD = (130, 131, 132, 143)
FIN, SYN, RST, ACK = 1, 2, 4, 16


@dataclass(frozen=True, slots=True)
class Packet:
    unix_ns: int  # when it arrived over there
    version: int  # 4 or 6
    protocol: int  # IP protocol number
    source_port: int
    destination_port: int
    reset: bool  # a bare TCP RST: the host's answer for a connection that no longer exists, not a workload's packet
    flags: int = 0  # of TCP
    size: int = 0  # bytes of the frame
    payload: int = 0  # bytes behind TCP's header

    @property
    def connection(self) -> tuple[int, int, int]:
        return self.version, self.source_port, self.destination_port

    def __str__(self) -> str:
        name = {socket.IPPROTO_TCP: "TCP", socket.IPPROTO_UDP: "UDP"}.get(self.protocol, f"protocol {self.protocol}")
        letters = "".join(c for n, c in enumerate("FSRPAU") if self.flags >> n & 1)
        return f"IPv{self.version} {name} {self.source_port}>{self.destination_port} {letters} {self.size} bytes"


def parse(frame: bytes, unix_ns: int, size: int = 0) -> Packet | None:
    """Read an Ethernet frame's IP packet (its first bytes are enough; ``size`` is of all of it); None for what the host
    sends by itself (ARP, neighbour discovery, MLD)."""
    kind = int.from_bytes(frame[12:14])
    if kind == 0x0800 and len(frame) >= 34:
        version, protocol, body = 4, frame[23], 14 + (frame[14] & 15) * 4
    elif kind == 0x86DD and len(frame) >= 54:
        version, protocol, body = 6, frame[20], 54
        if protocol == 0:  # hop-by-hop options: MLD reports
            return None
    else:
        return None
    if protocol == socket.IPPROTO_ICMPV6 and frame[body] in (*ICMPV6_NEIGHBOUR, *ICMPV6_MLD):
        return None
    if protocol in (socket.IPPROTO_TCP, socket.IPPROTO_UDP):
        source, destination = struct.unpack_from("!HH", frame, body)
        if protocol == socket.IPPROTO_UDP:
            return Packet(unix_ns, version, protocol, source, destination, False, 0, size)
        flags, payload = frame[body + 13], size - body - (frame[body + 12] >> 4) * 4
        return Packet(unix_ns, version, protocol, source, destination, bool(flags & RST), flags, size, payload)
    return Packet(unix_ns, version, protocol, 0, 0, False, 0, size)


class Counter:
    """Keeps every packet that arrives at the far side, from its start until it is closed. ``at_near``: that arrives here from
    there."""

    def __init__(self, far: FarSide, *, at_near: bool = False) -> None:
        self.packets: deque[Packet] = deque(maxlen=2_000_000)
        self.farewells = 0  # see _is_farewell: they are not among the packets
        self._closed: set[tuple[int, int, int]] = set()  # connections that this side has closed
        made = socket.socket if at_near else far.open_socket
        self._socket = made(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self._socket.bind((far.near_device if at_near else far.far_device, ETH_P_ALL))
        self._socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE: the counter must not lose any itself
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            if not select.select([self._socket], [], [], 0.05)[0]:
                continue
            frame, ancillary, _flags, address = self._socket.recvmsg(2048, 64)
            if address[2] == PACKET_OUTGOING:  # what the far side itself sends
                continue
            stamp = next((a[2] for a in ancillary if a[1] == SO_TIMESTAMPNS), None)
            seconds, nanoseconds = struct.unpack("qq", stamp) if stamp else divmod(time.time_ns(), 10**9)
            packet = parse(frame, seconds * 10**9 + nanoseconds, len(frame))
            if packet is None:
                continue
            if self._is_farewell(packet):
                self.farewells += 1
            else:
                self.packets.append(packet)

    def _is_farewell(self, p: Packet) -> bool:
        """The host's own acknowledgement that the far side has closed, too, for a connection that its owner had closed before
        (TIME_WAIT): empty, without an owner, and like a bare reset no packet of a workload."""
        if p.protocol != socket.IPPROTO_TCP:
            return False
        if p.flags & SYN:
            self._closed.discard(p.connection)
        elif p.flags & FIN:
            self._closed.add(p.connection)
        elif p.flags == ACK and not p.payload:
            return p.connection in self._closed
        return False

    def since(self, unix_ns: int) -> list[Packet]:
        """Packets of a workload that arrived later than ``unix_ns`` (time.time_ns()); the host's bare resets are left out."""
        return [p for p in list(self.packets) if p.unix_ns > unix_ns and not p.reset]

    def wait_for(self, count: int = 1, *, seconds: float = 5.0, since: int = 0) -> list[Packet]:
        """Wait until ``count`` packets have come since then. Raises TimeoutError when they do not."""
        end = time.monotonic() + patience(seconds)
        while len(found := self.since(since)) < count:
            if time.monotonic() > end:
                raise TimeoutError(f"only {len(found)} of {count} packets reached the far side in {seconds} s")
            time.sleep(0.005)
        return found

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._socket.close()

    def __enter__(self) -> Counter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Sink:
    """Takes in whatever comes to a port over there, TCP or UDP, IPv4 or IPv6, and says nothing."""

    def __init__(
        self, far: FarSide, *, family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM, port: int = 0
    ) -> None:
        self._listener = far.listen(port, family=family, kind=kind)
        self.address: tuple[str, int] = self._listener.getsockname()[:2]
        self.received = 0
        self.accepted = 0
        self._stream = kind == socket.SOCK_STREAM
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        # What was cut off over here is never closed over there: there may be thousands, more than select(2) takes.
        with selectors.DefaultSelector() as open_:
            open_.register(self._listener, selectors.EVENT_READ)
            while not self._stop.is_set():
                for key, _ in open_.select(0.05):
                    self._take(open_, key.fileobj)
            for key in list(open_.get_map().values()):
                assert isinstance(key.fileobj, socket.socket)
                key.fileobj.close()

    def _take(self, open_: selectors.BaseSelector, ready: object) -> None:
        assert isinstance(ready, socket.socket)
        if ready is self._listener and self._stream:
            open_.register(ready.accept()[0], selectors.EVENT_READ)
            self.accepted += 1
            return
        try:
            data = ready.recv(65536)
        except OSError:
            data = b""
        self.received += len(data)
        if not data and self._stream:
            open_.unregister(ready)
            ready.close()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()

    def __enter__(self) -> Sink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
