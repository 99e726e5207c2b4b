"""Files as one process sees them: through its root, its mount namespace and its working directory. Only regular files are read.

A workload chooses the paths, so nothing is opened before it is known to be a regular file (to open a pipe would wake who
waits at its other end), and nothing leads out of the process's root or into a descriptor of ours.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import stat
from collections.abc import Iterator, Sequence
from types import TracebackType

from killswitch.errors import Gone, KernelError
from killswitch.kernel import procfs, syscalls

_OPENAT2 = 437  # the same number on every architecture
_NO_MAGICLINKS, _IN_ROOT = 0x02, 0x10
_OWN_FD = re.compile(rb"/(?:dev/fd|proc/(?:self|thread-self|\d+)/fd)/(\d+)|/dev/std(in|out|err)")
_STANDARD = {b"in": 0, b"out": 1, b"err": 2}
_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR})
MAX_NAMES = 4096  # of a folder that are looked at


class _How(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


class ProcessFiles:
    """``with ProcessFiles(pid) as files:``. Raises Gone when the process is gone, KernelError when it may not be looked at."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        try:
            self._root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as e:
            raise syscalls.error(f"root folder of process {pid}", e) from e
        try:
            root, cwd = (os.readlink(os.fsencode(f"/proc/{pid}/{name}")) for name in ("root", "cwd"))  # noqa: PTH115 - in bytes
        except OSError as e:
            os.close(self._root)
            raise syscalls.error(f"folders of process {pid}", e) from e
        inside = root == b"/" or cwd == root or cwd.startswith(root + b"/")
        self._cwd = (cwd if root == b"/" else cwd[len(root) :] or b"/") if inside else None

    def __enter__(self) -> ProcessFiles:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._root)

    def absolute(self, path: bytes) -> bytes:
        """The path from the process's root. Raises KernelError when it is relative to a folder outside of that."""
        if path.startswith(b"/"):
            return path
        if self._cwd is None or self._cwd.endswith(b" (deleted)"):
            raise KernelError(f"path {path!r} of process {self.pid}", errno.ENOENT, "its folder cannot be reached")
        return self._cwd.rstrip(b"/") + b"/" + path

    @contextlib.contextmanager
    def open(self, path: bytes) -> Iterator[int]:
        """A descriptor of the regular file at ``path``. Raises Gone when there is none, KernelError when it is no regular
        file or cannot be opened."""
        held = self._locate(path)
        try:
            if not stat.S_ISREG(os.fstat(held).st_mode):
                raise KernelError(f"{path!r} of process {self.pid}", errno.EINVAL, "it is no regular file")
            try:
                fd = os.open(f"/proc/self/fd/{held}", os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
            except OSError as e:
                raise syscalls.error(f"open {path!r} of process {self.pid}", e) from e
        finally:
            os.close(held)
        try:
            yield fd
        finally:
            os.close(fd)

    def read(self, path: bytes, limit: int) -> bytes:
        """The content of the file. Raises as ``open`` does, and KernelError (EFBIG) when it is longer than ``limit`` bytes."""
        with self.open(path) as fd:
            try:
                content = read_all(fd, limit + 1)
            except OSError as e:
                raise syscalls.error(f"read {path!r} of process {self.pid}", e) from e
        if len(content) > limit:
            raise KernelError(f"read {path!r} of process {self.pid}", errno.EFBIG, f"it is longer than {limit} bytes")
        return content

    def exists(self, path: bytes) -> bool:
        try:
            os.close(self._locate(path))
        except KernelError:
            return False
        return True

    def names(self, folder: bytes) -> Sequence[bytes]:
        """What a folder holds, at most ``MAX_NAMES``; () when it is none or cannot be read."""
        try:
            held = self._locate(folder)
        except KernelError:
            return ()
        try:
            if not stat.S_ISDIR(os.fstat(held).st_mode):
                return ()
            fd = os.open(f"/proc/self/fd/{held}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            return ()
        finally:
            os.close(held)
        found: list[bytes] = []
        try:
            with os.scandir(fd) as entries:
                for entry in entries:
                    found.append(os.fsencode(entry.name))
                    if len(found) >= MAX_NAMES:
                        break
        except OSError:
            pass  # what was read so far
        finally:
            os.close(fd)
        return found

    def _locate(self, path: bytes) -> int:
        """An O_PATH descriptor of whatever lies at ``path``: nothing is opened by that."""
        path = self.absolute(path)
        own = _OWN_FD.fullmatch(path)
        if own:  # "self" would be us
            number = int(own[1]) if own[1] is not None else _STANDARD[own[2]]
            try:
                return os.open(f"/proc/{self.pid}/fd/{number}", os.O_PATH | os.O_CLOEXEC)
            except OSError as e:
                raise syscalls.error(f"descriptor {number} of process {self.pid}", e) from e
        if b"\0" in path:
            raise Gone(f"{path!r} of process {self.pid}", errno.ENOENT, "no path has a NUL")
        how = _How(os.O_PATH | os.O_CLOEXEC, 0, _IN_ROOT | _NO_MAGICLINKS)
        name = ctypes.c_char_p(path)
        fd = syscalls.raw(
            _OPENAT2, ctypes.c_int(self._root), name, ctypes.byref(how), ctypes.c_size_t(ctypes.sizeof(how))
        )
        if fd < 0:
            code = ctypes.get_errno()
            if code in _ABSENT:
                raise Gone(f"{path!r} of process {self.pid}", errno.ENOENT, "there is no such file")
            raise syscalls.error(f"{path!r} of process {self.pid}", code, "it cannot be reached")
        return fd


def read_all(fd: int, limit: int) -> bytes:
    """What the file holds from its beginning, at most ``limit`` bytes; where it is read by others is left alone."""
    chunks: list[bytes] = []
    at = 0
    while at < limit and (chunk := os.pread(fd, min(1 << 20, limit - at), at)):
        chunks.append(chunk)
        at += len(chunk)
    return b"".join(chunks)


def environment(pid: int, limit: int) -> tuple[bytes, ...]:
    """Each NAME=value that the process began with (it may have written over them), of the first ``limit`` bytes. Raises Gone."""
    try:
        fd = os.open(f"/proc/{pid}/environ", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return tuple(e for e in read_all(fd, limit).split(b"\0") if e)
        finally:
            os.close(fd)
    except OSError as e:
        raise syscalls.error(f"environment of process {pid}", e) from e


def own_user(pid: int) -> int:
    """The process's real user id as it sees it itself, in its user namespace. Raises Gone."""
    status = procfs.read_bytes(pid, "status")
    outside = int(status.split(b"\nUid:", 1)[1].split(None, 1)[0])
    for line in procfs.read_bytes(pid, "uid_map").splitlines():
        inner, outer, count = map(int, line.split())
        if outer <= outside < outer + count:
            return inner + outside - outer
    return outside
