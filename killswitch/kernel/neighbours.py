"""Packets that wait for the address of their next hop: the kernel keeps them at the neighbour's entry, for seconds, behind every
program that could drop them, until somebody there answers. No socket has them any more, so destroying those does not help.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator

from killswitch.kernel import netns, syscalls

_NEW, _DELETE, _GET = 28, 29, 30  # RTM_*NEIGH
_ERROR, _DONE = 2, 3
_REQUEST, _ACK, _REPLACE, _DUMP = 1, 4, 0x100, 0x300
_NDA_DST = 1
_INCOMPLETE = 0x01  # NUD_*: it has been asked for, and nobody has answered. In every other state nothing waits.
_HEADER = struct.Struct("=IHHII")  # nlmsghdr
_NEIGHBOUR = struct.Struct("=BxxxiHBB")  # ndmsg: family, device, state, flags, type
_GONE = (0, errno.ENOENT, errno.ENODEV, errno.ENXIO)
_BATCH = 64


def drop_waiting(namespace_fd: int | None = None) -> int:
    """Drop what waits, in this network namespace (None: our own), for neighbours that have not answered: for how many.

    Whoever else has sent to one of those sends again, as after any loss: to him nothing is reported. Raises KernelError.
    """
    kind = (socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    try:
        ours = socket.socket(*kind) if namespace_fd is None else netns.socket_in(namespace_fd, *kind)
    except OSError as e:
        raise syscalls.error("open NETLINK_ROUTE", e) from e
    with ours:
        ours.settimeout(2.0)  # the kernel answers at once, or never
        try:
            found = list(_unresolved(ours))
            for first in range(0, len(found), _BATCH):
                _forget(ours, found[first : first + _BATCH])
        except OSError as e:
            raise syscalls.error("drop what waits for a neighbour's address", e) from e
    return len(found)


def _unresolved(ours: socket.socket) -> Iterator[tuple[int, int, bytes]]:
    """(family, device, address) of each."""
    body = _NEIGHBOUR.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
    ours.send(_HEADER.pack(_HEADER.size + len(body), _GET, _REQUEST | _DUMP, 1, 0) + body)
    while True:
        for kind, _, payload in _messages(ours.recv(1 << 18)):
            if kind == _DONE:
                return
            if kind == _ERROR:
                raise OSError(-struct.unpack_from("=i", payload)[0], "list neighbours")
            family, device, state, _, _ = _NEIGHBOUR.unpack_from(payload)
            address = _address(payload)
            if state & _INCOMPLETE and address and family in (socket.AF_INET, socket.AF_INET6):
                yield family, device, address


def _address(payload: bytes) -> bytes:
    offset = _NEIGHBOUR.size
    while offset + 4 <= len(payload):
        length, kind = struct.unpack_from("=HH", payload, offset)
        if kind == _NDA_DST:
            return payload[offset + 4 : offset + length]
        offset += max(4, length + 3 & ~3)
    return b""


def _forget(ours: socket.socket, neighbours: list[tuple[int, int, bytes]]) -> None:
    """The entry is deleted, and what waits at it with it. One that is deleted while it is asked for tells whoever waits that
    there is no such host; one that was first set to no state at all goes quietly."""
    packet = b""
    for number, (family, device, address) in enumerate(neighbours):
        body = _NEIGHBOUR.pack(family, device, 0, 0, 0) + struct.pack("=HH", 4 + len(address), _NDA_DST) + address
        length = _HEADER.size + len(body)
        packet += _HEADER.pack(length, _NEW, _REQUEST | _REPLACE, 0, 0) + body
        packet += _HEADER.pack(length, _DELETE, _REQUEST | _ACK, number + 1, 0) + body
    ours.send(packet)
    left = len(neighbours)
    while left:
        for kind, number, payload in _messages(ours.recv(1 << 18)):
            if kind != _ERROR or not number:
                continue  # of the first of two: what matters is whether the entry is gone
            left -= 1
            if (code := -struct.unpack_from("=i", payload)[0]) not in _GONE:
                raise OSError(code, "delete a neighbour that has not answered")


def _messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(type, sequence, payload) of each in a datagram."""
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, _, sequence, _ = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size:
            return
        yield kind, sequence, data[offset + _HEADER.size : offset + length]
        offset += length + 3 & ~3
