"""How tunnels wrap what they carry: nothing, a WebSocket's frames, numbered streams. Both ends use it."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator


class Plain:
    """Bytes as they are: one stream."""

    def wrap(self, _stream: int, data: bytes) -> bytes:
        return data

    def unwrap(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        yield 0, data


class WebSocket:
    """RFC 6455 binary frames, masked as a client's are: 6, 8 or 14 bytes more, and none of them as it was."""

    def __init__(self) -> None:
        self._buffer = b""

    def wrap(self, _stream: int, data: bytes) -> bytes:
        n, mask = len(data), os.urandom(4)
        size = (
            bytes([0x80 | n]) if n < 126 else struct.pack("!BH", 0xFE, n) if n < 65536 else struct.pack("!BQ", 0xFF, n)
        )
        return b"\x82" + size + mask + _masked(data, mask)

    def unwrap(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        self._buffer += data
        while len(self._buffer) >= 2:
            n, at = self._buffer[1] & 0x7F, 2
            if n >= 126:
                form = "!H" if n == 126 else "!Q"
                at += struct.calcsize(form)
                if len(self._buffer) < at:
                    return
                (n,) = struct.unpack_from(form, self._buffer, 2)
            if len(self._buffer) < at + 4 + n:
                return
            mask, body = self._buffer[at : at + 4], self._buffer[at + 4 : at + 4 + n]
            self._buffer = self._buffer[at + 4 + n :]
            yield 0, _masked(body, mask)


def _masked(data: bytes, mask: bytes) -> bytes:
    pad = (mask * (len(data) // 4 + 1))[: len(data)]
    return (int.from_bytes(data) ^ int.from_bytes(pad)).to_bytes(len(data)) if data else b""


class Streams:
    """Numbered streams over one connection: a header of 12 bytes, as yamux has. No data: the stream begins, or ends."""

    def __init__(self) -> None:
        self._buffer = b""

    def wrap(self, stream: int, data: bytes) -> bytes:
        return struct.pack("!BBHII", 0, 0, 0, stream, len(data)) + data

    def unwrap(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        self._buffer += data
        while len(self._buffer) >= 12:
            stream, n = struct.unpack_from("!II", self._buffer, 4)
            if len(self._buffer) < 12 + n:
                return
            body, self._buffer = self._buffer[12 : 12 + n], self._buffer[12 + n :]
            yield stream, body


KINDS = {"plain": Plain, "websocket": WebSocket, "streams": Streams}
HEADER = struct.Struct("!II")  # of the service inside: how much follows, and how much to answer


def read_exactly(sock: socket.socket, n: int) -> bytes:
    parts = []
    while n:
        got = sock.recv(min(n, 1 << 20))
        if not got:
            raise ConnectionError("closed")
        parts.append(got)
        n -= len(got)
    return b"".join(parts)
