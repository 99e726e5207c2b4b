"""The records of fanotify: ours are read back, broken ones never raise, and nothing is read past its end."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from killswitch.kernel import fanotify
from killswitch.kernel.fanotify import Node, Record, parse

METADATA = struct.Struct("=IBBHQii")


def info(kind: int, fsid: int, handle: bytes, name: bytes | None) -> bytes:
    body = struct.pack("=QIi", fsid, len(handle), 1) + handle + (b"" if name is None else name + b"\0")
    body += b"\0" * (-(4 + len(body)) % 4)
    return struct.pack("=BBH", kind, 0, 4 + len(body)) + body


def event(mask: int, pid: int, *infos: bytes, version: int = 3) -> bytes:
    body = b"".join(infos)
    return METADATA.pack(METADATA.size + len(body), version, 0, METADATA.size, mask, -1, pid) + body


names = st.binary(min_size=1, max_size=255).filter(lambda n: b"\0" not in n and n != b".")
handles = st.binary(max_size=128)
others = st.builds(
    lambda k, b: struct.pack("=BBH", k, 0, 4 + len(b)) + b, st.sampled_from([1, 4, 9]), st.binary(max_size=40)
)


@given(
    st.lists(st.tuples(st.integers(0, 2**32), st.integers(0, 2**31 - 1), handles, names, st.lists(others, max_size=2)))
)
def test_what_the_kernel_writes_is_read_back(events: list[tuple[int, int, bytes, bytes, list[bytes]]]) -> None:
    raw = b"".join(event(mask, pid, *more, info(2, 7, handle, name)) for mask, pid, handle, name, more in events)
    assert list(parse(raw)) == [Record(m, p, Node(7, 1, h), n) for m, p, h, n, _ in events]


def test_a_directory_itself_and_an_overflow() -> None:
    raw = event(0x40000400, 5, info(2, 7, b"h", b".")) + event(fanotify.OVERFLOW, 0)
    assert list(parse(raw)) == [Record(0x40000400, 5, Node(7, 1, b"h"), b""), Record(fanotify.OVERFLOW, 0, None, b"")]


def test_another_version_of_records_is_not_guessed_at() -> None:
    assert list(parse(event(1, 1, version=4))) == []


@given(st.binary(max_size=400))
def test_no_bytes_raise_or_hang(raw: bytes) -> None:
    assert len(list(parse(raw))) <= len(raw) // METADATA.size


@given(names, handles, st.data())
def test_broken_records_neither_raise_nor_reach_past_their_end(name: bytes, handle: bytes, data: st.DataObject) -> None:
    raw = bytearray(event(2, 1, info(2, 7, handle, name)) + event(8, 2, info(2, 8, b"x", b"y")))
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(raw[: data.draw(st.integers(0, len(raw)))])
    for record in parse(cut):
        assert len(record.name) <= len(cut) and (record.node is None or len(record.node.handle) <= len(cut))
