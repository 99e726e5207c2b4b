"""fanotify: who made, wrote or renamed what in a directory. Told of marked directories only, so nothing else pays for it.

A group is asked for names (``FAN_REPORT_DFID_NAME``, Linux 5.9): an event brings the directory's handle, which is looked up
among those that were marked, and the name in it. No file is held open, and no mount is kept busy. Numbers are those of
``linux/fanotify.h``; records are read with the machine's own byte order.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from killswitch.kernel import syscalls

MODIFY, CLOSE_WRITE, MOVED_FROM, MOVED_TO, CREATE, DELETE = 0x2, 0x8, 0x40, 0x80, 0x100, 0x200
DELETE_SELF, OVERFLOW, ON_CHILD, ON_DIR = 0x400, 0x4000, 0x08000000, 0x40000000
CHANGES = MODIFY | CLOSE_WRITE | MOVED_TO | CREATE
LOSSES = DELETE | MOVED_FROM

_CLOEXEC, _NONBLOCK, _UNLIMITED_MARKS, _REPORT_DFID_NAME = 0x1, 0x2, 0x20, 0xC00
_ADD, _ONLYDIR = 0x1, 0x8
_DFID_NAME, _DFID = 2, 3  # FAN_EVENT_INFO_TYPE_*
_METADATA_VERSION = 3
_METADATA, _INFO, _HANDLE = struct.Struct("=IBBHQii"), struct.Struct("=BBH"), struct.Struct("=QIi")
_AT_FDCWD, _AT_EMPTY_PATH, _AT_HANDLE_FID = -100, 0x1000, 0x200
_MAX_HANDLE = 128
_BUFFER = 64 << 10  # bytes a read: some 700 events
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Node:
    """A directory, as the kernel names it: its file system and its handle there."""

    fsid: int
    kind: int
    handle: bytes


@dataclass(frozen=True, slots=True)
class Record:
    mask: int
    pid: int  # tgid of who did it; it may have ended
    node: Node | None  # the directory; None = the kernel named none (an overflow)
    name: bytes  # in it; b"" = the directory itself


class Group:
    """A fanotify group. Not thread-safe but for ``mark``, which may be called from another thread."""

    def __init__(self) -> None:
        """Raises NotSupported (a kernel before 5.9), KernelError (no CAP_SYS_ADMIN, too many groups)."""
        flags = _CLOEXEC | _NONBLOCK | _UNLIMITED_MARKS | _REPORT_DFID_NAME
        result = int(_libc.fanotify_init(flags, os.O_RDONLY | os.O_CLOEXEC))
        if result < 0:
            code = ctypes.get_errno()
            hint = "fanotify reports no names here: Linux 5.9 is the first that does" if code == errno.EINVAL else ""
            raise syscalls.error("fanotify_init", errno.EOPNOTSUPP if code == errno.EINVAL else code, hint)
        self._fd = result

    def fileno(self) -> int:
        return self._fd

    def mark(self, directory: int, mask: int) -> None:
        """Be told of ``mask`` in this open directory, and of its files with ``ON_CHILD``. Raises KernelError, NotSupported (a
        file system without handles or without an id of its own)."""
        if _libc.fanotify_mark(self._fd, _ADD | _ONLYDIR, ctypes.c_uint64(mask | ON_DIR), directory, None) < 0:
            code = ctypes.get_errno()
            # ENODEV: a file system without an id; EXDEV: a subvolume, before 6.8.
            unsupported = code in (errno.ENODEV, errno.EXDEV)
            hint = "its file system cannot be told apart from others" if unsupported else ""
            raise syscalls.error("fanotify_mark", errno.EOPNOTSUPP if unsupported else code, hint)

    def read(self) -> list[Record]:
        """What waits, at most one buffer of it; empty when nothing does. Raises KernelError."""
        try:
            return list(parse(os.read(self._fd, _BUFFER)))
        except BlockingIOError:
            return []
        except OSError as e:
            raise syscalls.error("read fanotify events", e) from e

    def close(self) -> None:
        os.close(self._fd)


def parse(raw: bytes) -> Iterator[Record]:
    """The records in what was read. What is not whole, or of another version, ends it: never raises, whatever ``raw`` is."""
    at = 0
    while at + _METADATA.size <= len(raw):
        length, version, _, header, mask, _, pid = _METADATA.unpack_from(raw, at)
        end = at + length
        if version != _METADATA_VERSION or header < _METADATA.size or length < header or end > len(raw):
            return
        node, name = _directory(raw, at + header, end)
        yield Record(mask, pid, node, name)
        at = end


def _directory(raw: bytes, at: int, end: int) -> tuple[Node | None, bytes]:
    """Of the records of information behind an event, the one that names a directory."""
    while at + _INFO.size <= end:
        kind, _, length = _INFO.unpack_from(raw, at)
        if length < _INFO.size or at + length > end:
            break
        if kind in (_DFID_NAME, _DFID) and length >= _INFO.size + _HANDLE.size:
            fsid, size, handle_kind = _HANDLE.unpack_from(raw, at + _INFO.size)
            handle = at + _INFO.size + _HANDLE.size
            if size <= at + length - handle:
                rest = raw[handle + size : at + length] if kind == _DFID_NAME else b""
                name = rest.partition(b"\0")[0]
                return Node(fsid, handle_kind, raw[handle : handle + size]), b"" if name == b"." else name
        at += length
    return None, b""


def node_of(directory: int) -> Node:
    """Raises NotSupported where the file system has no handles, KernelError."""
    buffer = ctypes.create_string_buffer(8 + _MAX_HANDLE)
    mount = ctypes.c_int()
    code = 0
    for flags in (_AT_EMPTY_PATH, _AT_EMPTY_PATH | _AT_HANDLE_FID):  # the second: Linux 6.5, also overlays
        struct.pack_into("=Ii", buffer, 0, _MAX_HANDLE, 0)
        if _libc.name_to_handle_at(directory, b"", buffer, ctypes.byref(mount), flags) == 0:
            size, kind = struct.unpack_from("=Ii", buffer, 0)
            try:
                fsid = os.fstatvfs(directory).f_fsid
            except OSError as e:
                raise syscalls.error("statfs", e) from e
            return Node(fsid, kind, buffer.raw[8 : 8 + size])
        code = ctypes.get_errno()
    raise syscalls.error("name_to_handle_at", errno.EOPNOTSUPP if code == errno.EINVAL else code)


_SYS_openat2 = 437
_RESOLVE_NO_MAGICLINKS, _RESOLVE_IN_ROOT = 0x02, 0x10


def open_below(root: int, path: str, flags: int) -> int:
    """Open ``path`` as a process whose root is ``root`` (a directory) would: no link leads out. Raises OSError."""
    how = struct.pack(
        "=QQQ", flags | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY, 0, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS
    )
    raw = os.fsencode(path.lstrip("/") or ".")
    result = syscalls.raw(_SYS_openat2, root, raw, how, len(how))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), path)
    return result
