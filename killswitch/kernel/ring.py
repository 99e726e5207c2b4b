"""The reading side of a BPF ring buffer, by the kernel's own protocol (``kernel/bpf/ringbuf.c``).

Ours and not libbpf's, because libbpf 1.1 cannot stop after so many records, and a callback through ctypes costs more
than the decoding itself. Every record begins with a u32: its length, a busy bit while a program still writes it, and a
discard bit. The kernel offers the data pages twice in a row, so that no record is broken at their end; every page mapped
counts as resident, so we map them once and put the rare broken record together ourselves.
"""

from __future__ import annotations

import mmap
import struct

from killswitch.errors import KernelError
from killswitch.events import Event
from killswitch.kernel import libbpf
from killswitch.kernel.decode import decode
from killswitch.kernel.maps import store_u64

_BUSY = 1 << 31
_DISCARD = 1 << 30
_LENGTH = _DISCARD - 1
_HEADER = 8
_position = struct.Struct("<Q")
_word = struct.Struct("<I")


class Ring:
    def __init__(self, name: str, fd: int) -> None:
        self.name, self.fd = name, fd
        self.size = libbpf.map_info(fd).max_entries
        page = mmap.PAGESIZE
        try:
            self._consumer = mmap.mmap(fd, page, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
            self._data = mmap.mmap(fd, page + self.size, mmap.MAP_SHARED, mmap.PROT_READ, offset=page)
        except OSError as e:
            raise KernelError(f"map the ring buffer {name}", e.errno or 0) from e
        self._at: int = _position.unpack_from(self._consumer)[0]

    def close(self) -> None:
        self._consumer.close()
        self._data.close()

    def waiting(self) -> int:
        """Bytes that have not been read yet."""
        return int(_position.unpack_from(self._data)[0]) - self._at

    @property
    def position(self) -> int:
        """Up to which it has been read."""
        return self._at

    def drain(self, into: list[Event], limit: int, ends: list[int] | None = None) -> None:
        """Append the next events, at most ``limit``; what is read makes room for new records at once. ``ends``: where each of
        them ends is appended."""
        data, at, mask = self._data, self._at, self.size - 1
        base, last = mmap.PAGESIZE, mmap.PAGESIZE + self.size
        end = _position.unpack_from(data)[0]
        header_of = _word.unpack_from
        while at < end and limit > 0:
            record = base + (at & mask)
            header = header_of(data, record)[0]
            if header & _BUSY:
                break
            size = (header & _LENGTH) + _HEADER
            if not header & _DISCARD:
                if record + size <= last:
                    into.append(decode(data, record + _HEADER))
                else:
                    into.append(decode(data[record:last] + data[base : record + size - self.size], _HEADER))
                limit -= 1
            at += (size + 7) & ~7
            if ends is not None and not header & _DISCARD:
                ends.append(at)
        if at != self._at:
            self._at = at
            store_u64(self._consumer, 0, at)

    def skip(self) -> int:
        """Throw away all that waits; returns how many records that were."""
        data, at, mask, n = self._data, self._at, self.size - 1, 0
        end = _position.unpack_from(data)[0]
        while at < end:
            header = _word.unpack_from(data, mmap.PAGESIZE + (at & mask))[0]
            if header & _BUSY:
                break
            n += not header & _DISCARD
            at += ((header & _LENGTH) + _HEADER + 7) & ~7
        self._at = at
        store_u64(self._consumer, 0, at)
        return n
