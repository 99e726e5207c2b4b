"""Names on the wire, made and read: DNS queries and TLS ClientHellos, written plainly and apart from the data plane's reader."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

NO_QUERY = 0xF800
CLIENT_HELLO = 1
MAX_QUESTIONS = 16


def query(*names: str, flags: int = 0x0100, edns: bool = False, identifier: int = 0x1234) -> bytes:
    """A DNS query for the addresses of these names."""
    head = struct.pack(">6H", identifier, flags, len(names), 0, 0, int(edns))
    questions = b"".join(encoded(name) + struct.pack(">2H", 1, 1) for name in names)
    return head + questions + (b"\0\0\x29\x04\xd0\0\0\0\0\0\0" if edns else b"")


def encoded(name: str) -> bytes:
    labels = (label.encode() for label in name.split(".") if label)
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def over_tcp(*messages: bytes) -> bytes:
    return b"".join(struct.pack(">H", len(m)) + m for m in messages)


def extension(kind: int, data: bytes) -> bytes:
    return struct.pack(">2H", kind, len(data)) + data


def server_name(name: str) -> bytes:
    raw = name.encode()
    entry = b"\0" + struct.pack(">H", len(raw)) + raw
    return extension(0, struct.pack(">H", len(entry)) + entry)


def client_hello(extensions: Iterable[bytes], *, session: bytes = bytes(32), record: int = 16384) -> bytes:
    """A ClientHello with these extensions, in records of at most ``record`` bytes."""
    listed = b"".join(extensions)
    body = b"\3\3" + bytes(32) + bytes([len(session)]) + session + b"\0\4\x13\1\x13\2" + b"\1\0"
    body += struct.pack(">H", len(listed)) + listed
    message = bytes([CLIENT_HELLO]) + len(body).to_bytes(3, "big") + body
    parts = [message[at : at + record] for at in range(0, len(message), record)]
    return b"".join(b"\x16\3\1" + struct.pack(">H", len(part)) + part for part in parts)


def questions(message: bytes) -> list[bytes]:
    """The names that a DNS query asks for, up to where it cannot be read. None of what is no query."""
    if len(message) < 17:
        return []
    _, flags, count = struct.unpack_from(">3H", message)
    if flags & NO_QUERY or not 0 < count <= MAX_QUESTIONS:
        return []
    found, at = [], 12
    for _ in range(count):
        labels = []
        while True:
            if at >= len(message) or message[at] > 63:
                return found
            length, at = message[at], at + 1
            if not length:
                break
            if at + length > len(message):
                return found
            labels.append(message[at : at + length])
            at += length
        found.append(b".".join(labels))
        at += 4
    return found


def questions_over_tcp(stream: bytes) -> list[bytes]:
    found: list[bytes] = []
    while len(stream) > 2:
        (length,) = struct.unpack_from(">H", stream)
        whole = stream[2 : 2 + length]
        if length < 17 or (len(whole) > 5 and not _is_query(whole)):
            break
        found += questions(whole.ljust(17, b"\xff"))
        if len(whole) < length or len(questions(whole)) < struct.unpack_from(">H", whole, 4)[0]:
            break
        stream = stream[2 + length :]
    return found


def _is_query(message: bytes) -> bool:
    _, flags, count = struct.unpack_from(">3H", message)
    return not flags & NO_QUERY and 0 < count <= MAX_QUESTIONS


def hello_name(stream: bytes) -> bytes:
    """The server's name in a TLS ClientHello, b"" when there is none, or not yet."""
    message, at = b"", 0
    while at + 5 <= len(stream) and stream[at] == 0x16 and stream[at + 1] == 3:
        (length,) = struct.unpack_from(">H", stream, at + 3)
        if not 0 < length <= 18432:
            break
        message += stream[at + 5 : at + 5 + length]
        at += 5 + length
    try:
        return _name_of(message)
    except IndexError:
        return b""


def _name_of(message: bytes) -> bytes:
    if message[0] != CLIENT_HELLO:
        return b""
    at = 4 + 34
    at += 1 + message[at]
    at += 2 + _short(message, at)
    at += 1 + message[at]
    left, at = _short(message, at), at + 2
    while left >= 4:
        kind, length = _short(message, at), _short(message, at + 2)
        if kind:
            left, at = left - 4 - length, at + 4 + length
            continue
        if message[at + 6]:
            return b""
        size = _short(message, at + 7)
        name = message[at + 9 : at + 9 + size]
        return name.removesuffix(b".") if len(name) == size else b""
    return b""


def _short(data: Sequence[int], at: int) -> int:
    return data[at] << 8 | data[at + 1]
