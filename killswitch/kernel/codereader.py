"""The code at a process's hot addresses, the data that it uses, and what else tells hashing from other work.

Read for few processes and seldom (``detect.load`` rations it), from /proc: the process neither stops nor notices.
"""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import re
import stat as st
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from killswitch.errors import Gone, KernelError
from killswitch.kernel import procfs, syscalls
from killswitch.kernel.procfs import Mapping
from killswitch.machinecode import Code, CodeBlock, Source, Surroundings

CODE_BYTES = 64  # at each hot address: about a dozen instructions of x86-64
DATA_BYTES = 64  # at each address that the code refers to
MUCH = 0.08  # an address with this share of the samples is where the CPU waits: the loop around it is what it works at
AROUND_BYTES = 1024
POINTER_BYTES = 2048  # around the hottest code, where addresses of tables are looked for
MAX_POINTERS = 64
MAX_SOURCES = 64
MAX_DESCRIPTORS = 512
BIG_FILE = 1 << 20  # smaller mapped files are no input to speak of
WALKABLE = 3 << 30  # resident bytes: beyond, counting huge pages walks page tables for longer than a reading may take

_ZEROES = (os.makedev(1, 5), os.makedev(1, 7))  # /dev/zero, /dev/full
_NULL = os.makedev(1, 3)
_MSR = 202  # the major number of /dev/cpu/*/msr
_LIBRARY = re.compile(r"\.so(\.|$)| \(deleted\)$")


def read_code(
    workload: int,
    pid: int,
    ticks: int,
    hot: Sequence[tuple[int, int]],
    code: Sequence[bytes] = (),
    data: Sequence[int] = (),
) -> Code:
    """The machine code at a process's hot addresses (``commands.ReadCode`` → ``machinecode.Code``).

    ``code`` is what was seen at each of ``hot`` when it was sampled; only what is missing there is read now. An address
    named twice is one block with the samples of both. Addresses where nothing is mapped any more are left out. Raises
    Gone when the process has ended, or its pid is another's by now.
    """
    if not procfs.same(pid, ticks):
        raise Gone(f"process {pid} started at tick {ticks}", errno.ESRCH, "it has ended")
    maps = procfs.mappings(pid)
    try:
        memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as e:
        raise Gone(f"open /proc/{pid}/mem", e.errno or errno.ESRCH, "its memory cannot be read") from e
    try:
        blocks = _blocks(memory, maps, hot, code)
        found = [_read(memory, address, DATA_BYTES) for address in data]
        found += [_read(memory, address, DATA_BYTES) for address in _pointers(memory, maps, blocks)]
    finally:
        os.close(memory)
    around, io = surroundings(pid, maps), procfs.io_counters(pid)
    now = procfs.stat(pid)
    if now.start_ticks != ticks:  # it ended while we read: what was read may be another's
        raise Gone(f"process {pid} started at tick {ticks}", errno.ESRCH, "it ended while its code was read")
    return Code(
        time.monotonic_ns(), workload, pid, ticks, platform.machine(), blocks, io.rchar, io.syscr, now.cpu_ns,
        tuple(found), around,
    )  # fmt: skip


def _blocks(
    memory: int, maps: Sequence[Mapping], hot: Sequence[tuple[int, int]], code: Sequence[bytes]
) -> tuple[CodeBlock, ...]:
    blocks: dict[int, CodeBlock] = {}
    total = sum(samples for _, samples in hot)
    for i, (address, samples) in enumerate(hot):
        known = blocks.get(address)
        if known is not None:
            blocks[address] = replace(known, samples=known.samples + samples)
            continue
        there = (code[i] if i < len(code) else b"") or _read(memory, address, CODE_BYTES)
        if there:
            here = next((m for m in maps if m.start <= address < m.end), None)
            before = after = b""
            if here is not None and samples >= MUCH * total:
                start = max(here.start, address - AROUND_BYTES)
                before = _read(memory, start, address - start)
                before = before if len(before) == address - start else b""
                after = _read(memory, address + len(there), AROUND_BYTES) if len(there) == CODE_BYTES else b""
            blocks[address] = CodeBlock(address, samples, there, here.name if here else "", before, after)
    return tuple(sorted(blocks.values(), key=lambda b: -b.samples))


def _read(memory: int, address: int, size: int) -> bytes:
    """Through the kernel's own mapping: what a process may execute and not read is read all the same."""
    with contextlib.suppress(OSError, OverflowError):
        return os.pread(memory, size, address)
    return b""


# lea reg, [rip + disp]; mov reg, imm32: how compilers load the address of a table, often before the loop that uses it. The
# bytes are searched, not disassembled: what is no address of read-only data falls out by its value.
_LEA = re.compile(rb"[\x48\x4c]\x8d[\x05\x0d\x15\x1d\x25\x2d\x35\x3d](?=(....))", re.DOTALL)
_MOV = re.compile(rb"[\xb8-\xbf](?=(....))", re.DOTALL)


