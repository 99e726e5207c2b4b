"""Records of the wire into events."""

from __future__ import annotations

import dataclasses

import pytest

from killswitch.events import Done, Transport, Wire
from killswitch.kernel import abi
from killswitch.kernel.decode import decode
from tests.unit.kernel.test_abi_decode import record

V4 = bytes([192, 0, 2, 1]) + bytes(12)


def wire_record(
    *,
    protocol: int = 6,
    direction: int = 0,
    kind: abi.NameKind = abi.NameKind.NONE,
    name: bytes = b"",
    outbound: int = 1,
) -> bytes:
    return record(
        abi.WIRE, abi.Kind.WIRE, (1 << 200 | 2).to_bytes(32, "little"), V4, b"python3\0junk", 1000, 3, 9, 777, 443, 2, protocol,
        direction, 6, 1, 4, 2, outbound, kind, len(name), b"SSH-beyond", b"OKbeyond", name + b"beyond",
    )  # fmt: skip


PLAIN = Wire(
    111, 222, 333, 55, 444, 1000, b"python3", Transport.TCP, "192.0.2.1", 443, "sent", b"SSH-", b"OK", 1 << 200 | 2, True, 9, 3,
    Done.DENIED | Done.SEVERED, 777,
)  # fmt: skip


def test_first_bytes_end_where_they_ended() -> None:
    assert decode(wire_record(), 8) == PLAIN


def test_the_other_way() -> None:
    expected = dataclasses.replace(PLAIN, direction="received", transport=Transport.UDP, outbound=False)
    assert decode(wire_record(protocol=17, direction=1, outbound=0), 8) == expected


@pytest.mark.parametrize(
    ("kind", "raw", "question", "server"),
    [
        (abi.NameKind.QUESTION, b"a.example", b"a.example", b""),
        (abi.NameKind.SERVER, b"a.example", b"", b"a.example"),
        (abi.NameKind.RAW_QUESTION, b"\1a\7example\0\0\1\0\1", b"a.example", b""),
        (abi.NameKind.RAW_QUESTION, b"\1a\7exam", b"a.exam", b""),  # the datagram ends there
        (abi.NameKind.RAW_QUESTION, b"\1a\xc0\x0c", b"a", b""),
        (abi.NameKind.RAW_QUESTION, b"", b"", b""),
    ],
)
def test_names(kind: abi.NameKind, raw: bytes, question: bytes, server: bytes) -> None:
    event = decode(wire_record(kind=kind, name=raw), 8)
    assert isinstance(event, Wire)
    assert (event.question, event.server_name) == (question, server)
