"""What came over the wire, counted where it arrived: payload bytes by destination, and whom the workload tried to reach."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass, field
from ipaddress import ip_address

ETH_P_ALL = 0x0003
SO_TIMESTAMPNS = 35
PACKET_OUTGOING = 4
_TIMESPEC = struct.Struct("qq")
SNAP = 128  # bytes of a frame that are looked at: the headers


@dataclass(slots=True)
class Tally:
    bytes: int = 0  # of TCP or UDP payload
    packets: int = 0
    first_unix_ns: int = 0  # of payload
    last_unix_ns: int = 0


@dataclass(slots=True)
class Seen:
    """By (address, protocol, port) of the destination; port 0 where the protocol has none."""

    tallies: dict[tuple[str, int, int], Tally] = field(default_factory=dict)

    def add(self, frame: bytes, unix_ns: int) -> None:
        parsed = destination(frame)
        if parsed is None:
            return
        *where, payload, own = parsed
        if own:  # a reset for a connection that it has just cut
            return
        tally = self.tallies.setdefault((where[0], where[1], where[2]), Tally())
        tally.packets += 1
        if payload:
            tally.bytes += payload
            tally.first_unix_ns = tally.first_unix_ns or unix_ns
            tally.last_unix_ns = unix_ns


def destination(frame: bytes) -> tuple[str, int, int, int, bool] | None:
    """(address, protocol, port, payload bytes, own answer of the host) of an Ethernet frame; None for what no program sends."""
    kind = int.from_bytes(frame[12:14])
    if kind == 0x0800 and len(frame) >= 34:
        protocol, start = frame[23], 14 + (frame[14] & 15) * 4
        end, address = 14 + int.from_bytes(frame[16:18]), frame[30:34]
    elif kind == 0x86DD and len(frame) >= 54:
        protocol, start = frame[20], 54
        end, address = 54 + int.from_bytes(frame[18:20]), frame[38:54]
        if protocol == 0 or (
            protocol == socket.IPPROTO_ICMPV6 and frame[54] >= 130
        ):  # neighbour and listener discovery
            return None
    else:
        return None
    where = str(ip_address(address))
    if protocol == socket.IPPROTO_TCP and len(frame) >= start + 14:
        port = int.from_bytes(frame[start + 2 : start + 4])
        return where, protocol, port, max(0, end - start - (frame[start + 12] >> 4) * 4), bool(frame[start + 13] & 4)
    if protocol == socket.IPPROTO_UDP and len(frame) >= start + 8:
        return where, protocol, int.from_bytes(frame[start + 2 : start + 4]), max(0, end - start - 8), False
    # Nobody listens (any more) at a port that datagrams come to: that is the host's own answer, too.
    unreachable = (protocol, frame[start : start + 2]) in (
        (socket.IPPROTO_ICMP, b"\3\3"),
        (socket.IPPROTO_ICMPV6, b"\1\4"),
    )
    return where, protocol, 0, max(0, end - start - 8), unreachable


def open_capture(device: str) -> socket.socket:
    """A packet socket that does not lose: with the largest buffer, and non-blocking."""
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    made.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
    made.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)  # when it came, not when we got round to it
    made.bind((device, ETH_P_ALL))
    made.setblocking(False)
    return made


def drain(capture: socket.socket, seen: Seen, limit: int = 256) -> None:
    """Take in what is waiting, at most ``limit`` frames."""
    for _ in range(limit):
        try:
            frame, ancillary, _flags, address = capture.recvmsg(SNAP, 64)
        except BlockingIOError:
            return
        if address[2] != PACKET_OUTGOING:
            seconds, nanoseconds = next(_TIMESPEC.unpack(data) for _, kind, data in ancillary if kind == SO_TIMESTAMPNS)
            seen.add(frame, seconds * 10**9 + nanoseconds)


def drops(capture: socket.socket) -> int:
    """Frames lost since the last question (PACKET_STATISTICS)."""
    return int(struct.unpack("II", capture.getsockopt(263, 6, 8))[1])
