"""Whether this kernel runs 32-bit programs beside those of its own size: what they ask of a socket by setsockopt is told to no
program on a cgroup (``BPF_CGROUP_SETSOCKOPT`` is left out for such calls, also for one that a 64-bit program makes)."""

from __future__ import annotations

import errno
import os
import platform
import struct

from killswitch.errors import NotSupported
from killswitch.kernel import syscalls

_BASE, _HEADERS = 0x10000, 52 + 32  # where the file lies in memory; ELF header and one program header
# Machine -> (ELF's number of its 32-bit kind, code that ends with status 0).
_KINDS = {
    "x86_64": (3, bytes.fromhex("b801000000" "31db" "cd80")),  # mov $1, %eax; xor %ebx, %ebx; int $0x80
    "aarch64": (40, bytes.fromhex("0000a0e3" "0170a0e3" "000000ef")),  # mov r0, #0; mov r7, #1; svc #0
}  # fmt: skip


def program(machine: int, code: bytes) -> bytes:
    """The smallest 32-bit ELF executable that runs this code."""
    size = _HEADERS + len(code)
    head = b"\x7fELF\x01\x01\x01" + bytes(9) + struct.pack("<HHIIII", 2, machine, 1, _BASE + _HEADERS, 52, 0)
    head += struct.pack("<IHHHHHH", 0x05000000 if machine == 40 else 0, 52, 32, 1, 0, 0, 0)  # ARM's EABI, version 5
    return head + struct.pack("<IIIIIIII", 1, 0, _BASE, _BASE, size, size, 5, 0x1000) + code


def runs() -> bool:
    """Whether the kernel executes such a program. Raises KernelError."""
    kind = _KINDS.get(platform.machine())
    if kind is None:
        return False
    fd = os.memfd_create("ks-32-bit", os.MFD_CLOEXEC)
    try:
        os.write(fd, program(*kind))
        pid = os.posix_spawn(f"/proc/self/fd/{fd}", ["ks-32-bit"], {})
    except OSError as e:
        if e.errno in (errno.ENOEXEC, errno.ELIBBAD):
            return False
        raise syscalls.error("run a 32-bit program", e) from e
    finally:
        os.close(fd)
    os.waitpid(pid, 0)
    return True


def trial() -> str:
    """For ``doctor``. Raises NotSupported where they run."""
    if not runs():
        return "this kernel runs no 32-bit programs"
    hint = (
        "freezing stops who would ask, and a network namespace of its own lets no report out; "
        "where nothing here is of 32 bits, boot with ia32_emulation=0"
    )
    raise NotSupported("judge what a 32-bit call asks of a socket", errno.EOPNOTSUPP, hint)
