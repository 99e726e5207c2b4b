"""Taking over a process outside: by ptrace, its memory, its descriptors."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.escapes.conftest import Inside

SCRIPT = """
pid = int(sys.argv[1])
attempt("seize", lambda: call("ptrace", 0x4206, pid, 0, 0))
attempt("attach", lambda: call("ptrace", 16, pid, 0, 0))
attempt("memory", lambda: open(f"/proc/{pid}/mem", "r+b"))
attempt("root", lambda: os.listdir(f"/proc/{pid}/root/"))
def steal():
    return call("syscall", 438, os.pidfd_open(pid), 0, 0)
attempt("descriptor", steal)
class Vec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("len", ctypes.c_size_t))
here = ctypes.create_string_buffer(8)
def write(number):
    local, remote = Vec(ctypes.addressof(here), 8), Vec(0x400000, 8)
    one, none = ctypes.c_ulong(1), ctypes.c_ulong(0)
    return call("syscall", number, pid, ctypes.byref(local), one, ctypes.byref(remote), one, none)
attempt("read memory", lambda: write(310))
attempt("write memory", lambda: write(311))
"""


@pytest.mark.parametrize("options", [(), ("--host-pids",)])
def test_ptrace(
    inside: Callable[..., Inside], user: str, options: tuple[str, ...], victim: subprocess.Popen[bytes]
) -> None:
    tried = inside(SCRIPT, victim.pid, user=user, options=options).results()
    assert {"ESRCH", "ENOENT", "EPERM", "EACCES"} >= set(tried.values()), tried
    assert "TracerPid:\t0" in Path(f"/proc/{victim.pid}/status").read_text()


INIT = """
attempt("seize", lambda: call("ptrace", 0x4206, 1, 0, 0))
attempt("root", lambda: os.listdir("/proc/1/root/"))
attempt("memory", lambda: open("/proc/1/mem", "r+b"))
attempt("descriptors", lambda: os.open("/proc/1/fd/0", os.O_RDONLY))
attempt("descriptor by pidfd", lambda: call("syscall", 438, os.pidfd_open(1), 3, 0))
attempt("mounts", lambda: call("setns", os.open("/proc/1/ns/mnt", os.O_RDONLY), NEWNS))
attempt("pids", lambda: call("setns", os.open("/proc/1/ns/pid", os.O_RDONLY), 0x20000000))
attempt("all", lambda: call("setns", os.pidfd_open(1), NEWNS | NEWCGROUP))
os.kill(1, 9), os.kill(1, 19)
say("alive", open("/proc/1/stat").read().split()[2])
"""


def test_the_init_of_its_pid_namespace(inside: Callable[..., Inside]) -> None:
    """It is outside the cgroup, and root's: who could take it over would be out."""
    tried = inside(INIT).results()
    assert tried.pop("alive") == "S"
    assert {"EPERM", "EACCES"} >= set(tried.values()), tried
