"""libbpf's words, as they were recorded, and the one line that they come down to."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from killswitch.errors import KernelError, NotSupported
from killswitch.kernel.refusal import explain

OBJ = Path("/x/k.o")
VERIFIER = """\
libbpf: prog 'on_exec': BPF program load failed: Permission denied
libbpf: prog 'on_exec': -- BEGIN PROG LOAD LOG --
0: R1=ctx() R10=fp0
; return nope(); @ x.c:4
7: (79) r1 = *(u64 *)(r2 +0)
R2 invalid mem access 'scalar'
processed 8 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
-- END PROG LOAD LOG --
libbpf: prog 'on_exec': failed to load: -13
libbpf: failed to load object '/x/k.o'
"""
NO_BTF = """\
libbpf: failed to find valid kernel BTF
libbpf: Error loading vmlinux BTF: -3
libbpf: failed to load object '/x/k.o'
"""
NO_RIGHTS = """\
libbpf: Failed to bump RLIMIT_MEMLOCK (err = -1), you might need to do it explicitly!
libbpf: Error in bpf_object__probe_loading():Operation not permitted(1). Couldn't load trivial BPF program. Make sure \
your kernel supports BPF (CONFIG_BPF_SYSCALL=y) and/or that RLIMIT_MEMLOCK is set to big enough value.
libbpf: failed to load object '/x/k.o'
"""
NO_BPF = NO_RIGHTS.replace("Operation not permitted(1)", "Function not implemented(38)")
REFUSED = """\
libbpf: prog 'on_lsm': BPF program load failed: Operation not permitted
libbpf: permission error while running as root; try raising 'ulimit -l'? current value: 8.0 MiB
libbpf: prog 'on_lsm': failed to load: -1
libbpf: failed to load object '/x/k.o'
"""
NO_HOOK = """\
libbpf: prog 'first': something harmless
libbpf: prog 'on_x': failed to find kernel BTF type ID of 'no_such_hook': -3
libbpf: prog 'on_x': failed to prepare load attributes: -3
libbpf: prog 'on_x': failed to load: -3
libbpf: failed to load object '/x/k.o'
"""
NOT_ELF = "libbpf: elf: '/x/k.o' is not a proper ELF object\n"
MAP = """\
libbpf: map 'workloads': failed to create: Cannot allocate memory(-12)
libbpf: failed to load object '/x/k.o'
"""


@pytest.mark.parametrize(
    ("code", "text", "cls", "line"),
    [
        (errno.EACCES, VERIFIER, KernelError,
         "load the BPF program on_exec of /x/k.o: Permission denied (EACCES); the verifier says: R2 invalid mem access 'scalar'"),
        (errno.ESRCH, NO_BTF, NotSupported,
         "load the BPF object /x/k.o: Operation not supported (ENOTSUP); the kernel tells no types of its own "
         "(/sys/kernel/btf/vmlinux): boot one with CONFIG_DEBUG_INFO_BTF=y"),
        (errno.EPERM, NO_RIGHTS, KernelError,
         "load the BPF object /x/k.o: Operation not permitted (EPERM); this process may not load any: it needs CAP_BPF, "
         "CAP_PERFMON and CAP_NET_ADMIN, or CAP_SYS_ADMIN"),
        (errno.ENOSYS, NO_BPF, NotSupported,
         "load the BPF object /x/k.o: Function not implemented (ENOSYS); the kernel loads none at all: boot one with "
         "CONFIG_BPF_SYSCALL=y"),
        (errno.EPERM, REFUSED, NotSupported,
         "load the BPF program on_lsm of /x/k.o: Operation not supported (ENOTSUP); this kernel refuses it: BPF program "
         "load failed: Operation not permitted"),
        (errno.ESRCH, NO_HOOK, NotSupported,
         "load the BPF program on_x of /x/k.o: Operation not supported (ENOTSUP); this kernel refuses it: failed to find "
         "kernel BTF type ID of 'no_such_hook': -3"),
        (4001, NOT_ELF, KernelError,
         "open the BPF object /x/k.o: Exec format error (ENOEXEC); it is none; build it anew: make bpf; or install the "
         "package anew"),
        (errno.ENOMEM, MAP, KernelError,
         "load the BPF object /x/k.o: Cannot allocate memory (ENOMEM); map 'workloads': failed to create: Cannot allocate "
         "memory(-12); failed to load object '/x/k.o'"),
        (errno.EIO, "", KernelError,
         "load the BPF object /x/k.o: Input/output error (EIO); build it anew: make bpf; or install the package anew"),
    ],
)  # fmt: skip
def test_one_line(code: int, text: str, cls: type[KernelError], line: str) -> None:
    error = explain(OBJ, code, text.splitlines())
    assert str(error) == line
    assert type(error) is cls


def test_a_long_log_of_which_only_the_end_is_left() -> None:
    error = explain(OBJ, errno.EACCES, VERIFIER.splitlines()[4:])
    assert str(error).endswith("the verifier says: R2 invalid mem access 'scalar'")
