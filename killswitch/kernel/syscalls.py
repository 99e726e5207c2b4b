"""System calls that Python 3.11 does not offer, one tiny function each; and where an errno becomes an error."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from typing import NamedTuple

from killswitch.errors import Gone, KernelError, NotSupported

_libc = ctypes.CDLL(None, use_errno=True)

_GONE = frozenset({errno.ENOENT, errno.ENODEV, errno.ESRCH, errno.ESTALE})
_UNSUPPORTED = frozenset({errno.ENOSYS, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT, errno.EPFNOSUPPORT})

_FILEID_KERNFS = 0xFE  # exportfs.h: the handle of a kernfs node is its 64-bit id


def error(what: str, cause: OSError | int, hint: str = "") -> KernelError:
    """The KernelError for an errno: ``Gone`` for what is not there, ``NotSupported`` for what the kernel lacks."""
    code = cause if isinstance(cause, int) else cause.errno or errno.EIO
    if code in _GONE:
        return Gone(what, code, hint or "it is no longer there")
    if code in _UNSUPPORTED:
        return NotSupported(what, code, hint or "this kernel does not offer it")
    if code in (errno.EPERM, errno.EACCES) and not hint:
        hint = "run as root with the capabilities that `killswitch doctor` names"
    return KernelError(what, code, hint)


def checked(what: str, result: int) -> int:
    """``result`` of a libc call as it is; raises KernelError from errno when it is negative."""
    if result < 0:
        raise error(what, ctypes.get_errno())
    return result


def raw(number: int, *arguments: object) -> int:
    """A system call by its number; -1 and errno (``ctypes.get_errno``) when it fails."""
    return int(_libc.syscall(ctypes.c_long(number), *arguments))


class Known(NamedTuple):
    """What is known of a file; names as in ``os.stat_result``."""

    st_mode: int
    st_ino: int
    st_dev: int
    st_rdev: int
    st_size: int
    st_mtime_ns: int
    st_ctime_ns: int


_AT_FDCWD, _AT_EMPTY_PATH, _AT_STATX_DONT_SYNC, _STATX_BASIC_STATS = -100, 0x1000, 0x4000, 0x7FF
_statx = struct.Struct("=28xH2xQQ48xqI4xqI4xIIII")  # of 256 bytes, those up to the device's number
_StatxBuffer = ctypes.c_char * 256
_libc.statx.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p)


def stat_unasked(path: str | bytes) -> Known:
    """``os.stat`` that asks nobody for what it knows: whoever answers for the file's file system (FUSE, NFS) may never do so.
    On the way to the file it may ask: give it what /proc leads to. Raises OSError."""
    return _stat(_AT_FDCWD, path, _AT_STATX_DONT_SYNC)


def stat_cached(path: str | bytes) -> Known:
    """The same, asking nobody on the way either. Raises BlockingIOError where somebody would have to be asked, also for most
    paths that are not there, and OSError (ENOSYS, EINVAL) before Linux 5.12."""
    fd = int(
        _libc.syscall(_SYS_openat2, ctypes.c_long(_AT_FDCWD), os.fsencode(path), _CACHED, ctypes.c_size_t(len(_CACHED)))
    )
    if fd < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), path)
    try:
        return _stat(fd, b"", _AT_STATX_DONT_SYNC | _AT_EMPTY_PATH)
    finally:
        os.close(fd)


_SYS_openat2 = ctypes.c_long(437)  # the same number on every architecture
_CACHED = struct.pack("=QQQ", os.O_PATH | os.O_CLOEXEC, 0, 0x20)  # struct open_how: flags, mode, RESOLVE_CACHED


def _stat(folder: int, path: str | bytes, flags: int) -> Known:
    buffer = _StatxBuffer()
    if _libc.statx(folder, os.fsencode(path), flags, _STATX_BASIC_STATS, buffer):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), path)
    mode, inode, size, ctime, ctime_ns, mtime, mtime_ns, major, minor, on_major, on_minor = _statx.unpack_from(buffer)
    own, on = os.makedev(major, minor), os.makedev(on_major, on_minor)
    return Known(mode, inode, on, own, size, mtime * 10**9 + mtime_ns, ctime * 10**9 + ctime_ns)


def setns(fd: int, kind: int) -> None:
    """Move the *calling thread* into the namespace that ``fd`` names."""
    checked("setns", _libc.setns(fd, kind))


def unshare(kind: int) -> None:
    """Move the *calling thread* into a new namespace."""
    checked("unshare", _libc.unshare(kind))


def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    result = _libc.mount(source.encode(), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), data.encode())
    checked(f"mount -t {kind} on {target}", result)


class _FileHandle(ctypes.Structure):
    _fields_ = (("bytes", ctypes.c_uint), ("type", ctypes.c_int), ("id", ctypes.c_uint64))
    _pack_ = 1


def open_kernfs_id(mount_fd: int, node: int) -> int:
    """A descriptor of the kernfs directory with this id, on the file system of ``mount_fd``.

    Needs CAP_DAC_READ_SEARCH. Raises Gone when no such node exists.
    """
    handle = _FileHandle(8, _FILEID_KERNFS, node)
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    result = _libc.open_by_handle_at(mount_fd, ctypes.byref(handle), flags)
    return checked(f"open cgroup id {node}", result)


_SYS_pidfd_getfd = 438  # the same number on every architecture (added after the tables were unified)


def pidfd_getfd(pidfd: int, target_fd: int) -> int:
    """A duplicate of another process's descriptor. Needs the right to ptrace it."""
    result = _libc.syscall(_SYS_pidfd_getfd, pidfd, target_fd, 0)
    return checked(f"pidfd_getfd of descriptor {target_fd}", result)
