"""Writing into a process outside, as root in a workload that is only watched: process_vm_writev, /proc/PID/mem, PTRACE_SEIZE.
What is written there runs outside."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

from tests.e2e.conftest import Daemon
from tests.e2e.escapes.loose import Loose, judge

SCRIPT = """
pid, near = int(sys.argv[1]), int(sys.argv[2], 16)
text = ctypes.create_string_buffer(b"written")
def vector(address):
    return struct.pack("=QQ", address, 7)
def remote():
    call("process_vm_writev", pid, vector(ctypes.addressof(text)), ctypes.c_ulong(1), vector(near), ctypes.c_ulong(1),
         ctypes.c_ulong(0))
def file():
    with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
        memory.seek(near + 16)
        memory.write(b"written")
def seize():
    call("ptrace", 0x4206, pid, None, None)
    call("ptrace", 0x4207, pid, None, None)            # PTRACE_INTERRUPT
    os.waitpid(pid, 0x40000000)
    call("ptrace", 17, pid, None, None)                # PTRACE_DETACH
go()
for way in (remote, file, seize):
    attempt(way.__name__, way)
"""


def test_memory_outside(
    loose: Callable[..., Loose], user: str, victim: subprocess.Popen[bytes], shared_daemon: Daemon
) -> None:
    with open(f"/proc/{victim.pid}/maps") as maps:  # noqa: PTH123
        stack = next(line for line in maps if line.rstrip().endswith("[stack]")).split("-")[0]
    script = loose(SCRIPT, victim.pid, stack, user=user)
    script.ready()
    script.sever()
    script.go()
    said = script.results()
    with open(f"/proc/{victim.pid}/mem", "rb", buffering=0) as memory:  # noqa: PTH123
        memory.seek(int(stack, 16))
        written = memory.read(32).count(b"written")
    assert written == sum(said[way] == "done" for way in ("remote", "file")), said
    reached = [way for way, outcome in said.items() if outcome == "done"]
    if user == "root":
        judge(shared_daemon, "all_tampering_seen", reached)
    else:
        assert not reached
