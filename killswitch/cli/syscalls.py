"""The system calls by which ``killswitch run`` takes privileges away from itself. Each raises OSError."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable

CLONE_NEWNS, CLONE_NEWPID = 0x00020000, 0x20000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND, MS_REC, MS_SLAVE = (
    1, 2, 4, 8, 32, 4096, 16384, 1 << 19,
)  # fmt: skip
_SET_DUMPABLE, _SET_KEEPCAPS, _SET_NAME, _CAPBSET_READ, _CAPBSET_DROP, _NO_NEW_PRIVS, _CAP_AMBIENT = (
    4, 8, 15, 23, 24, 38, 47,
)  # fmt: skip
_SET_SECCOMP, _SECCOMP_FILTER = 22, 2
_AMBIENT_RAISE, _AMBIENT_CLEAR_ALL = 2, 4
_CAP_V3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def _prctl(option: int, *arguments: int) -> int:
    full = (*arguments, 0, 0, 0, 0)[:4]
    return _checked(_libc.prctl(option, *(ctypes.c_ulong(a) for a in full)))


def unshare(flags: int) -> None:
    _checked(_libc.unshare(flags))


def setns(fd: int, kind: int) -> None:
    _checked(_libc.setns(fd, kind))


def mount(source: str | None, target: str, kind: str | None = None, flags: int = 0, data: str | None = None) -> None:
    encoded = [None if x is None else os.fsencode(x) for x in (source, target, kind)]
    _checked(_libc.mount(*encoded, ctypes.c_ulong(flags), None if data is None else data.encode()))


def undumpable() -> None:
    """Nobody without CAP_SYS_PTRACE may look into this process, whatever its user."""
    _prctl(_SET_DUMPABLE, 0)


def set_name(name: str) -> None:
    _checked(_libc.prctl(_SET_NAME, name.encode()[:15], ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)))


def keep_capabilities() -> None:
    """The permitted set survives the next change of user."""
    _prctl(_SET_KEEPCAPS, 1)


def no_new_privs() -> None:
    _prctl(_NO_NEW_PRIVS, 1)


def seccomp(code: int, instructions: int) -> None:
    """Install the classic BPF program at this address."""
    filter_ = ctypes.create_string_buffer(struct.pack("@HP", instructions, code))
    _prctl(_SET_SECCOMP, _SECCOMP_FILTER, ctypes.addressof(filter_))


def permitted() -> frozenset[int]:
    """The permitted set, as bit numbers."""
    data = (_Data * 2)()
    _checked(_libc.capget(ctypes.byref(_Header(_CAP_V3, 0)), data))
    mask = data[0].permitted | data[1].permitted << 32
    return frozenset(bit for bit in range(64) if mask >> bit & 1)


def bound(kept: frozenset[int]) -> None:
    """Take every other capability out of the bounding set."""
    for bit in range(64):
        try:
            if bit not in kept and _prctl(_CAPBSET_READ, bit):
                _prctl(_CAPBSET_DROP, bit)
        except OSError as e:
            if bit > 40 and e.errno == 22:  # beyond this kernel's last
                return
            raise


def set_capabilities(have: frozenset[int], pass_on: Iterable[int]) -> None:
    """Permitted and effective become ``have``; inheritable and ambient ``pass_on``, which must be among them."""
    passed = frozenset(pass_on)
    data = (_Data * 2)()
    for half in (0, 1):
        data[half].permitted = data[half].effective = _half(have, half)
        data[half].inheritable = _half(passed, half)
    _prctl(_CAP_AMBIENT, _AMBIENT_CLEAR_ALL)
    _checked(_libc.capset(ctypes.byref(_Header(_CAP_V3, 0)), data))
    for bit in passed:
        _prctl(_CAP_AMBIENT, _AMBIENT_RAISE, bit)


def _half(bits: frozenset[int], half: int) -> int:
    return sum(1 << bit % 32 for bit in bits if bit // 32 == half)
