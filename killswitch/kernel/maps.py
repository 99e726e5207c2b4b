"""Typed access to BPF maps: arrays mapped into our memory, and the rest through system calls, in batches where it pays."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from collections.abc import Callable, Iterator, Sequence

from killswitch.errors import KernelError
from killswitch.kernel import libbpf, syscalls

BATCH = 4096


class Map:
    """A map by its descriptor. Keys and values are bytes of the sizes that the kernel names."""

    def __init__(self, name: str, fd: int) -> None:
        info = libbpf.map_info(fd)
        self.name, self.fd = name, fd
        self.key_size, self.value_size, self.max_entries = info.key_size, info.value_size, info.max_entries

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def get(self, key: bytes) -> bytes | None:
        """The value, or None when there is no such key."""
        value = ctypes.create_string_buffer(self.value_size)
        if libbpf.lib().bpf_map_lookup_elem(self.fd, key, value):
            if ctypes.get_errno() == errno.ENOENT:
                return None
            raise syscalls.error(f"look up in BPF map {self.name}", ctypes.get_errno())
        return value.raw

    def put(self, key: bytes, value: bytes) -> None:
        if len(key) != self.key_size or len(value) != self.value_size:
            raise ValueError(f"map {self.name} has keys of {self.key_size} and values of {self.value_size} bytes")
        if libbpf.lib().bpf_map_update_elem(self.fd, key, value, 0):
            raise syscalls.error(f"update BPF map {self.name}", ctypes.get_errno(), f"{self.max_entries} entries fit")

    def delete(self, key: bytes) -> bool:
        """Whether it was there."""
        if libbpf.lib().bpf_map_delete_elem(self.fd, key):
            if ctypes.get_errno() == errno.ENOENT:
                return False
            raise syscalls.error(f"delete from BPF map {self.name}", ctypes.get_errno())
        return True

    def all_keys(self) -> list[bytes]:
        """Taken at one time, so that entries may be deleted while going through them."""
        found: list[bytes] = []
        key: bytes | None = None
        while True:
            following = ctypes.create_string_buffer(self.key_size)
            if libbpf.lib().bpf_map_get_next_key(self.fd, key, following) or len(found) > 2 * self.max_entries:
                break
            key = following.raw
            found.append(key)
        return found

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        for key in self.all_keys():
            value = self.get(key)
            if value is not None:
                yield key, value

    def put_many(self, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        """Store many at once: one system call for thousands."""
        self.put_packed(b"".join(keys), b"".join(values))

    def put_packed(self, keys: bytes, values: bytes) -> None:
        total = len(keys) // self.key_size
        if not total:
            return
        count = ctypes.c_uint32(total)
        if libbpf.lib().bpf_map_update_batch(self.fd, keys, values, ctypes.byref(count), None):
            what = f"update {total} entries of BPF map {self.name}"
            raise syscalls.error(what, ctypes.get_errno(), f"{self.max_entries} entries fit, {count.value} went in")

    def read_packed(self) -> tuple[bytes, bytes]:
        """Every key and every value, each joined, as ``put_packed`` takes them."""
        keys, values = bytearray(), bytearray()
        for k, v in self._batches(libbpf.lib().bpf_map_lookup_batch):
            keys += k
            values += v
        return bytes(keys), bytes(values)

    def take_all(self) -> list[tuple[bytes, bytes]]:
        """Take every entry out of a hash map, in batches."""
        return [
            pair
            for keys, values in self._batches(libbpf.lib().bpf_map_lookup_and_delete_batch)
            for pair in zip(_cut(keys, self.key_size), _cut(values, self.value_size), strict=True)
        ]

    def _batches(self, call: Callable[..., int]) -> Iterator[tuple[bytes, bytes]]:
        size = min(BATCH, self.max_entries)
        keys = ctypes.create_string_buffer(self.key_size * size)
        values = ctypes.create_string_buffer(self.value_size * size)
        token, following = None, ctypes.create_string_buffer(max(self.key_size, 8))
        while True:
            count = ctypes.c_uint32(size)
            failed = call(self.fd, token, following, keys, values, ctypes.byref(count), None)
            code = ctypes.get_errno() if failed else 0
            if failed and code not in (errno.ENOENT, errno.ENOSPC):
                raise syscalls.error(f"read BPF map {self.name}", code)
            n = count.value if code != errno.ENOSPC else 0
            if n:
                yield keys.raw[: n * self.key_size], values.raw[: n * self.value_size]
            if failed:  # ENOENT: that was the last of it. ENOSPC: one bucket holds more than fits; the next call has it
                return
            token = following


def _cut(raw: bytes, size: int) -> list[bytes]:
    return [raw[i : i + size] for i in range(0, len(raw), size)]


class Percpu(Map):
    """An array with a value for each possible CPU; every value is a row of u64 counters."""

    def total(self, index: int) -> tuple[int, ...]:
        """The counters of one element, summed over all CPUs."""
        cpus, words = libbpf.possible_cpus(), self.value_size // 8
        raw = (ctypes.c_uint64 * (words * cpus))()
        if libbpf.lib().bpf_map_lookup_elem(self.fd, index.to_bytes(4, "little"), raw):
            raise syscalls.error(f"look up in BPF map {self.name}", ctypes.get_errno())
        return tuple(sum(raw[w::words]) for w in range(words))

    def clear(self, index: int) -> None:
        zeros = bytes(self.value_size * libbpf.possible_cpus())
        if libbpf.lib().bpf_map_update_elem(self.fd, index.to_bytes(4, "little"), zeros, 0):
            raise syscalls.error(f"clear in BPF map {self.name}", ctypes.get_errno())


def store_u32(memory: mmap.mmap, at: int, value: int) -> None:
    """One store, as a program that runs meanwhile has to see it. ``struct.pack_into`` first fills with zeros."""
    ctypes.c_uint32.from_buffer(memory, at).value = value


def store_u64(memory: mmap.mmap, at: int, value: int) -> None:
    """The same of eight bytes."""
    ctypes.c_uint64.from_buffer(memory, at).value = value


class Mapped(Map):
    """An array that lies in our memory: a load or a store, no system call."""

    def __init__(self, name: str, fd: int) -> None:
        super().__init__(name, fd)
        page = mmap.PAGESIZE
        length = (self.value_size * self.max_entries + page - 1) // page * page
        try:
            self.memory = mmap.mmap(fd, length, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        except OSError as e:
            raise KernelError(f"map BPF map {name} into memory", e.errno or errno.EIO) from e

    def close(self) -> None:
        if self.fd >= 0:
            self.memory.close()
        super().close()

    def element(self, index: int) -> bytes:
        at = index * self.value_size
        return self.memory[at : at + self.value_size]