def _pointers(memory: int, maps: Sequence[Mapping], blocks: Sequence[CodeBlock]) -> list[int]:
    """Addresses of data that the code around the hottest blocks loads (x86-64)."""
    if platform.machine() != "x86_64":
        return []
    tables = [m for m in maps if "x" not in m.permissions and m.permissions.startswith("r") and m.name != "[stack]"]
    found: dict[int, None] = {}
    seen: set[int] = set()
    for block in blocks[:8]:
        start = max(0, block.address - POINTER_BYTES)
        if any(abs(start - other) < POINTER_BYTES // 2 for other in seen):
            continue
        seen.add(start)
        for address in _loaded(start, _read(memory, start, 2 * POINTER_BYTES)):
            if any(m.start <= address < m.end for m in tables):
                found[address] = None
    return list(found)[:MAX_POINTERS]


def _loaded(start: int, code: bytes) -> Iterator[int]:
    for found in _LEA.finditer(code):
        yield start + found.end() + 4 + int.from_bytes(found[1], "little", signed=True)
    for found in _MOV.finditer(code):
        yield int.from_bytes(found[1], "little")


# --- what it takes in, and how it has set itself up -------------------------------------------------------------------


def surroundings(pid: int, maps: Sequence[Mapping]) -> Surroundings:
    """Raises Gone. What alone cannot be read is left at nothing."""
    values = dict(line.split(b": ", 1) for line in procfs.read_bytes(pid, "io").splitlines())
    status = procfs.read_bytes(pid, "status")
    fields = procfs.read_bytes(pid, "stat").rpartition(b")")[2].split()
    descriptors, discards, msr = _descriptors(pid)
    mapped = {
        (m.inode, m.name): m.end - m.start
        for m in maps
        if m.inode and m.end - m.start >= BIG_FILE and "x" not in m.permissions and not _LIBRARY.search(m.name)
    }
    sources = [*descriptors, *(Source("mapped", inode, size) for (inode, _), size in sorted(mapped.items()))]
    resident = _kilobytes(status, b"VmRSS:")
    huge = _kilobytes(status, b"HugetlbPages:")
    if resident <= WALKABLE:
        with contextlib.suppress(KernelError):
            huge += _kilobytes(procfs.read_bytes(pid, "smaps_rollup"), b"AnonHugePages:")
    return Surroundings(
        written_bytes=int(values[b"wchar"]),
        storage_bytes=int(values[b"read_bytes"]),
        faults=int(fields[7]) + int(fields[9]),
        file_resident_bytes=_kilobytes(status, b"RssFile:"),
        sources=tuple(sources[:MAX_SOURCES]),
        discards=discards,
        threads=int(fields[17]),
        nice=int(fields[16]),
        huge_bytes=huge,
        executable_anonymous_bytes=sum(
            m.end - m.start for m in maps if "x" in m.permissions and not m.inode and not m.name.startswith("[v")
        ),
        open_msr=msr,
    )


def _kilobytes(raw: bytes, name: bytes) -> int:
    """Bytes, of a line ``Name:   12 kB`` that begins a line of the file; 0 when there is none."""
    _, found, tail = raw.partition(b"\n" + name)
    return int(tail.split(None, 1)[0]) * 1024 if found and tail.split(None, 1) else 0


def _descriptors(pid: int) -> tuple[list[Source], bool, bool]:
    """(what is open for reading, whether /dev/null is open for writing, whether a CPU's MSRs are open)"""
    found: set[Source] = set()
    discards = msr = False
    folder = Path(f"/proc/{pid}/fd")
    try:
        names = os.listdir(folder)  # noqa: PTH208 - names are all that is needed
    except OSError:
        return [], False, False
    for name in names[:MAX_DESCRIPTORS]:
        path = folder / name
        with contextlib.suppress(OSError):
            mode, what = path.lstat().st_mode, syscalls.stat_unasked(str(path))
            readable, writable = bool(mode & 0o400), bool(mode & 0o200)
            if st.S_ISCHR(what.st_mode):
                discards = discards or (what.st_rdev == _NULL and writable)
                msr = msr or os.major(what.st_rdev) == _MSR
            if readable and (kind := _kind(what)):
                found.add(Source(kind, what.st_ino, what.st_size if kind == "file" else 0))
    return sorted(found, key=lambda s: (s.kind, s.inode)), discards, msr


def _kind(what: syscalls.Known) -> str:
    mode = what.st_mode
    if st.S_ISREG(mode):
        return "file"
    if st.S_ISFIFO(mode):
        return "pipe"
    if st.S_ISSOCK(mode):
        return "socket"
    if st.S_ISBLK(mode):
        return "device"
    if st.S_ISCHR(mode) and what.st_rdev in _ZEROES:
        return "zero"
    # /dev/null and terminals give nothing to speak of; other devices (random numbers, cameras, disks) do.
    if st.S_ISCHR(mode) and what.st_rdev != _NULL and os.major(what.st_rdev) not in (4, 5, 136, _MSR):
        return "device"
    return ""
