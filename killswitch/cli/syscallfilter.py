"""System calls that CMD is refused (EPERM) because no capability stands before them.

- A cgroup namespace of its own. Root of a user namespace may mount the cgroup tree, writable, for a cgroup namespace that
  it made: it would begin at the workload's own cgroup, whose ``cgroup.freeze`` it could then write faster than it freezes.
- ``request_key``, for which the kernel starts a program of the host's, as root and outside, with words of CMD's choice.
- ``TIOCSTI`` and ``TIOCLINUX``: typing on the terminal it shares with the operator's shell, which reads it afterwards.

``clone3`` takes its flags by pointer, which a filter cannot read: it is answered ENOSYS, as from a kernel that has none,
and the C library takes ``clone``.
"""

from __future__ import annotations

import ctypes
import errno
import struct

from killswitch.cli import syscalls

_CLONE_NEWCGROUP = 0x02000000
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
_CLONE3 = 435
_X32 = 0x40000000
# AUDIT_ARCH -> numbers of clone, unshare, ioctl, request_key. x86-64 and its 32 bits, arm64 and its.
_MACHINES = {
    0xC000003E: (56, 272, 16, 249), 0x40000003: (120, 310, 54, 287),
    0xC00000B7: (220, 97, 29, 218), 0x40000028: (120, 337, 54, 310),
}  # fmt: skip
_LOAD, _JEQ, _JSET, _AND, _RETURN = 0x20, 0x15, 0x45, 0x54, 0x06  # BPF_LD|W|ABS, BPF_JMP|…|K, BPF_ALU|AND|K, BPF_RET|K
_NUMBER, _ARCH, _FIRST, _SECOND = 0, 4, 16, 24  # offsets in struct seccomp_data; the low halves (little-endian)
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000


def program() -> bytes:
    """The filter. On a machine that is not in the table every call is allowed: `doctor` has nothing to promise there."""
    code: list[tuple[int, int, int, int]] = []
    for machine, (clone, unshare, ioctl, request_key) in _MACHINES.items():
        block = [
            (_LOAD, 0, 0, _NUMBER),
            (_AND, 0, 0, ~_X32 & 0xFFFFFFFF),
            (_JEQ, 5, 0, clone),
            (_JEQ, 4, 0, unshare),
            (_JEQ, 6, 0, ioctl),
            (_JEQ, 9, 0, _CLONE3),
            (_JEQ, 7, 0, request_key),
            (_RETURN, 0, 0, _ALLOW),
            (_LOAD, 0, 0, _FIRST),
            (_JSET, 4, 0, _CLONE_NEWCGROUP),
            (_RETURN, 0, 0, _ALLOW),
            (_LOAD, 0, 0, _SECOND),
            (_JEQ, 1, 0, _TIOCSTI),
            (_JEQ, 0, 2, _TIOCLINUX),
            (_RETURN, 0, 0, _ERRNO | errno.EPERM),
            (_RETURN, 0, 0, _ERRNO | errno.ENOSYS),
            (_RETURN, 0, 0, _ALLOW),
        ]
        code += [(_LOAD, 0, 0, _ARCH), (_JEQ, 0, len(block), machine), *block]
    code.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)


def install() -> None:
    """For this process and all that come of it. Needs CAP_SYS_ADMIN, or no_new_privs. Raises OSError."""
    code = ctypes.create_string_buffer(program())
    syscalls.seccomp(ctypes.addressof(code), (len(code) - 1) // 8)
