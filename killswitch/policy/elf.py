"""Which bytes of an ELF file can become a program's memory: what there is to look at. Reads nothing by itself."""

from __future__ import annotations

import struct
from collections.abc import Callable

Read = Callable[[int, int], bytes]  # (offset, size) -> at most that many bytes
Span = tuple[int, int]  # (offset, size)

MAX_HEADERS = 64  # program headers; a linker makes about a dozen
_LOAD, _EXECUTABLE = 1, 1


def spans(read: Read, limit: int) -> tuple[Span, ...] | None:
    """The file's loaded parts, ``limit`` bytes in all: data first, code last, because a program's words are in its data.

    None for what is no ELF executable or library. A file whose headers make no sense has no parts: it does not run either.
    """
    head = read(0, 64)
    if len(head) < 52 or head[:4] != b"\x7fELF" or head[4] not in (1, 2) or head[5] not in (1, 2):
        return None
    order = "<" if head[5] == 1 else ">"
    wide = head[4] == 2
    if wide and len(head) < 64:
        return None
    table = struct.unpack_from(order + ("Q" if wide else "I"), head, 32 if wide else 28)[0]
    size, count = struct.unpack_from(order + "HH", head, 54 if wide else 42)
    if size < (56 if wide else 32) or table > 1 << 40:
        return ()
    raw = read(table, size * min(count, MAX_HEADERS))
    found: list[tuple[bool, int, int]] = []
    for at in range(0, len(raw) - size + 1, size):
        if wide:
            kind, flags, offset, _, _, length = struct.unpack_from(order + "IIQQQQ", raw, at)
        else:
            kind, offset, _, _, length, _, flags = struct.unpack_from(order + "IIIIIII", raw, at)
        if kind == _LOAD and length:
            found.append((bool(flags & _EXECUTABLE), offset, length))
    chosen: list[Span] = []
    for _, offset, length in sorted(found):
        length = min(length, limit)
        if length:
            chosen.append((offset, length))
            limit -= length
    return tuple(chosen)
